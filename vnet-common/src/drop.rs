//! Why a frame was dropped: numbers are ABI, names are what the CLI prints.

/// Declares the reasons, their names and their one-line explanations in one place.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $help:literal;)*) => {
        /// A named cause for which the datapath drops a frame. Numbers are stable: never used again,
        /// never moved.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $(#[doc = $help] $(#[$doc])* $variant = $number,)*
        }

        impl DropReason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in the CLI, in JSON and in the README.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One line that says what it means.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

impl DropReason {
    /// Counters a port has room for; every number is below.
    pub const SLOTS: usize = 64;
}

drop_reasons! {
    TruncatedEthernet = 0, "truncated-ethernet", "shorter than an Ethernet header";
    TruncatedVlan = 1, "truncated-vlan", "a VLAN tag with nothing behind it";
    TruncatedArp = 2, "truncated-arp", "an ARP packet for the gateway, cut off";
    TruncatedIpv4 = 3, "truncated-ipv4", "shorter than its IPv4 header says";
    TruncatedIpv6 = 4, "truncated-ipv6", "shorter than an IPv6 header";
    TruncatedL4 = 5, "truncated-l4", "the TCP, UDP or ICMP header is cut off";
    InvalidIpv4 = 6, "invalid-ipv4", "IPv4 version, header length or total length is wrong";
    GroupSource = 7, "group-source", "the source MAC is a multicast address or zero";
    GatewaySource = 8, "gateway-source", "a guest used the gateway's own MAC as its source";
    LinkLocalControl = 9, "link-local-control", "01:80:c2:00:00:0x is never forwarded (802.1Q)";
    SamePort = 10, "same-port", "the destination is behind the port that the frame came from";
    NoMembers = 11, "no-members", "no other port to flood the frame to";
    PortAbsent = 12, "port-absent", "the port that the frame must leave by has no device now";
    OverMtu = 13, "over-mtu", "longer than the MTU of the device it must leave by";
    TtlExceeded = 14, "ttl-exceeded", "the time to live ended here";
    NoRoute = 15, "no-route", "no route to the destination, or an unreachable or prohibited one";
    NotAnUplink = 16, "not-an-uplink", "the route leads out of a device that is not an uplink of the network";
    OutsideRefused = 17, "outside-refused", "the network's mode does not let guests reach the outside";
    NoExternalAddress = 18, "no-external-address", "the uplink has no address to translate to";
    PortsExhausted = 19, "ports-exhausted", "no free external port for a new connection";
    TableFull = 20, "table-full", "the table of connections or bindings is full";
    UnsupportedProtocol = 21, "unsupported-protocol", "not TCP, UDP or ICMP echo: cannot be translated";
    FragmentNotTranslated = 22, "fragment-not-translated", "a fragment cannot be translated";
    NoConnection = 23, "no-connection", "a TCP segment that belongs to no connection and opens none";
    BindingEnding = 24, "binding-ending", "its binding was taken down at this very moment";
    ForeignSource = 25, "foreign-source", "the source address is not of the guest's network";
    Ipv6NotRouted = 26, "ipv6-not-routed", "IPv6 for the outside, which this network does not route";
    VlanNotRouted = 27, "vlan-not-routed", "a tagged frame for the gateway, which is on no VLAN";
    RewriteFailed = 28, "rewrite-failed", "the kernel refused to change the frame (no memory)";
    NoNetwork = 29, "no-network", "the port's network is gone or stopped";
    GuestsApart = 30, "guests-apart", "a packet for another guest of the same network, sent to the gateway";
    MulticastNotRouted = 31, "multicast-not-routed", "IP multicast or broadcast sent to the gateway's MAC";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_fit_the_counters() {
        let numbers: HashSet<_> = DropReason::ALL.iter().map(|reason| *reason as usize).collect();
        let names: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(numbers.len(), DropReason::ALL.len());
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(numbers.iter().all(|number| *number < DropReason::SLOTS));
    }
}
