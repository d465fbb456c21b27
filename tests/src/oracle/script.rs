//! The random sequence: who sends what to whom, without any external port.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::{
    frame::{ICMP, TCP, UDP},
    icmp_error::{ErrorKind, PASSING, Quote, STOPPED},
    topology::{INTERNET, OUTSIDE},
};

pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH_ACK: u8 = 0x18;
pub const ACK: u8 = 0x10;
pub const FIN_ACK: u8 = 0x11;

/// Guests of each side.
pub const GUESTS: usize = 3;
/// Their ports and query identifiers: few, so that they meet; inside the external range and below it.
const PORTS: [u16; 4] = [1000, 4000, 50_000, 50_001];
/// Machines outside, and their ports.
const REMOTES: [Ipv4Addr; 3] = [OUTSIDE, INTERNET, Ipv4Addr::new(203, 0, 113, 77)];
const REMOTE_PORTS: [u16; 3] = [7, 53, 40_000];

/// Forwards on both sides: protocol, the port outside, the guest (from 0) and its port.
pub const FORWARDS: [(u8, u16, usize, u16); 3] = [(TCP, 8080, 0, 80), (UDP, 5353, 1, 53), (TCP, 8443, 2, 8443)];

/// The guest's end behind a forward.
pub fn behind(protocol: u8, port: u16) -> Option<Inside> {
    let forward = FORWARDS.iter().find(|forward| (forward.0, forward.1) == (protocol, port))?;
    Some(Inside { guest: forward.2, protocol, port: forward.3 })
}

/// Whether a forward leads to this end.
pub fn is_forwarded(inside: Inside) -> bool {
    FORWARDS.iter().any(|forward| behind(forward.0, forward.1) == Some(inside))
}

/// A guest's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inside {
    /// From 0.
    pub guest: usize,
    pub protocol: u8,
    /// Of ICMP: the query identifier.
    pub port: u16,
}

/// What is sent in a connection, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// TCP flags; nothing to the others.
    pub flags: u8,
    pub ttl: u8,
    pub cut: Cut,
}

/// How a packet travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Whole,
    InOrder,
    /// The last fragment first.
    Reversed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A guest sends.
    Out { inside: Inside, remote: SocketAddrV4, content: Content },
    /// A machine outside sends to the external port of an inside.
    Back { inside: Inside, remote: SocketAddrV4, content: Content },
    /// A machine outside sends to a port of the host: a forward's, or nobody's.
    Knock { remote: SocketAddrV4, protocol: u8, port: u16, content: Content },
    /// A router outside about what the guest last sent.
    ErrorIn { inside: Inside, remote: SocketAddrV4, error: ErrorKind, quote: Quote },
    /// A guest about what it last got.
    ErrorOut { inside: Inside, remote: SocketAddrV4, error: ErrorKind, quote: Quote },
    /// A guest sends to the external port of an inside: of a sibling, or its own.
    Hairpin { inside: Inside, target: Inside, content: Content },
}

