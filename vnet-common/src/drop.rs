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
    TruncatedL4 = 4, "truncated-l4", "the TCP, UDP, SCTP or ICMP header is cut off";
    InvalidIpv4 = 5, "invalid-ipv4", "IPv4 version, header length or total length is wrong";
    GroupSource = 6, "group-source", "the source MAC is a multicast address or zero";
    GatewaySource = 7, "gateway-source", "a guest used the gateway's own MAC as its source";
    LinkLocalControl = 8, "link-local-control", "01:80:c2:00:00:0x is never forwarded (802.1Q)";
    SamePort = 9, "same-port", "the destination is behind the port that the frame came from";
    NoMembers = 10, "no-members", "no other port to flood the frame to";
    PortAbsent = 11, "port-absent", "the port that the frame must leave by has no device now";
    OverMtu = 12, "over-mtu", "longer than the MTU of the device it must leave by";
    TtlExceeded = 13, "ttl-exceeded", "the time to live ended here";
    NoRoute = 14, "no-route", "no route to the destination, or an unreachable or prohibited one";
    NotAnUplink = 15, "not-an-uplink", "the route leads out of a device that is not an uplink of the network";
    OutsideRefused = 16, "outside-refused", "the network's mode does not let guests reach the outside";
    NoExternalAddress = 17, "no-external-address", "the uplink has no address to translate to";
    PortsExhausted = 18, "ports-exhausted", "no free external port for a new connection";
    TableFull = 19, "table-full", "the table of connections or bindings is full";
    UnsupportedProtocol = 20, "unsupported-protocol", "not TCP, UDP, SCTP or ICMP echo: cannot be translated";
    FragmentNotTranslated = 21, "fragment-not-translated", "a fragment of SCTP whose port must change: the checksum covers what is not known yet";
    NoConnection = 22, "no-connection", "a TCP segment that belongs to no connection and opens none";
    BindingEnding = 23, "binding-ending", "its binding was taken down at this very moment";
    ForeignSource = 24, "foreign-source", "the source address is not of the guest's network";
    VlanNotRouted = 25, "vlan-not-routed", "a tagged frame for the gateway, which is on no VLAN";
    RewriteFailed = 26, "rewrite-failed", "the kernel refused to change the frame (no memory)";
    NoNetwork = 27, "no-network", "the port's network is gone or stopped";
    GuestsApart = 28, "guests-apart", "a packet for another guest of the same network, sent to the gateway";
    MulticastNotRouted = 29, "multicast-not-routed", "IP multicast or broadcast sent to the gateway's MAC";
    TupleTaken = 30, "tuple-taken", "another forwarded connection already uses these addresses and ports";
    Filtered = 31, "filtered", "for a port that a guest holds, from a remote that it has not sent to";
    GuestConnections = 32, "guest-connections", "the guest has as many connections as its quota allows";
    GuestPorts = 33, "guest-ports", "the guest holds as many external ports as its quota allows";
    GuestRate = 34, "guest-rate", "the guest opens connections faster than its quota allows";
    FragmentWithoutFirst = 35, "fragment-without-first", "the datagram's first fragment never came, or too late";
    FragmentConflict = 36, "fragment-conflict", "a second first fragment of one datagram, with other ports";
    FragmentTableFull = 37, "fragment-table-full", "no room to keep a fragment, or its datagram's ports";
    IcmpErrorStray = 38, "icmp-error-stray", "an ICMP error about no connection, or one that quotes too little";
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
