//! Flows: what the fast path executes, one entry a direction.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Be16, Ip, Mac, Seconds, Word,
    config::{NetworkId, Timeouts},
    conntrack,
    vport::{UNTAGGED, VportId},
};

/// Key of `FLOWS`: one direction of a connection as it arrives, before translation.
///
/// ICMP queries stand as `src_port` = identifier, `dst_port` = 0, their replies the other way round.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowKey {
    pub src: Ip,
    pub dst: Ip,
    pub src_port: Be16,
    pub dst_port: Be16,
    /// Where the packet comes from: a guest's network, or [`crate::config::OUTSIDE`].
    pub network: NetworkId,
    /// VLAN in that network.
    pub vlan: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Two fields: LLVM would zero three bytes by a call.
    pub pad: u8,
    pub pad2: u16,
}

/// The direction of a flow within its connection (netfilter's sense). Travels as the number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The direction of the packet that opened the connection.
    Original = 0,
    Reply = 1,
}

/// [`FlowEntry::origin`]: opened by a guest, translated through a binding.
pub const ORIGIN_SNAT: u8 = 1;
/// [`FlowEntry::origin`]: opened from outside, through a forward.
pub const ORIGIN_FORWARD: u8 = 2;

/// The way out of a flow, decided once and kept.
///
/// Words are written one by one while other CPUs read: a writer first takes `generation` to 0, a
/// reader looks at it before and after.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, Default, FromBytes, IntoBytes, KnownLayout))]
pub struct Path {
    /// [`crate::config::NetworkEntry::generation`] that this was decided under; 0: not decided.
    pub generation: Word,
    /// When it was decided, in [`Seconds`]: paths are looked up again now and then, daemon or not.
    pub decided: Word,
    /// Vport, and the destination and source MAC as they go into the frame: see [`Way`].
    pub way: [Word; 4],
}

/// Value of `FLOWS`.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout))]
pub struct FlowEntry {
    /// The packet's addresses and ports after translation.
    pub src: Ip,
    pub dst: Ip,
    pub src_port: Be16,
    pub dst_port: Be16,
    /// The network of the connection's guest, whichever the direction.
    pub network: NetworkId,
    /// VLAN after translation.
    pub vlan: u16,
    /// [`Direction`] as its number.
    pub direction: u8,
    /// How the connection began: [`ORIGIN_SNAT`] or [`ORIGIN_FORWARD`].
    pub origin: u8,
    pub pad: [u8; 2],
    /// The guest's vport when the connection began.
    pub guest_vport: VportId,
    /// When the connection began, in [`Seconds`].
    pub created: Seconds,
    /// Last packet in this direction, in [`Seconds`]; written at most once a second.
    pub last_seen: Word,
    /// Events seen so far (bits of [`conntrack`]); both directions of a connection hold the same.
    pub seen: Word,
    pub path: Path,
}

impl FlowEntry {
    /// The key of the opposite direction: the translated tuple, turned round.
    #[inline(always)]
    pub fn partner_key(&self, protocol: u8) -> FlowKey {
        let comes_from_guest = (self.direction == Direction::Original as u8) == (self.origin == ORIGIN_SNAT);
        FlowKey {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            network: if comes_from_guest { crate::config::OUTSIDE } else { self.network },
            vlan: if comes_from_guest { UNTAGGED } else { self.vlan },
            protocol,
            pad: 0,
            pad2: 0,
        }
    }

    /// The bits of [`FlowEntry::seen`].
    #[inline(always)]
    pub fn seen(&self) -> u32 {
        self.seen.load()
    }

    /// True when neither direction was seen for as long as the connection's state allows.
    ///
    /// `partner` is the opposite direction's entry; a half without its other half is always expired.
    #[inline(always)]
    pub fn is_expired(&self, partner: Option<&Self>, protocol: u8, timeouts: &Timeouts, now: Seconds) -> bool {
        let Some(partner) = partner else { return true };
        let idle = idle(now, &self.last_seen).min(idle(now, &partner.last_seen));
        let seen = self.seen() | partner.seen();
        idle >= conntrack::timeout(protocol, seen, timeouts)
    }
}

/// Seconds since `last_seen`; a stamp ahead of `now` (another CPU's clock tick) counts as no time.
#[inline(always)]
pub fn idle(now: Seconds, last_seen: &Word) -> Seconds {
    let idle = now.wrapping_sub(last_seen.load());
    if idle > u32::MAX / 2 { 0 } else { idle }
}

/// What a [`Path`] says: the egress vport and both link addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub to_vport: VportId,
    pub dst: Mac,
    pub src: Mac,
}

impl Way {
    /// As the words that [`Path::way`] holds.
    #[inline(always)]
    pub const fn pack(self) -> [u32; 4] {
        let (d, s) = (self.dst.0, self.src.0);
        [
            self.to_vport,
            u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
            u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
            u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
        ]
    }

    /// The opposite of [`Way::pack`].
    #[inline(always)]
    pub const fn unpack(words: [u32; 4]) -> Self {
        let [to_vport, a, b, c] = words;
        let (a, b, c) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes());
        Self {
            to_vport,
            dst: Mac([a[0], a[1], a[2], a[3], b[0], b[1]]),
            src: Mac([b[2], b[3], c[0], c[1], c[2], c[3]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_survives_packing() {
        let way = Way { to_vport: 0x0102_0304, dst: Mac([1, 2, 3, 4, 5, 6]), src: Mac([7, 8, 9, 10, 11, 12]) };
        assert_eq!(Way::unpack(way.pack()), way);
    }
}
