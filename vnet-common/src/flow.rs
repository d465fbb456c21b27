//! Flows and connections: what the fast path executes. A connection is one record, found by the tuple of
//! either direction.
//!
//! Addresses stand in records as one word: an IPv4 address as it lies in the header. (IPv6 addresses find
//! their place as numbers of interned addresses, so that both families share records and code.)

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Be16, DoubleWord, Mac, Seconds, Word,
    config::{NetworkId, OUTSIDE, Timeouts},
    conntrack,
    index::KeySide,
    vport::VportId,
};

/// Addresses and ports of a packet.
///
/// ICMP queries stand as `src_port` = identifier, `dst_port` = 0, their replies the other way round.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Endpoints {
    /// Raw IPv4.
    pub src: u32,
    pub dst: u32,
    pub src_port: Be16,
    pub dst_port: Be16,
}

impl Endpoints {
    /// Those of the answer.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port }
    }
}

/// One direction of a connection as it arrives, before translation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowKey {
    pub ends: Endpoints,
    /// Where the packet comes from: a guest's network, or [`OUTSIDE`].
    pub network: NetworkId,
    /// IP protocol number.
    pub protocol: u8,
    pub pad: u8,
}

impl FlowKey {
    #[inline(always)]
    pub const fn new(ends: Endpoints, network: NetworkId, protocol: u8) -> Self {
        Self { ends, network, protocol, pad: 0 }
    }

    /// As the words that are hashed.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 3] {
        let ends = &self.ends;
        let ports = (ends.src_port.raw() as u64) << 16 | ends.dst_port.raw() as u64;
        let scope = (self.network as u64) << 8 | self.protocol as u64;
        [(ends.src as u64) << 32 | ends.dst as u64, ports << 32 | scope, 0]
    }
}

/// The direction of a flow within its connection (netfilter's sense). Travels as the number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The direction of the packet that opened the connection.
    Original = 0,
    Reply = 1,
}

impl Direction {
    /// The direction whose tuple is this key of a connection.
    #[inline(always)]
    pub const fn of(side: KeySide) -> Self {
        match side {
            KeySide::First => Self::Original,
            KeySide::Second => Self::Reply,
        }
    }

    #[inline(always)]
    pub const fn is_original(self) -> bool {
        matches!(self, Self::Original)
    }
}

/// [`Connection::origin`]: opened by a guest.
pub const ORIGIN_GUEST: u8 = 1;
/// [`Connection::origin`]: opened through a forward, from outside or by another guest.
pub const ORIGIN_FORWARD: u8 = 2;
/// [`Connection::origin`]: opened towards a port that a guest holds (see [`crate::config::Filtering`]).
pub const ORIGIN_BINDING: u8 = 3;

/// Value of `CONNECTIONS`: one cache line. All zero: free.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, Default, FromBytes, IntoBytes, KnownLayout))]
pub struct Connection {
    /// Packets as they arrive in the original direction. They leave as the reply direction's answer, and the
    /// other way round: both keys say both translations.
    pub original: Endpoints,
    pub reply: Endpoints,
    /// Where the packets of each direction come from.
    pub original_network: NetworkId,
    pub reply_network: NetworkId,
    /// IP protocol number.
    pub protocol: u8,
    /// How it began: [`ORIGIN_GUEST`] and its like.
    pub origin: u8,
    /// The vport of the guest that it is accounted to.
    pub guest_vport: u16,
    /// The way out of each direction, see [`KeptPath`].
    pub original_path: DoubleWord,
    pub reply_path: DoubleWord,
    /// Last packet that keeps it alive, in [`Seconds`], written at most once a second; 0: no connection.
    pub last_seen: Word,
    /// Events seen so far (bits of [`conntrack`]).
    pub seen: Word,
    /// When it began; of a free record, when it ended.
    pub created: Word,
    /// The record in `BINDINGS` that it uses; 0: none.
    pub binding: u32,
}

impl Connection {
    #[inline(always)]
    pub const fn ends(&self, direction: Direction) -> &Endpoints {
        if direction.is_original() { &self.original } else { &self.reply }
    }

    /// A packet of this direction after translation.
    #[inline(always)]
    pub const fn translated(&self, direction: Direction) -> Endpoints {
        if direction.is_original() { self.reply.reversed() } else { self.original.reversed() }
    }

    #[inline(always)]
    pub const fn key(&self, direction: Direction) -> FlowKey {
        FlowKey::new(*self.ends(direction), self.source(direction), self.protocol)
    }

    /// The network that packets of this direction come from.
    #[inline(always)]
    pub const fn source(&self, direction: Direction) -> NetworkId {
        if direction.is_original() { self.original_network } else { self.reply_network }
    }

    /// The network that they go to.
    #[inline(always)]
    pub const fn destination(&self, direction: Direction) -> NetworkId {
        if direction.is_original() { self.reply_network } else { self.original_network }
    }

