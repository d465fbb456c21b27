//! The hook that a frame arrives at, behind a trait.
//!
//! The datapath is generic over [`Frame`]; the trait is inlined, never `dyn`. Offsets cross function
//! borders, pointers never do: any write may move the packet.

#[cfg(not(target_arch = "bpf"))]
pub mod mock;
#[cfg(not(target_arch = "bpf"))]
pub mod mock_socket;
#[cfg(target_arch = "bpf")]
pub mod sock_addr;
pub mod socket;
#[cfg(target_arch = "bpf")]
pub mod tc;
#[cfg(target_arch = "bpf")]
pub mod xdp;

use network_types::{
    arp::ArpHdr,
    eth::EthHdr,
    icmp::Icmpv4Hdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
    vlan::VlanHdr,
};
use vnet_common::{Be16, DropReason, Ip, Mac, Seconds, fragment::HELD_BYTES};

/// A value that can be copied out of and into packet bytes.
///
/// # Safety
/// Every bit pattern is a value of the type, and the type has no padding.
pub unsafe trait Pod: Copy + 'static {}

macro_rules! pods {
    ($($type:ty),*) => { $(
        // SAFETY: integers and byte arrays only, `repr(C)`, sizes equal to the sum of their fields.
        unsafe impl Pod for $type {}
    )* };
}

// No single byte: LLVM turns the bounds check of one into `>=`, which the verifier does not take for a
// check where the offset is not constant ("invalid access to packet").
pods!(EthHdr, VlanHdr, ArpHdr, Ipv4Hdr, Ipv6Hdr, UdpHdr, Icmpv4Hdr, [u8; 2], [u8; 4], [u8; 12]);

/// Which way a frame leaves the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Out of the device.
    Egress,
    /// Up the host's stack, as if received on the device.
    Host,
    /// Straight into the other end of a veth, in its own network namespace
    /// ([`vnet_common::vport::PEER_ELSEWHERE`], [`Frame::REACHES_PEERS`]).
    Peer,
}

/// A question to the kernel's routing table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery {
    pub src: Ip,
    pub dst: Ip,
    pub protocol: u8,
    pub tos: u8,
    pub src_port: Be16,
    pub dst_port: Be16,
    /// The gateway device of the guest's network, whose forwarding setting is on.
    pub ifindex: u32,
}

/// The kernel's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Leave by `ifindex` with these addresses.
    Via { ifindex: u32, src_mac: Mac, dst_mac: Mac },
    /// Leave by `ifindex` towards `next_hop`, whose MAC address the kernel does not know yet.
    Unresolved { ifindex: u32, next_hop: Ip },
    /// No way there.
    None,
}

/// A frame at a hook.
pub trait Frame {
    /// True where the whole datapath runs (TC). False where anything but known unicast and
    /// established flows must be passed up untouched (XDP).
    const COMPLETE: bool;

    /// True where the hook can hand a frame to a veth's other end: it spares the way through that device's
    /// transmit path and the softirq behind it.
    const REACHES_PEERS: bool;

    /// The device whose hook this is.
    fn ifindex(&self) -> u32;

    /// Bytes from the Ethernet header to the end; a tag kept in metadata is not among them.
    fn len(&self) -> u32;

    /// True for a frame of no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Payload bytes of each segment of a GSO frame, 0 for others.
    fn gso_size(&self) -> u32;

    /// The outer VLAN tag's control word where the hook keeps it beside the bytes.
    fn metadata_tag(&self) -> Option<Be16>;

    /// The mark that vnet leaves on a frame for its own program on another hook.
    fn is_marked(&self) -> bool;
    fn set_marked(&mut self, marked: bool);

    /// Makes the first `length` bytes (or all there are) readable.
    fn pull(&mut self, length: u32);

    /// Copies a value out of the frame; `None` beyond the readable end.
    fn read<T: Pod>(&self, offset: u32) -> Option<T>;

    /// Copies a value into the frame.
    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Result<(), DropReason>;

    /// Adds `diff` (ones' complement, see [`crate::wire::checksum`]) to the L4 checksum at `offset`.
    ///
    /// `covers` says what changed: what the pseudo-header covers, or the segment's own bytes. For a
    /// partial checksum (`CHECKSUM_PARTIAL`) only the former counts, the device computes the latter.
    fn update_l4_checksum(
        &mut self,
        offset: u32,
        diff: u32,
        covers: Covers,
        zero: ZeroChecksum,
    ) -> Result<(), DropReason>;

    /// Copies one byte out of the frame, wherever it lies. By a call: for slow paths, and not at XDP.
    fn byte(&mut self, offset: u32) -> Option<u8>;

    /// Calls `step` with 0, 1, … below `turns`, until it returns false.
    fn repeat(&mut self, turns: u32, step: impl FnMut(&mut Self, u32) -> bool);

    /// Cuts the frame (untagged IP) to its first `length` bytes, and puts `room` zeros between the Ethernet
    /// header and the packet. A GSO frame is one packet from then on; a partial checksum stays so, where it
    /// is. All of the frame can be read then. Not at XDP.
    fn quote(&mut self, length: u32, room: u32) -> Result<(), DropReason>;

    /// Copies the whole frame into `bytes`; returns its length, 0 where it does not fit. Not at XDP.
    fn copy_out(&mut self, bytes: &mut [u8; HELD_BYTES]) -> u32;

    /// Makes the frame a copy of one that [`Frame::copy_out`] gave out. Not at XDP.
    fn become_copy(&mut self, bytes: &[u8; HELD_BYTES], length: u32) -> bool;

    /// Asks the kernel for the way to an address.
    fn route(&mut self, query: &RouteQuery) -> Route;

    /// Has the frame sent to a device when the program ends.
    fn redirect(&mut self, ifindex: u32, side: Side);

    /// Has the frame sent out of `ifindex` when the program ends, towards `next_hop`, whose MAC address
    /// the kernel finds out.
    fn resolve(&mut self, ifindex: u32, next_hop: Ip);

    /// Sends a copy to a device. False where the device refused it.
    fn clone_to(&mut self, ifindex: u32, side: Side) -> bool;

    /// The coarse monotonic clock.
    fn now(&self) -> Seconds;

    /// A random number, not for secrets.
    fn random(&self) -> u32;
}

/// What an L4 checksum's difference comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    PseudoHeader,
    Segment,
}

/// What an L4 checksum of zero means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroChecksum {
    /// "None", and it stays so (UDP over IPv4, RFC 768).
    Absent,
    /// A sum like any other.
    Ordinary,
}
