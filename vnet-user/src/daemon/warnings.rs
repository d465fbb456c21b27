//! What the user should know of a network, though nothing is refused for it.

use std::collections::BTreeSet;

use crate::{
    config::{Mode, NatConfig, NetworkConfig, Span},
    netlink::Host,
};

/// One line each.
pub(super) fn warnings(network: &NetworkConfig, host: &Host) -> Vec<String> {
    let mut warnings = Vec::new();
    let routes = network.mode.is_routed_outside();
    if routes && !network.ports.iter().any(|port| port.uplink) {
        warnings.push("no uplink: guests cannot leave; 'vnet port add NETWORK DEVICE --uplink'".into());
    }
    let pool = network.nat.snat_address.pool();
    for port in &network.ports {
        let device = &port.device;
        let Some(link) = host.link(device.as_str()) else {
            warnings.push(format!("{device} is absent: it joins when it comes"));
            continue;
        };
        if port.uplink && !link.has_carrier {
            warnings.push(format!("uplink {device} has no carrier"));
        }
        let needs_address = port.uplink && network.mode == Mode::Nat && pool.is_none();
        if needs_address && host.primary_ipv4(link.ifindex).is_none() {
            warnings.push(format!("uplink {device} has no IPv4 address: nothing can be translated there"));
        }
    }
    let listens = network.forwards.iter().filter_map(|forward| forward.listen.address);
    for address in listens.collect::<BTreeSet<_>>() {
        let is_ours = pool.is_some_and(|pool| pool.contains(address));
        if !is_ours && !host.addresses.iter().any(|there| there.address == address) {
            warnings.push(format!("forwards listen on {address}, which is no address of this host now"));
        }
    }
    warnings.extend(short_timeouts(&network.nat));
    warnings
}

/// Timeouts below what the RFCs ask for.
fn short_timeouts(nat: &NatConfig) -> impl Iterator<Item = String> {
    let least = [
        ("udp-timeout", nat.udp_timeout, Span::MINUTE.times(2), "RFC 4787 REQ-5"),
        ("tcp-timeout", nat.tcp_timeout, Span::MINUTE.times(124), "RFC 5382 REQ-5"),
        ("tcp-transitory-timeout", nat.tcp_transitory_timeout, Span::MINUTE.times(4), "RFC 5382 REQ-5"),
        ("icmp-timeout", nat.icmp_timeout, Span::MINUTE, "RFC 5508 REQ-2"),
    ];
    let short = least.into_iter().filter(|(_, span, least, _)| span < least);
    short.map(|(key, span, least, rfc)| {
        format!("{key} {span} is below the {least} of {rfc}: connections may end while they are in use")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_below_those_of_the_rfcs_are_named() {
        let span = |text: &str| text.parse::<Span>().unwrap();
        let least = NatConfig {
            udp_timeout: span("120s"),
            tcp_timeout: span("7440s"),
            tcp_transitory_timeout: span("240s"),
            icmp_timeout: span("60s"),
            ..NatConfig::default()
        };
        assert_eq!(short_timeouts(&least).count(), 0);
        let short = NatConfig {
            udp_timeout: span("119s"),
            tcp_timeout: span("7439s"),
            tcp_transitory_timeout: span("239s"),
            icmp_timeout: span("59s"),
            fragment_timeout: span("1s"),
            port_cool_down: span("1s"),
            ..NatConfig::default()
        };
        assert_eq!(
            short_timeouts(&short).collect::<Vec<_>>(),
            [
                "udp-timeout 1m59s is below the 2m of RFC 4787 REQ-5: connections may end while they are in use",
                "tcp-timeout 2h3m59s is below the 2h4m of RFC 5382 REQ-5: connections may end while they are in use",
                "tcp-transitory-timeout 3m59s is below the 4m of RFC 5382 REQ-5: connections may end while they are in \
                 use",
                "icmp-timeout 59s is below the 1m of RFC 5508 REQ-2: connections may end while they are in use",
            ]
        );
    }

    #[test]
    fn a_pool_needs_no_address_of_the_host() {
        let mut host = Host::default();
        let eth0 = crate::netlink::Link { ifindex: 2, name: "eth0".into(), has_carrier: true, ..Default::default() };
        host.insert_link(eth0);
        let text = |pool: &str| {
            format!(
                "mode = \"nat\"\nport = [{{ device = \"eth0\", uplink = true }}]\nnat = {{ snat_address = \"{pool}\" }}\n\
                 forward = [{{ protocol = \"tcp\", listen = \"192.0.2.5:80\", to = \"10.0.0.2\" }}]"
            )
        };
        let shown = |pool| warnings(&toml::from_str(&text(pool)).unwrap(), &host);
        assert_eq!(shown("192.0.2.4-192.0.2.7"), <[String; 0]>::default());
        assert_eq!(
            shown("uplink"),
            [
                "uplink eth0 has no IPv4 address: nothing can be translated there",
                "forwards listen on 192.0.2.5, which is no address of this host now",
            ]
        );
    }
}
