//! The packet matrix of the NAT: every protocol, plain and with options, whole and in fragments, and
//! every ICMP error about it, in both directions.

use std::net::{Ipv4Addr, SocketAddrV4};

use vnet_common::DropReason;

use super::{Case, Expect, at, from_outside, on_the_wire, to_gateway, to_guest};
use crate::{
    frame::Ipv4,
    icmp_error::{ErrorKind, PASSING, Quote, STOPPED, UNREACHABLE_PORT},
    sctp::{DATA, INIT, INIT_ACK, INIT_VALUE},
    switch::{GUEST1, Port},
    topology::{HOST, OUTSIDE},
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The guest's port or query identifier, and the only one that the network has outside.
pub const INSIDE: u16 = 4000;
pub const EXTERNAL: u16 = 60_000;
const REMOTE: SocketAddrV4 = SocketAddrV4::new(OUTSIDE, 7);
/// A router on the way that no guest ever sent to: errors come from anywhere.
const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// No-operations and the end of the list.
const OPTIONS: [u8; 4] = [1, 1, 1, 0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
    /// UDP without a checksum (RFC 768).
    UdpUnsummed,
    Echo,
    Sctp,
}

/// One end of a packet's way: what the guest sees, or what the wire sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Guest,
    Wire,
}

impl Side {
    /// The guest's address as this side knows it.
    fn local(self) -> SocketAddrV4 {
        match self {
            Self::Guest => at(GUEST1.1, INSIDE),
            Self::Wire => at(HOST, EXTERNAL),
        }
    }
}

impl Protocol {
    const ALL: [Self; 5] = [Self::Tcp, Self::Udp, Self::UdpUnsummed, Self::Echo, Self::Sctp];

    /// The guest's packet within a connection, as a side sees it.
    fn out(self, side: Side, payload: &[u8]) -> Ipv4 {
        let local = side.local();
        match self {
            Self::Tcp => Ipv4::tcp(local, REMOTE, ACK, payload),
            Self::Udp => Ipv4::udp(local, REMOTE, payload),
            Self::UdpUnsummed => Ipv4::udp(local, REMOTE, payload).spoil(6, &[0, 0]),
            Self::Echo => Ipv4::icmp_echo(*local.ip(), OUTSIDE, 8, local.port(), payload),
            Self::Sctp => Ipv4::sctp(local, REMOTE, DATA, payload),
        }
    }

    /// The remote's answer.
    fn back(self, side: Side, payload: &[u8]) -> Ipv4 {
        let local = side.local();
        match self {
            Self::Tcp => Ipv4::tcp(REMOTE, local, ACK, payload),
            Self::Udp => Ipv4::udp(REMOTE, local, payload),
            Self::UdpUnsummed => Ipv4::udp(REMOTE, local, payload).spoil(6, &[0, 0]),
            Self::Echo => Ipv4::icmp_echo(OUTSIDE, *local.ip(), 0, local.port(), payload),
            Self::Sctp => Ipv4::sctp(REMOTE, local, DATA, payload),
        }
    }

    /// Frames that open the connection.
    fn opening(self) -> Vec<(Port, Vec<u8>)> {
        let (inside, wire) = (Side::Guest.local(), Side::Wire.local());
        let (first, second) = match self {
            Self::Tcp => (Ipv4::tcp(inside, REMOTE, SYN, b""), Ipv4::tcp(REMOTE, wire, SYN | ACK, b"")),
            Self::Sctp => {
                (Ipv4::sctp(inside, REMOTE, INIT, &INIT_VALUE), Ipv4::sctp(REMOTE, wire, INIT_ACK, &INIT_VALUE))
            }
            _ => (self.out(Side::Guest, b"open"), self.back(Side::Wire, b"open")),
        };
        vec![(Port::Guest1, to_gateway(&first)), (Port::Uplink, from_outside(&second))]
    }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    whole_packets().into_iter().chain(on_each(&[fragmented])).collect()
}

/// Those without fragments.
pub fn whole_packets() -> Vec<Case> {
    on_each(&[whole, errors_from_outside, errors_from_the_guest, errors_that_do_not_pass])
}

