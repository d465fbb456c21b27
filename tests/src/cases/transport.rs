//! What translation does to TCP options and to SCTP.

use super::{Case, Expect, at, from_outside, on_the_wire, to_gateway, to_guest};
use crate::{
    frame::{Ipv4, SCTP},
    switch::{GUEST1, Port},
    topology::{HOST, OUTSIDE},
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// SCTP chunks.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

pub fn cases() -> Vec<Case> {
    [clamped(), sctp()].concat()
}

fn guest_sends(name: impl Into<String>, inside: &Ipv4, outside: Ipv4) -> Case {
    Case::new(name, Port::Guest1, to_gateway(inside), Expect::Sends(Port::Uplink, on_the_wire(outside)))
}

/// The longest options there are, the size last.
fn filled(size: [u8; 2]) -> [u8; 40] {
    let mut options = [1; 40];
    options[36..].copy_from_slice(&[2, 4, size[0], size[1]]);
    options
}

fn clamped() -> Vec<Case> {
    let small = |case: Case| case.setup(|setup| setup.mtus = vec![(Port::Uplink, 1400)]);
    let tcp = |flags: u8, options: &[u8]| {
        let packet = |src| Ipv4::tcp_with_options(at(src, 50_000), at(OUTSIDE, 80), flags, options);
        (packet(GUEST1.1), packet(HOST))
    };
    // Options before and after, and what is left of a size of 1460 where 1360 fit.
    let changed: [(&str, &[u8], &[u8]); 4] = [
        ("alone", &[2, 4, 0x05, 0xb4], &[2, 4, 0x05, 0x50]),
        ("behind one byte", &[1, 2, 4, 0x05, 0xb4, 0, 0, 0], &[1, 2, 4, 0x05, 0x50, 0, 0, 0]),
        ("behind others", &[4, 2, 3, 3, 7, 1, 2, 4, 0x05, 0xb4, 1, 1], &[4, 2, 3, 3, 7, 1, 2, 4, 0x05, 0x50, 1, 1]),
        ("at the very end of forty bytes", &filled([0xff, 0xff]), &filled([0x05, 0x50])),
    ];
    let kept: [(&str, u8, &[u8]); 9] = [
        ("a size that fits", SYN, &[2, 4, 0x05, 0x50]),
        ("a size that is smaller", SYN, &[2, 4, 0x02, 0x18]),
        ("no options", SYN, &[]),
        ("no size among them", SYN, &[4, 2, 1, 1]),
        ("a size behind the list's end", SYN, &[0, 1, 1, 1, 2, 4, 0x05, 0xb4]),
        ("an option without length", SYN, &[3, 0, 1, 1, 2, 4, 0x05, 0xb4]),
        ("an option beyond the header", SYN, &[3, 9, 1, 1, 1, 1, 1, 1]),
        ("a size of a wrong length", SYN, &[2, 3, 0x05, 1]),
        ("a size cut off", SYN, &[1, 1, 1, 2]),
    ];
    let mut cases: Vec<_> = changed
        .into_iter()
        .map(|(name, before, after)| {
            small(guest_sends(format!("MSS clamped: {name}"), &tcp(SYN, before).0, tcp(SYN, after).1))
        })
        .collect();
    for (name, flags, options) in kept {
        let (inside, outside) = tcp(flags, options);
        cases.push(small(guest_sends(format!("options kept: {name}"), &inside, outside)));
    }
    let (syn, _) = tcp(SYN, &[]);
    let (data, data_out) = tcp(ACK, &[2, 4, 0x05, 0xb4]);
    let answer = |dst, options: &[u8]| Ipv4::tcp_with_options(at(OUTSIDE, 80), at(dst, 50_000), SYN | ACK, options);
    cases.extend([
        small(guest_sends("options kept: no SYN", &data, data_out)).after(Port::Guest1, to_gateway(&syn)),
        small(Case::new(
            "MSS clamped: in the answer, by the uplink's MTU",
            Port::Uplink,
            from_outside(&answer(HOST, &[2, 4, 0x05, 0xb4])),
            Expect::Sends(Port::Guest1, to_guest(GUEST1.0, answer(GUEST1.1, &[2, 4, 0x05, 0x50]))),
        ))
        .after(Port::Guest1, to_gateway(&syn)),
        guest_sends("MSS clamped: by the guest's own MTU", &tcp(SYN, &[2, 4, 9, 0]).0, tcp(SYN, &[2, 4, 4, 0xec]).1)
            .setup(|setup| setup.mtus = vec![(Port::Guest1, 1300)]),
        small(guest_sends("MSS clamped: routed", &tcp(SYN, &[2, 4, 0x05, 0xb4]).0, tcp(SYN, &[2, 4, 0x05, 0x50]).0))
            .setup(|setup| setup.mode = 3),
    ]);
    cases
}

fn sctp() -> Vec<Case> {
    let one_port = |case: Case| case.setup(|setup| setup.snat = (60_000, 60_000));
    let packet = |src, port, payload: &[u8]| Ipv4::sctp(at(src, port), at(OUTSIDE, 80), INIT, payload);
    let absent = |packet: Ipv4| packet.spoil(8, &[0; 4]);
    let answer = |dst, port| Ipv4::sctp(at(OUTSIDE, 80), at(dst, port), INIT_ACK, b"answer of SCTP");
    let mut cases: Vec<_> = [0, 1, 16, 255, 1452]
        .into_iter()
        .map(|length| {
            let payload = vec![0x5a; length];
            let (inside, outside) = (packet(GUEST1.1, 4000, &payload), packet(HOST, 60_000, &payload));
            one_port(guest_sends(format!("SCTP from another port, {length} bytes"), &inside, outside))
        })
        .collect();
    cases.extend([
        guest_sends("SCTP keeps its port and CRC", &packet(GUEST1.1, 50_000, b"abcd"), packet(HOST, 50_000, b"abcd")),
        one_port(guest_sends(
            "SCTP without CRC stays without",
            &absent(packet(GUEST1.1, 4000, b"abcd")),
            absent(packet(HOST, 60_000, b"abcd")),
        )),
        one_port(Case::new(
            "SCTP's answer",
            Port::Uplink,
            from_outside(&answer(HOST, 60_000)),
            Expect::Sends(Port::Guest1, to_guest(GUEST1.0, answer(GUEST1.1, 4000))),
        ))
        .after(Port::Guest1, to_gateway(&packet(GUEST1.1, 4000, b"first"))),
        Case::drops(
            "SCTP cut off",
            Port::Guest1,
            to_gateway(&Ipv4::new(GUEST1.1, OUTSIDE, SCTP, vec![0; 11])),
            vnet_common::DropReason::TruncatedL4,
        ),
    ]);
    cases
}
