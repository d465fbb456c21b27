//! Why vnet may do something else than netfilter: each reason with the requirement behind it.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use super::script::{Content, Inside, RST, SYN, Step, behind, is_forwarded};
use crate::frame::TCP;

/// What both sides made of one step.
#[derive(Debug)]
pub struct Outcome<'a> {
    pub step: &'a Step,
    pub netfilter: &'a [String],
    pub vnet: &'a [String],
    pub history: &'a History,
    /// To whom netfilter has given the port that is sent to, too, towards this remote.
    pub overloaded: Option<Inside>,
}

/// What has gone before.
#[derive(Debug, Default)]
pub struct History {
    /// Remotes to which an inside has sent, and which it therefore hears.
    pub contacted: HashSet<(Inside, SocketAddrV4)>,
    pub addresses: HashSet<(Inside, Ipv4Addr)>,
    /// TCP connections that a reset was seen of.
    pub reset: HashSet<(Inside, SocketAddrV4)>,
    /// Connections whose last segment netfilter held for invalid.
    pub invalid: HashSet<(Inside, SocketAddrV4)>,
}

impl History {
    /// Notes a step, after it was compared, and what netfilter made of it (see [`Outcome::overloaded`]).
    pub fn note(&mut self, step: &Step, netfilter: &[String], overloaded: Option<Inside>) {
        if let Step::Out { inside, remote, content } | Step::Back { inside, remote, content } = *step
            && inside.protocol == TCP
        {
            let inside = overloaded.unwrap_or(inside);
            // netfilter sees it before it counts hops.
            if content.flags & RST != 0 {
                self.reset.insert((inside, remote));
            }
            if content.ttl <= 1 {
                // Answered before it is held for invalid; but a SYN may end what stood.
                if content.flags & SYN != 0 {
                    self.invalid.insert((inside, remote));
                }
            } else if netfilter.is_empty() {
                self.invalid.insert((inside, remote));
            } else {
                self.invalid.remove(&(inside, remote));
            }
        }
        if let Step::Knock { remote, protocol: TCP, port, content: Content { ttl: ..=1, .. } } = *step {
            self.invalid.extend(behind(TCP, port).map(|inside| (inside, remote)));
        }
        match *step {
            // It goes no further, and opens nothing.
            Step::Out { content, .. } | Step::Back { content, .. } | Step::Knock { content, .. }
                if content.ttl <= 1 => {}
            Step::Out { inside, remote, .. } => self.contact(inside, remote),
            Step::Back { inside, remote, content } => {
                if is_forwarded(inside) && (inside.protocol != TCP || content.flags == SYN) {
                    self.contact(inside, remote);
                }
            }
            Step::Knock { remote, protocol, port, .. } => {
                if let Some(inside) = behind(protocol, port) {
                    self.contact(inside, remote);
                }
            }
            Step::ErrorIn { .. } | Step::ErrorOut { .. } | Step::Hairpin { .. } => (),
        }
    }

    fn contact(&mut self, inside: Inside, remote: SocketAddrV4) {
        self.contacted.insert((inside, remote));
        self.addresses.insert((inside, *remote.ip()));
    }
}

/// A reason for a difference.
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    pub requirement: &'static str,
    pub why: &'static str,
    pub covers: fn(&Outcome<'_>) -> bool,
}

/// A limit that vnet itself says how often it was reached.
pub const ERROR_RATE: &str = "RFC 1812 section 4.3.2.8";

pub const EXPLANATIONS: &[Explanation] = &[
    Explanation {
        requirement: "RFC 4787 REQ-8, RFC 5382 REQ-3",
        why: "netfilter filters by address and port; vnet lets in every port of an address that was sent to",
        covers: |outcome| match outcome.step {
            // What came in so, the answers, and errors about it.
            Step::Back { inside, remote, .. }
            | Step::Out { inside, remote, .. }
            | Step::ErrorIn { inside, remote, .. }
            | Step::ErrorOut { inside, remote, .. } => {
                outcome.netfilter.is_empty()
                    && outcome.vnet.len() == 1
                    && outcome.history.addresses.contains(&(*inside, *remote.ip()))
                    && !outcome.history.contacted.contains(&(*inside, *remote))
            }
            _ => false,
        },
    },
    Explanation {
        requirement: "RFC 4787 REQ-3, RFC 5382 REQ-7",
        why: "netfilter gives one external port to two guests if they talk to different remotes; vnet never does",
        covers: |outcome| {
            let concerns = matches!(outcome.step, Step::Back { .. } | Step::ErrorIn { .. } | Step::ErrorOut { .. });
            outcome.overloaded.is_some() && concerns
        },
    },
    Explanation {
        requirement: "RFC 7857 section 2.2",
        why: "a reset ends a connection in netfilter; in vnet it only shortens its time",
        covers: |outcome| {
            let (Step::Out { inside, remote, .. }
            | Step::Back { inside, remote, .. }
            | Step::ErrorIn { inside, remote, .. }
            | Step::ErrorOut { inside, remote, .. }) = outcome.step
            else {
                return false;
            };
            outcome.history.reset.contains(&(*inside, *remote))
                && outcome.netfilter.is_empty()
                && outcome.vnet.len() == 1
        },
    },
    Explanation {
        requirement: "RFC 5382 REQ-2",
        why: "netfilter holds segments for invalid that do not suit its states; vnet passes all of a connection",
        covers: |outcome| {
            let (ends, is_held) = match outcome.step {
                Step::Out { inside, remote, .. } | Step::Back { inside, remote, .. } => ((*inside, *remote), true),
                Step::ErrorIn { inside, remote, .. } | Step::ErrorOut { inside, remote, .. } => {
                    ((*inside, *remote), outcome.history.invalid.contains(&(*inside, *remote)))
                }
                Step::Knock { .. } | Step::Hairpin { .. } => return false,
            };
            let stands = outcome.history.contacted.contains(&ends);
            ends.0.protocol == TCP && stands && is_held && outcome.netfilter.is_empty() && outcome.vnet.len() == 1
        },
    },
    Explanation {
        requirement: "RFC 4787 REQ-9, RFC 5382 REQ-8, RFC 5508 REQ-7",
        why: "netfilter does not hairpin without rules made for it; vnet does",
        covers: |outcome| {
            matches!(outcome.step, Step::Hairpin { .. }) && outcome.netfilter.is_empty() && outcome.vnet.len() == 1
        },
    },
    Explanation {
        requirement: ERROR_RATE,
        why: "vnet makes so many ICMP errors a second and no more; netfilter is told not to count",
        covers: |outcome| match outcome.netfilter {
            [error] => outcome.vnet.is_empty() && error.contains(": error 11/0 "),
            _ => false,
        },
    },
    Explanation {
        requirement: "RFC 6633, RFC 1812 5.2.7.2",
        why: "source quenches and redirects are of no use beyond a router; netfilter passes them on",
        covers: |outcome| match outcome.step {
            Step::ErrorIn { error, .. } | Step::ErrorOut { error, .. } => {
                [4, 5].contains(&error.kind) && outcome.vnet.is_empty()
            }
            _ => false,
        },
    },
];

/// The reason for a difference, if there is one.
pub fn explain(outcome: &Outcome<'_>) -> Option<usize> {
    EXPLANATIONS.iter().position(|explanation| (explanation.covers)(outcome))
}