/// The kinds of cases on a connection of each protocol.
fn on_each(kinds: &[fn(Protocol) -> Vec<Case>]) -> Vec<Case> {
    let of_protocol = |protocol| {
        let cases = kinds.iter().flat_map(move |kind| kind(protocol));
        cases.map(move |case| on_open(protocol, case))
    };
    Protocol::ALL.into_iter().flat_map(of_protocol).collect()
}

/// The case on a connection that stands, with one external port only.
fn on_open(protocol: Protocol, mut case: Case) -> Case {
    case.before.splice(0..0, protocol.opening());
    case.name = format!("{protocol:?}: {}", case.name);
    case.setup(|setup| setup.snat = (EXTERNAL, EXTERNAL))
}

fn out(name: impl Into<String>, sent: &Ipv4, seen: Ipv4) -> Case {
    Case::new(name, Port::Guest1, to_gateway(sent), Expect::Sends(Port::Uplink, on_the_wire(seen)))
}

fn back(name: impl Into<String>, sent: &Ipv4, seen: Ipv4) -> Case {
    Case::new(name, Port::Uplink, from_outside(sent), Expect::Sends(Port::Guest1, to_guest(GUEST1.0, seen)))
}

fn whole(protocol: Protocol) -> Vec<Case> {
    let mut cases = Vec::new();
    for (options_name, options) in [("plain", &[][..]), ("with IP options", &OPTIONS)] {
        for (length_name, payload) in [("even", &b"even"[..]), ("odd", b"odd"), ("empty", b"")] {
            let made = |packet: Ipv4| packet.options(options);
            let [sent, seen] = [Side::Guest, Side::Wire].map(|side| made(protocol.out(side, payload)));
            cases.push(out(format!("out, {length_name}, {options_name}"), &sent, seen));
            let [seen, sent] = [Side::Guest, Side::Wire].map(|side| made(protocol.back(side, payload)));
            cases.push(back(format!("back, {length_name}, {options_name}"), &sent, seen));
        }
    }
    cases
}

/// What an error quotes: how much, and of a packet with which options.
fn quotes() -> Vec<(&'static str, Quote, &'static [u8])> {
    vec![
        ("8 bytes", Quote::Least, &[]),
        ("all", Quote::All, &[]),
        ("8 bytes, inner options", Quote::Least, &OPTIONS),
        ("all, inner options", Quote::All, &OPTIONS),
    ]
}

/// A router outside about what the guest sent.
fn errors_from_outside(protocol: Protocol) -> Vec<Case> {
    let mut cases = Vec::new();
    for error in PASSING {
        for (name, quote, options) in quotes() {
            let [seen, sent] = [Side::Guest, Side::Wire].map(|side| {
                let about = protocol.out(side, b"cause").options(options).ttl(1);
                Ipv4::icmp_error(ROUTER, *side.local().ip(), error, &about.quoted(quote))
            });
            let outer = |packet: &Ipv4| packet.clone().options(&OPTIONS);
            let ErrorKind { kind, code, .. } = error;
            cases.push(back(format!("{kind}/{code} in, quoting {name}"), &sent, seen.clone()));
            if error == UNREACHABLE_PORT {
                cases.push(back(
                    format!("{kind}/{code} in, outer options, quoting {name}"),
                    &outer(&sent),
                    outer(&seen),
                ));
            }
        }
    }
    cases
}

/// The guest about what the remote sent.
fn errors_from_the_guest(protocol: Protocol) -> Vec<Case> {
    let mut cases = Vec::new();
    for error in PASSING {
        for (name, quote, options) in quotes() {
            let [sent, seen] = [Side::Guest, Side::Wire].map(|side| {
                let about = protocol.back(side, b"cause").options(options).ttl(63);
                Ipv4::icmp_error(*side.local().ip(), OUTSIDE, error, &about.quoted(quote))
            });
            let ErrorKind { kind, code, .. } = error;
            cases.push(out(format!("{kind}/{code} out, quoting {name}"), &sent, seen));
        }
    }
    cases
}

