//! A frame as it arrives, and what becomes of it.

use std::net::{IpAddr, Ipv4Addr};

use vnet_common::{Be16, DropReason, vport::VportId};
use vnet_ebpf::{
    context::{
        Side,
        mock::{Checksum, Departure, MockFrame, SentCopy},
    },
    datapath::{self, Outcome, Verdict},
};

use crate::{
    frames::tagged,
    world::{BRIDGE_HOST, BRIDGE_UPLINK, World, ifindex, is_gateway, is_veth, vport_of},
};

/// A frame as it arrives.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub bytes: Vec<u8>,
    pub tag: Option<u16>,
    pub gso_size: u32,
    pub is_partial: bool,
    pub linear: usize,
    pub marked: bool,
}

impl<B: Into<Vec<u8>>> From<B> for Arrival {
    fn from(bytes: B) -> Self {
        let bytes = bytes.into();
        Self { linear: bytes.len(), bytes, tag: None, gso_size: 0, is_partial: false, marked: false }
    }
}

impl Arrival {
    /// With a tag beside the bytes, as TC has it (in them, as XDP does).
    pub fn tag(self, tci: u16) -> Self {
        Self { tag: Some(tci), ..self }
    }

    pub fn gso(self, gso_size: u32) -> Self {
        Self { gso_size, ..self }
    }

    pub fn partial(self) -> Self {
        Self { is_partial: true, ..self }
    }

    pub fn linear(self, linear: usize) -> Self {
        Self { linear, ..self }
    }

    pub fn marked(self) -> Self {
        Self { marked: true, ..self }
    }
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    NotOurs,
    /// XDP only: TC will see it, as it was.
    PassUp,
    /// The host gets it, as it was.
    ToHost,
    Dropped(DropReason),
    /// Out of a vport's device.
    Sent(VportId, Vec<u8>),
    /// Up the host's stack, by a vport's device.
    Delivered(VportId, Vec<u8>),
    /// Out of a vport's device, to an address whose MAC address the kernel finds out.
    Resolved(VportId, Ipv4Addr, Vec<u8>),
    /// Copies of the frame as it was.
    Flooded(Vec<VportId>),
    /// Copies, and the host gets it, too.
    FloodedAndToHost(Vec<VportId>),
    /// A fragment that waits, or that goes into the hook once more with those (the frames) that waited for it.
    Kept(Vec<Vec<u8>>),
}

impl Fate {
    /// The vports by which the frame or its copies leave.
    pub fn leaves_by(&self) -> Vec<VportId> {
        let vport = |to: &VportId| if *to == BRIDGE_HOST { BRIDGE_UPLINK } else { *to };
        match self {
            Self::Sent(to, _) | Self::Delivered(to, _) | Self::Resolved(to, ..) => vec![*to],
            Self::Flooded(to) | Self::FloodedAndToHost(to) => to.iter().map(vport).collect(),
            Self::NotOurs | Self::PassUp | Self::ToHost | Self::Dropped(_) | Self::Kept(_) => Vec::new(),
        }
    }
}

/// Which of a device's hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Ingress,
    GatewayEgress,
    UplinkEgress,
}

impl World {
    /// A frame comes in from a vport's device, at TC.
    pub fn tc(&self, from: VportId, arrival: impl Into<Arrival>) -> Fate {
        self.run::<true>(Hook::Ingress, from, &arrival.into())
    }

    /// A frame comes in from a vport's device, at XDP.
    pub fn xdp(&self, from: VportId, arrival: impl Into<Arrival>) -> Fate {
        self.run::<false>(Hook::Ingress, from, &arrival.into())
    }

    pub fn run<const COMPLETE: bool>(&self, hook: Hook, from: VportId, arrival: &Arrival) -> Fate {
        let bytes = match arrival.tag {
            Some(tci) if !COMPLETE => tagged(0x8100, tci, &arrival.bytes),
            _ => arrival.bytes.clone(),
        };
        match hook {
            Hook::Ingress => {
                let mut frame = self.frame::<COMPLETE, true>(from, arrival, bytes.clone());
                let outcome = datapath::port_ingress(&mut frame, &self.tables);
                self.fate(outcome, &bytes, frame)
            }
            Hook::GatewayEgress => {
                let mut frame = self.frame::<COMPLETE, false>(from, arrival, bytes.clone());
                let outcome = datapath::gateway_egress(&mut frame, &self.tables);
                self.fate(outcome, &bytes, frame)
            }
            Hook::UplinkEgress => {
                let mut frame = self.frame::<COMPLETE, false>(from, arrival, bytes.clone());
                let outcome = datapath::uplink_egress(&mut frame, &self.tables);
                self.fate(outcome, &bytes, frame)
            }
        }
    }