    /// The network whose settings and generation the direction's path is decided under: of packets that
    /// leave, the one they come from.
    #[inline(always)]
    pub const fn path_network(&self, direction: Direction) -> NetworkId {
        match self.destination(direction) {
            OUTSIDE => self.source(direction),
            network => network,
        }
    }

    /// The network of the guest that it is accounted to, whose idle times count.
    #[inline(always)]
    pub const fn home(&self) -> NetworkId {
        match self.original_network {
            OUTSIDE => self.reply_network,
            network => network,
        }
    }

    #[inline(always)]
    pub const fn path(&self, direction: Direction) -> &DoubleWord {
        if direction.is_original() { &self.original_path } else { &self.reply_path }
    }

    /// True where the record is a connection, and its `direction` is the one asked for.
    #[inline(always)]
    pub fn is(&self, direction: Direction, key: &FlowKey) -> bool {
        let ends = self.ends(direction);
        ends.src == key.ends.src
            && ends.dst == key.ends.dst
            && ends.src_port == key.ends.src_port
            && ends.dst_port == key.ends.dst_port
            && self.source(direction) == key.network
            && self.protocol == key.protocol
            && self.last_seen.load() != 0
    }

    /// True when nothing was seen for as long as the connection's state allows.
    #[inline(always)]
    pub fn is_expired(&self, last_seen: Seconds, timeouts: &Timeouts, now: Seconds) -> bool {
        since(last_seen, now) >= conntrack::timeout(self.protocol, self.seen.load(), timeouts)
    }
}

/// Seconds from `then` to `now`; a stamp ahead of `now` (another CPU's clock tick) counts as no time.
#[inline(always)]
pub const fn since(then: Seconds, now: Seconds) -> Seconds {
    let seconds = now.wrapping_sub(then);
    if seconds > u32::MAX / 2 { 0 } else { seconds }
}

/// A direction's way out, kept in its connection: the stamp under which it was decided, and its slot in
/// `PATHS`. One word, so that readers never see half of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptPath {
    pub stamp: u32,
    pub slot: u32,
}

/// Paths are decided again after this many seconds (a power of two), so that they heal without the daemon.
pub const PATH_LIFETIME: Seconds = 32;

impl KeptPath {
    /// Nothing decided.
    pub const NONE: Self = Self { stamp: 0, slot: 0 };

    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { stamp: (word >> 32) as u32, slot: word as u32 }
    }

    #[inline(always)]
    pub const fn word(self) -> u64 {
        (self.stamp as u64) << 32 | self.slot as u64
    }

    /// What stamps a path decided now: a function of the network's generation and of the time, in steps of
    /// [`PATH_LIFETIME`] that not all connections take at once. Never 0.
    #[inline(always)]
    pub const fn stamp(generation: u32, index: u32, now: Seconds) -> u32 {
        let epoch = now.wrapping_add(index % PATH_LIFETIME) / PATH_LIFETIME;
        match generation ^ epoch.wrapping_mul(0x9e37_79b1) {
            0 => 1,
            stamp => stamp,
        }
    }
}

/// Value of `PATHS`: a way out that connections refer to. It does not change while any may: once unused for
/// twice [`PATH_LIFETIME`] its slot may be taken for another.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, Default, FromBytes, IntoBytes, KnownLayout))]
pub struct PathEntry {
    /// When a connection last decided for it, in [`Seconds`]; 0: free; [`PathEntry::BEING_WRITTEN`].
    pub used: Word,
    /// See [`Way`].
    pub way: [Word; 4],
    pub pad: u32,
}

impl PathEntry {
    pub const BEING_WRITTEN: u32 = u32::MAX;
}

/// Slots in `PATHS`: ways out in use at a time (a power of two). Slot 0 stands for none.
pub const MAX_PATHS: u32 = 16_384;

/// What a [`PathEntry`] says: the egress vport and both link addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub to_vport: VportId,
    pub dst: Mac,
    pub src: Mac,
}

impl Way {
    /// As the words that [`PathEntry::way`] holds.
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

    #[test]
    fn ages_survive_the_wrap_and_clock_ticks() {
        assert_eq!(since(10, 25), 15);
        assert_eq!(since(Seconds::MAX - 1, 3), 5);
        assert_eq!(since(26, 25), 0);
    }

    #[test]
    fn a_stamp_lasts_for_the_lifetime_at_most() {
        let stamp = |generation, now| KeptPath::stamp(generation, 5, now);
        let begun = (PATH_LIFETIME * 10) - 5;
        assert_eq!(stamp(7, begun), stamp(7, begun + PATH_LIFETIME - 1));
        assert_ne!(stamp(7, begun), stamp(7, begun + PATH_LIFETIME));
        assert_ne!(stamp(7, begun), stamp(8, begun));
        assert_ne!(KeptPath::stamp(0, 0, 0), 0);
        let kept = KeptPath { stamp: 0xdead_beef, slot: 77 };
        assert_eq!(KeptPath::from_word(kept.word()), kept);
    }
}