/// Numbers that are the same in every run of one seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % bound as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// A connection as the generator believes it to be.
#[derive(Clone, Copy, Debug)]
struct Talk {
    inside: Inside,
    remote: SocketAddrV4,
    /// Opened from outside by a forward.
    forwarded: bool,
    tcp: Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tcp {
    Opening,
    Answered,
    Open,
    Closing,
}

/// The generator.
#[derive(Clone, Debug)]
pub struct Script {
    random: Random,
    talks: Vec<Talk>,
}

impl Script {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), talks: Vec::new() }
    }

    pub fn step(&mut self) -> Step {
        match self.random.below(100) {
            0..20 => self.open(),
            20..60 => self.go_on(),
            60..70 => self.unsolicited(),
            70..80 => self.knock(),
            80..90 => self.error(),
            90..95 => self.hairpin(),
            _ => self.go_on(),
        }
    }

    fn inside(&mut self) -> Inside {
        let protocol = self.random.one_of(&[TCP, UDP, ICMP]);
        Inside { guest: self.random.below(GUESTS), protocol, port: self.random.one_of(&PORTS) }
    }

    fn remote(&mut self, protocol: u8) -> SocketAddrV4 {
        let port = if protocol == ICMP { 0 } else { self.random.one_of(&REMOTE_PORTS) };
        SocketAddrV4::new(self.random.one_of(&REMOTES), port)
    }

    fn content(&mut self, flags: u8) -> Content {
        let ttl = if self.random.percent(3) { 1 } else { 64 };
        let cut = match self.random.below(20) {
            0 => Cut::InOrder,
            1 => Cut::Reversed,
            _ => Cut::Whole,
        };
        Content { flags, ttl, cut }
    }

    fn open(&mut self) -> Step {
        let inside = self.inside();
        let remote = self.remote(inside.protocol);
        let known = self.talks.iter().position(|talk| (talk.inside, talk.remote) == (inside, remote));
        match known.and_then(|known| self.talks.get_mut(known)) {
            // The same ports once more.
            Some(talk) if talk.tcp == Tcp::Closing && inside.protocol == TCP => return self.go_on(),
            Some(_) => (),
            None => self.talks.push(Talk { inside, remote, forwarded: false, tcp: Tcp::Opening }),
        }
        Step::Out { inside, remote, content: self.content(SYN) }
    }

    /// The next packet of a connection, as its two ends would send it.
    fn go_on(&mut self) -> Step {
        if self.talks.is_empty() {
            return self.open();
        }
        let chosen = self.random.below(self.talks.len());
        let Talk { inside, remote, forwarded, tcp } = self.talks[chosen];
        let (out, flags, tcp) = if inside.protocol != TCP {
            (self.random.percent(50), 0, tcp)
        } else {
            match tcp {
                // The first SYN once more, or its answer.
                Tcp::Opening if self.random.percent(10) => (!forwarded, SYN, tcp),
                Tcp::Opening => (forwarded, SYN | ACK, Tcp::Answered),
                Tcp::Answered => (!forwarded, ACK, Tcp::Open),
                Tcp::Open if self.random.percent(3) => (self.random.percent(50), FIN_ACK, Tcp::Closing),
                Tcp::Open if self.random.percent(2) => (self.random.percent(50), RST | ACK, Tcp::Closing),
                Tcp::Open => (self.random.percent(50), PSH_ACK, tcp),
                Tcp::Closing => (self.random.percent(50), self.random.one_of(&[ACK, FIN_ACK]), tcp),
            }
        };
        self.talks[chosen].tcp = tcp;
        let content = self.content(flags);
        if out { Step::Out { inside, remote, content } } else { Step::Back { inside, remote, content } }
    }

    /// From somebody else to an external port in use.
    fn unsolicited(&mut self) -> Step {
        if self.talks.is_empty() {
            return self.open();
        }
        let inside = self.talks[self.random.below(self.talks.len())].inside;
        let flags = self.random.one_of(&[SYN, ACK, SYN | ACK, RST]);
        Step::Back { inside, remote: self.remote(inside.protocol), content: self.content(flags) }
    }

    fn knock(&mut self) -> Step {
        let (protocol, port, guest, inside_port) = self.random.one_of(&FORWARDS);
        let remote = self.remote(protocol);
        if self.random.percent(20) {
            let content = self.content(SYN);
            return Step::Knock { remote, protocol, port: port + 1, content };
        }
        let inside = Inside { guest, protocol, port: inside_port };
        if !self.talks.iter().any(|talk| (talk.inside, talk.remote) == (inside, remote)) {
            self.talks.push(Talk { inside, remote, forwarded: true, tcp: Tcp::Opening });
        }
        Step::Knock { remote, protocol, port, content: self.content(SYN) }
    }

    fn error(&mut self) -> Step {
        if self.talks.is_empty() {
            return self.open();
        }
        let Talk { inside, remote, .. } = self.talks[self.random.below(self.talks.len())];
        let error = if self.random.percent(10) { self.random.one_of(&STOPPED) } else { self.random.one_of(&PASSING) };
        let quote = self.random.one_of(&[Quote::Least, Quote::All]);
        if self.random.percent(60) {
            Step::ErrorIn { inside, remote, error, quote }
        } else {
            Step::ErrorOut { inside, remote, error, quote }
        }
    }

    fn hairpin(&mut self) -> Step {
        let inside = self.inside();
        let target =
            if self.talks.is_empty() { inside } else { self.talks[self.random.below(self.talks.len())].inside };
        let target = Inside { protocol: inside.protocol, ..target };
        Step::Hairpin { inside, target, content: self.content(SYN) }
    }
}