/// Types that pass no router, and errors about what was never sent: the host's from outside, dropped
/// from a guest.
fn errors_that_do_not_pass(protocol: Protocol) -> Vec<Case> {
    let about_out = protocol.out(Side::Wire, b"cause").quoted(Quote::All);
    let about_back = protocol.back(Side::Guest, b"cause").quoted(Quote::All);
    let mut cases = Vec::new();
    for error in STOPPED {
        let ErrorKind { kind, code, .. } = error;
        let from_router = Ipv4::icmp_error(ROUTER, HOST, error, &about_out);
        let from_guest = Ipv4::icmp_error(GUEST1.1, OUTSIDE, error, &about_back);
        cases.push(Case::new(format!("{kind}/{code} in"), Port::Uplink, from_outside(&from_router), Expect::ToHost));
        cases.push(Case::drops(
            format!("{kind}/{code} out"),
            Port::Guest1,
            to_gateway(&from_guest),
            DropReason::UnsupportedProtocol,
        ));
    }
    let mut stranger = protocol.out(Side::Wire, b"cause");
    stranger.dst = ROUTER;
    for (name, quoted) in [
        ("about a packet to somebody else", stranger.quoted(Quote::All)),
        ("about nothing", Vec::new()),
        ("cut off in the inner header", about_out[..19].to_vec()),
        ("cut off before the inner ports", about_out[..20].to_vec()),
        ("cut off within the inner ports", about_out[..23].to_vec()),
        ("with a bad inner header length", [&[0x4f][..], &about_out[1..]].concat()),
    ] {
        let error = Ipv4::icmp_error(ROUTER, HOST, UNREACHABLE_PORT, &quoted);
        cases.push(Case::new(format!("3/3 in, {name}"), Port::Uplink, from_outside(&error), Expect::ToHost));
    }
    cases
}

fn fragmented(protocol: Protocol) -> Vec<Case> {
    let payload: Vec<u8> = (0..100).collect();
    let [sent, seen] = [Side::Guest, Side::Wire].map(|side| protocol.out(side, &payload));
    let [arrives, answer] = [Side::Guest, Side::Wire].map(|side| protocol.back(side, &payload));
    // Bytes of the payload: the first fragment, one behind it, the last, and one that overlaps both.
    let pieces = [(0, 40), (40, 80), (80, sent.payload.len())];
    let overlapping = (32, 80);
    let after_first = |case: Case, port: Port, frame: Vec<u8>| case.after(port, frame);
    let first_out = to_gateway(&sent.piece(0, 40));
    let first_back = from_outside(&answer.piece(0, 40));
    let mut cases = vec![
        out("first fragment out", &sent.piece(0, 40), seen.piece(0, 40)),
        back("first fragment back", &answer.piece(0, 40), arrives.piece(0, 40)),
    ];
    if protocol == Protocol::Sctp {
        // Nobody knows how much follows, and the CRC covers all of it.
        cases = vec![
            Case::drops("first fragment out", Port::Guest1, first_out, DropReason::FragmentNotTranslated),
            Case::drops("first fragment back", Port::Uplink, first_back, DropReason::FragmentNotTranslated),
        ];
        return cases;
    }
    for (name, port, frame) in [
        ("a fragment before its first out", Port::Guest1, to_gateway(&sent.piece(40, 80))),
        ("a fragment before its first back", Port::Uplink, from_outside(&answer.piece(40, 80))),
    ] {
        cases.push(Case::new(name, port, frame, Expect::Kept));
    }
    for (start, end) in pieces.into_iter().skip(1).chain([overlapping]) {
        let name = format!("bytes {start} to {end}");
        cases.push(after_first(
            out(format!("{name} out"), &sent.piece(start, end), seen.piece(start, end)),
            Port::Guest1,
            first_out.clone(),
        ));
        cases.push(after_first(
            back(format!("{name} back"), &answer.piece(start, end), arrives.piece(start, end)),
            Port::Uplink,
            first_back.clone(),
        ));
    }
    // The last comes before the one in the middle: both pass, because the first was seen.
    cases.push(
        out("bytes 40 to 80 out, behind the last", &sent.piece(40, 80), seen.piece(40, 80))
            .after(Port::Guest1, first_out)
            .after(Port::Guest1, to_gateway(&sent.piece(80, sent.payload.len()))),
    );
    cases
}