    fn frame<const COMPLETE: bool, const AT_INGRESS: bool>(
        &self,
        from: VportId,
        arrival: &Arrival,
        bytes: Vec<u8>,
    ) -> MockFrame<COMPLETE, AT_INGRESS> {
        let mut frame = MockFrame::new(&self.kernel, ifindex(from), bytes);
        frame.tag = arrival.tag.map(Be16::new).filter(|_| COMPLETE);
        frame.gso_size = arrival.gso_size;
        frame.checksum = if arrival.is_partial { Checksum::Partial } else { Checksum::Complete };
        frame.linear = arrival.linear;
        frame.marked = arrival.marked && COMPLETE;
        frame
    }

    /// Reads the fate off a frame, and checks what all frames have in common.
    fn fate<const COMPLETE: bool, const AT_INGRESS: bool>(
        &self,
        outcome: Outcome,
        before: &[u8],
        frame: MockFrame<COMPLETE, AT_INGRESS>,
    ) -> Fate {
        let untouched = |fate| {
            assert_eq!(frame.bytes, before, "{fate:?} must leave the frame as it was");
            assert_eq!(frame.departure, None, "{fate:?} sends nothing");
            fate
        };
        if outcome == Ok(Verdict::Kept) {
            let round = |copy: SentCopy| {
                assert_eq!((copy.ifindex, copy.side), (frame.ifindex, Side::Host), "round by the same hook");
                copy.bytes
            };
            return Fate::Kept(frame.copies.into_iter().map(round).collect());
        }
        let copies: Vec<VportId> = frame.copies.iter().map(|copy| reached(copy, before)).collect();
        if !matches!(outcome, Ok(Verdict::Flooded | Verdict::ToHost)) {
            assert!(copies.is_empty(), "copies without a flood: {outcome:?}");
        }
        match outcome {
            Err(_) if !COMPLETE => untouched(Fate::PassUp),
            Err(reason) => {
                if let Some(departure) = frame.departure {
                    // An ICMP error, back to where the frame came from.
                    let back = Departure::Redirected { ifindex: frame.ifindex, side: Side::Egress };
                    assert_eq!(departure, back, "{reason:?}");
                    self.replies.borrow_mut().push(frame.bytes);
                }
                Fate::Dropped(reason)
            }
            Ok(Verdict::NotOurs) => untouched(Fate::NotOurs),
            Ok(Verdict::PassUp) => {
                assert!(!COMPLETE, "TC has nobody to pass a frame up to");
                untouched(Fate::PassUp)
            }
            Ok(Verdict::ToHost) if copies.is_empty() => untouched(Fate::ToHost),
            Ok(Verdict::ToHost) => untouched(Fate::FloodedAndToHost(copies)),
            Ok(Verdict::Flooded) => untouched(Fate::Flooded(copies)),
            Ok(Verdict::Sent) => self.departed(frame),
            Ok(Verdict::Kept) => unreachable!("seen above"),
        }
    }

    fn departed<const COMPLETE: bool, const AT_INGRESS: bool>(&self, frame: MockFrame<COMPLETE, AT_INGRESS>) -> Fate {
        let departure = frame.departure.expect("what is sent says where");
        match departure {
            Departure::Redirected { ifindex, side } => {
                let vport = vport_of(ifindex);
                // On its way it passes our program on the uplink's other hook.
                assert_eq!(frame.marked, COMPLETE && vport == BRIDGE_UPLINK, "the mark on a frame for {vport}");
                match side {
                    Side::Host => return Fate::Delivered(vport, frame.bytes),
                    // An answer goes back by the device that the question came by; so does what a guest sends to
                    // its own forward, by the shorter way where there is one.
                    _ if ifindex == frame.ifindex => {
                        let may_be_short = COMPLETE && AT_INGRESS && is_veth(vport);
                        assert!(side == Side::Egress || (side == Side::Peer && may_be_short), "back to {vport}");
                    }
                    _ => assert_eq!(side == Side::Peer, COMPLETE && AT_INGRESS && is_veth(vport), "the way to {vport}"),
                }
                Fate::Sent(vport, frame.bytes)
            }
            Departure::Resolved { ifindex, next_hop } => {
                let IpAddr::V4(next_hop) = next_hop.into() else { panic!("{next_hop:?} is no IPv4 address") };
                Fate::Resolved(vport_of(ifindex), next_hop, frame.bytes)
            }
        }
    }
}

/// Whom a copy reaches; checks the copy.
fn reached(copy: &SentCopy, before: &[u8]) -> VportId {
    let vport = vport_of(copy.ifindex);
    assert_eq!(copy.bytes, before, "the copy for {vport}");
    assert_eq!(copy.marked, vport == BRIDGE_UPLINK, "the mark on the copy for {vport}");
    match (vport, copy.side) {
        (BRIDGE_UPLINK, Side::Host) => BRIDGE_HOST,
        (vport, side) => {
            let expected = if is_gateway(vport) { Side::Host } else { Side::Egress };
            assert_eq!(side, expected, "the side of the copy for {vport}");
            vport
        }
    }
}
