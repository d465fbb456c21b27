//! Sockets of the host that forwards and translation would take packets from.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use crate::{
    config::Protocol,
    error::{Error, Result},
};

/// A bound socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    /// Anybody may send to it: a TCP listener, or a UDP socket without a peer.
    pub is_listening: bool,
}

/// States in `/proc/net/tcp` (`include/net/tcp_states.h`). In the first two a TCP socket loses nothing any
/// more; UDP sockets have `CLOSE` until they have a peer.
const TIME_WAIT: &str = "06";
const CLOSE: &str = "07";
const LISTEN: &str = "0A";

/// Every bound socket of the protocol in this network namespace.
pub fn bound(protocol: Protocol) -> Result<Vec<Socket>> {
    if protocol == Protocol::Sctp {
        return bound_sctp();
    }
    let mut sockets = Vec::new();
    for (file, is_v6) in [(protocol.name().to_owned(), false), (format!("{protocol}6"), true)] {
        // The thread's own: /proc/net is that of the process's first thread, which is the same here.
        let path = Path::new("/proc/thread-self/net").join(file);
        match std::fs::read_to_string(&path) {
            Ok(text) => sockets.extend(text.lines().skip(1).filter_map(|line| parse_line(line, protocol, is_v6))),
            // A host without IPv6.
            Err(error) if is_v6 && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("read", path, error)),
        }
    }
    Ok(sockets)
}

/// SCTP endpoints; a kernel without SCTP has none.
fn bound_sctp() -> Result<Vec<Socket>> {
    let path = "/proc/thread-self/net/sctp/eps";
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().skip(1).filter_map(parse_sctp_line).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file("read", path, error)),
    }
}

/// `ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS` (net/sctp/proc.c). An endpoint with several addresses counts
/// by its first one.
fn parse_sctp_line(line: &str) -> Option<Socket> {
    let mut fields = line.split_whitespace().skip(5);
    let port = fields.next()?.parse().ok()?;
    let address = fields.nth(2)?.parse().ok()?;
    Some(Socket { protocol: Protocol::Sctp, address, port, is_listening: true })
}

/// `sl local_address rem_address st …`, addresses as hexadecimal words in host order.
fn parse_line(line: &str, protocol: Protocol, is_v6: bool) -> Option<Socket> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    if protocol == Protocol::Tcp && [TIME_WAIT, CLOSE].contains(&state) {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| -> Option<[u8; 4]> {
        Some(u32::from_str_radix(address.get(index * 8..index * 8 + 8)?, 16).ok()?.to_ne_bytes())
    };
    let address = if is_v6 {
        let mut octets = [0; 16];
        for (index, four) in octets.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *four = word(index)?;
        }
        // A dual-stack socket's IPv4 side shows as a mapped address.
        Ipv6Addr::from(octets).to_canonical()
    } else {
        IpAddr::V4(Ipv4Addr::from(word(0)?))
    };
    let is_listening = state == if protocol == Protocol::Tcp { LISTEN } else { CLOSE };
    (port != 0).then_some(Socket { protocol, address, port, is_listening })
}

impl Socket {
    /// True where packets from outside to `listen` (`None`: any address of the host) reach the socket.
    pub fn is_hit_by(&self, listen: Option<Ipv4Addr>) -> bool {
        match self.address {
            // Nothing from outside reaches it.
            address if address.is_loopback() => false,
            address if address.is_unspecified() => true,
            IpAddr::V4(address) => listen.is_none_or(|listen| listen == address),
            IpAddr::V6(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sctp_endpoint_is_read() {
        let line = "ffff8880 ffff8881 2   10  1    3868      0 12345 192.0.2.1 10.0.0.1";
        let wanted =
            Socket { protocol: Protocol::Sctp, address: "192.0.2.1".parse().unwrap(), port: 3868, is_listening: true };
        assert_eq!(parse_sctp_line(line), Some(wanted));
        assert_eq!(parse_sctp_line("a b c"), None);
    }

    #[test]
    fn lines_of_proc_net_are_read() {
        let cases = [
            ("   0: 00000000:0016 00000000:0000 0A 00000000:00000000", false, Some(("0.0.0.0", 22))),
            ("   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000", false, Some(("127.0.0.1", 8080))),
            ("   2: 0A01A8C0:A001 0101A8C0:01BB 01 00000000:00000000", false, Some(("192.168.1.10", 40961))),
            ("   3: 0A01A8C0:A001 0101A8C0:01BB 06 00000000:00000000", false, None),
            (
                "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A",
                true,
                Some(("::", 80)),
            ),
            (
                "   0: 0000000000000000FFFF00000A01A8C0:0050 00000000000000000000000000000000:0000 01",
                true,
                Some(("192.168.1.10", 80)),
            ),
            ("garbage", false, None),
        ];
        for (line, is_v6, expected) in cases {
            let socket = parse_line(line, Protocol::Tcp, is_v6);
            assert_eq!(
                socket.is_some_and(|socket| socket.is_listening),
                line.ends_with(" 0A") || line.contains(" 0A ")
            );
            let expected = expected.map(|(address, port)| (address.parse::<IpAddr>().unwrap(), port));
            assert_eq!(socket.map(|socket| (socket.address, socket.port)), expected, "{line}");
        }
    }

    #[test]
    fn a_udp_socket_without_a_peer_listens() {
        let line = |state: &str| format!("   1: 00000000:C000 00000000:0000 {state} 00000000:00000000");
        let is_listening = |state| parse_line(&line(state), Protocol::Udp, false).unwrap().is_listening;
        assert!(is_listening("07") && !is_listening("01"));
    }

    #[test]
    fn a_socket_is_hit_where_outside_packets_reach_it() {
        let cases = [
            ("0.0.0.0", None, true),
            ("::", None, true),
            ("::", Some("192.0.2.1"), true),
            ("192.0.2.1", None, true),
            ("192.0.2.1", Some("192.0.2.1"), true),
            ("192.0.2.1", Some("192.0.2.2"), false),
            ("127.0.0.1", None, false),
            ("2001:db8::1", None, false),
        ];
        for (address, listen, hit) in cases {
            let socket =
                Socket { protocol: Protocol::Tcp, address: address.parse().unwrap(), port: 80, is_listening: true };
            assert_eq!(socket.is_hit_by(listen.map(|l| l.parse().unwrap())), hit, "{address} {listen:?}");
        }
    }
}
