//! Cases of the datapath as data: a frame, the tables, and what must come of it. The same cases run on
//! TC and on XDP.

pub mod bridging;
pub mod check;
pub mod inbound;
pub mod matrix;
pub mod outbound;
pub mod parsing;
pub mod refusals;
pub mod transport;

use std::net::{Ipv4Addr, SocketAddrV4};

use vnet_common::DropReason;

use crate::{
    frame::{Ipv4, Mac},
    switch::{GATEWAY_MAC, GUEST1, OUTSIDE_MAC, Port, Setup, UPLINK_MAC},
    topology::{GATEWAY, HOST},
};

/// ICMP errors: type and code.
pub const NET_UNREACHABLE: [u8; 2] = [3, 0];
pub const TOO_BIG: [u8; 2] = [3, 4];
pub const PROHIBITED: [u8; 2] = [3, 13];
pub const TTL_EXCEEDED: [u8; 2] = [11, 0];

/// What must come of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No port of ours: left alone, not even counted.
    NotOurs,
    /// Left to the host, untouched.
    ToHost,
    Drop(DropReason),
    /// Dropped, and the sender told so by this frame.
    Refuses(DropReason, Vec<u8>),
    /// A fragment that is kept until its datagram's first one comes; counted then.
    Kept,
    /// Leaves by this port, as this frame.
    Sends(Port, Vec<u8>),
    /// Leaves by this port as this frame, but for the link addresses, which the kernel finds out.
    Resolves(Port, Vec<u8>),
    /// Goes back as this frame.
    Answers(Vec<u8>),
    /// Copies leave by these ports.
    Floods(Vec<Port>),
    /// Copies leave by these ports, and the host gets the frame, too.
    FloodsAndToHost(Vec<Port>),
}

#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub setup: Setup,
    /// Frames that pass before (on TC), each of which must be sent or flooded.
    pub before: Vec<(Port, Vec<u8>)>,
    pub from: Port,
    /// The size of the segments that a GSO frame stands for.
    pub gso_size: u32,
    pub frame: Vec<u8>,
    pub expect: Expect,
    /// XDP has to send it, and not leave it to TC.
    pub accelerated: bool,
}

impl Case {
    pub fn new(name: impl Into<String>, from: Port, frame: Vec<u8>, expect: Expect) -> Self {
        Self {
            name: name.into(),
            setup: Setup::default(),
            before: Vec::new(),
            from,
            gso_size: 0,
            frame,
            expect,
            accelerated: false,
        }
    }

    pub fn drops(name: impl Into<String>, from: Port, frame: Vec<u8>, reason: DropReason) -> Self {
        Self::new(name, from, frame, Expect::Drop(reason))
    }

    /// Dropped, and answered by an ICMP error of this type and code.
    pub fn refuses(name: impl Into<String>, from: Port, frame: Vec<u8>, reason: DropReason, kind: [u8; 2]) -> Self {
        Self::refuses_with_mtu(name, from, frame, reason, (kind, 0))
    }

    pub fn refuses_with_mtu(
        name: impl Into<String>,
        from: Port,
        frame: Vec<u8>,
        reason: DropReason,
        (kind, mtu): ([u8; 2], u16),
    ) -> Self {
        let router = if from == Port::Uplink { HOST } else { GATEWAY };
        let link = |at: usize| Mac(std::array::from_fn(|octet| frame[at + octet]));
        let answer = Ipv4::icmp_refusal(router, kind, mtu, &frame).frame(link(6), link(0));
        Self::new(name, from, frame, Expect::Refuses(reason, answer))
    }

    pub fn setup(mut self, change: impl FnOnce(&mut Setup)) -> Self {
        change(&mut self.setup);
        self
    }

    pub fn after(mut self, from: Port, frame: Vec<u8>) -> Self {
        self.before.push((from, frame));
        self
    }

    pub fn gso(self, gso_size: u32) -> Self {
        Self { gso_size, ..self }
    }

    pub fn accelerated(self) -> Self {
        Self { accelerated: true, ..self }
    }
}

/// All cases.
pub fn all() -> Vec<Case> {
    [
        parsing::cases(),
        bridging::cases(),
        outbound::cases(),
        inbound::cases(),
        refusals::cases(),
        transport::cases(),
        matrix::cases(),
    ]
    .concat()
}

/// Guest 1's packet to the gateway.
pub fn to_gateway(packet: &Ipv4) -> Vec<u8> {
    packet.frame(GATEWAY_MAC, GUEST1.0)
}

/// A packet as it leaves by the uplink: one hop less.
pub fn on_the_wire(packet: Ipv4) -> Vec<u8> {
    let ttl = packet.ttl - 1;
    packet.ttl(ttl).frame(OUTSIDE_MAC, UPLINK_MAC)
}

/// A packet from the machine outside to the uplink.
pub fn from_outside(packet: &Ipv4) -> Vec<u8> {
    packet.frame(UPLINK_MAC, OUTSIDE_MAC)
}

/// A packet as it reaches a guest through the gateway.
pub fn to_guest(guest: Mac, packet: Ipv4) -> Vec<u8> {
    let ttl = packet.ttl - 1;
    packet.ttl(ttl).frame(guest, GATEWAY_MAC)
}

pub fn at(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}
