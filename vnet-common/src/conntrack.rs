//! The connection state machine, as a pure function of the events seen.
//!
//! A connection's state is a set of bits that both directions' entries hold. Events only add bits
//! (an atomic OR, so that two CPUs never undo each other), except where a connection begins anew on
//! the same tuple or a stray RST proves stray. Idle times follow RFC 5382 REQ-5 and RFC 7857 section 2.

use crate::{Seconds, config::Timeouts, flow::Direction};

/// A packet was seen in the reply direction.
pub const REPLIED: u32 = 1 << 0;
/// SYN in the original direction.
pub const ORIGINAL_SYN: u32 = 1 << 1;
/// SYN in the reply direction, with ACK or (simultaneous open) without.
pub const REPLY_SYN: u32 = 1 << 2;
/// ACK in the original direction after both SYNs.
pub const ORIGINAL_ACK: u32 = 1 << 3;
pub const ORIGINAL_FIN: u32 = 1 << 4;
pub const REPLY_FIN: u32 = 1 << 5;
/// A RST in either direction, and no data since.
pub const RESET: u32 = 1 << 6;

const ESTABLISHED: u32 = ORIGINAL_SYN | REPLY_SYN | ORIGINAL_ACK;
const FINISHED: u32 = ORIGINAL_FIN | REPLY_FIN;

/// TCP flag bits as in byte 13 of the header.
pub mod tcp_flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// IP protocol numbers that connections know.
pub mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

/// What a packet does to the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing new.
    None,
    /// Add these bits.
    Add(u32),
    /// Begin again with these bits.
    Set(u32),
}

/// The update that a packet makes; `tcp_flags` is byte 13 of the TCP header, 0 for other protocols.
#[inline(always)]
pub fn update(seen: u32, direction: Direction, protocol: u8, tcp_flags: u8) -> Update {
    let new = match direction {
        Direction::Original => 0,
        Direction::Reply => REPLIED,
    };
    if protocol != protocol::TCP {
        return added(seen, new);
    }
    let syn = tcp_flags & tcp_flag::SYN != 0;
    let ack = tcp_flags & tcp_flag::ACK != 0;
    if tcp_flags & tcp_flag::RST != 0 {
        return added(seen, new | RESET);
    }
    if syn && !ack && direction as u8 == Direction::Original as u8 && is_over(seen) {
        // A new connection on the old tuple (RFC 5382 REQ-3's spirit, RFC 7857 section 2).
        return Update::Set(ORIGINAL_SYN);
    }
    let new =
        new | match direction {
            Direction::Original if syn => ORIGINAL_SYN,
            Direction::Original if ack && seen & REPLY_SYN != 0 => ORIGINAL_ACK,
            Direction::Reply if syn => REPLY_SYN,
            _ => 0,
        } | match direction {
            _ if tcp_flags & tcp_flag::FIN == 0 => 0,
            Direction::Original => ORIGINAL_FIN,
            Direction::Reply => REPLY_FIN,
        };
    if seen & RESET != 0 && !syn {
        // Data after a RST: the RST was stray or forged, the connection lives (RFC 7857 section 2.2).
        return Update::Set((seen & !RESET) | new);
    }
    added(seen, new)
}

#[inline(always)]
const fn added(seen: u32, new: u32) -> Update {
    if seen & new == new { Update::None } else { Update::Add(new) }
}

/// True when the connection has ended and its tuple may carry a new one.
#[inline(always)]
pub const fn is_over(seen: u32) -> bool {
    seen & RESET != 0 || seen & FINISHED == FINISHED
}

/// True when plain data changes nothing: the fast path needs only the time stamp.
#[inline(always)]
pub const fn is_settled(seen: u32) -> bool {
    seen & (ESTABLISHED | REPLIED | RESET) == ESTABLISHED | REPLIED
}

/// True where the connection may be ended to make room: nobody has answered, or it is over. Never an
/// established one (RFC 5382 REQ-5, RFC 6888 REQ-4).
#[inline(always)]
pub const fn can_be_spared(protocol: u8, seen: u32) -> bool {
    let is_tcp_open = protocol == protocol::TCP && seen & ESTABLISHED == ESTABLISHED && !is_over(seen);
    seen & REPLIED == 0 || (protocol == protocol::TCP && !is_tcp_open)
}

/// The events that a connection is taken up with in its middle: whatever it was before, it stands.
pub const PICKED_UP: u32 = ESTABLISHED | REPLIED;

/// Idle time after which the connection ends.
#[inline(always)]
pub const fn timeout(protocol: u8, seen: u32, timeouts: &Timeouts) -> Seconds {
    match protocol {
        // A half-closed connection is still established (RFC 5382 REQ-5, RFC 6146 3.5.2.2).
        protocol::TCP if seen & ESTABLISHED == ESTABLISHED && !is_over(seen) => timeouts.tcp_established,
        protocol::TCP => timeouts.tcp_transitory,
        protocol::SCTP if seen & REPLIED != 0 => timeouts.tcp_established,
        protocol::SCTP => timeouts.tcp_transitory,
        protocol::UDP => timeouts.udp,
        _ => timeouts.icmp,
    }
}

/// Every name that [`state_name`] gives.
pub const STATES: [&str; 8] =
    ["unreplied", "replied", "syn-sent", "syn-received", "established", "half-closed", "time-wait", "reset"];

/// The state's name, for people.
pub const fn state_name(protocol: u8, seen: u32) -> &'static str {
    if protocol != protocol::TCP {
        return if seen & REPLIED != 0 { "replied" } else { "unreplied" };
    }
    if seen & RESET != 0 {
        "reset"
    } else if seen & FINISHED == FINISHED {
        "time-wait"
    } else if seen & FINISHED != 0 {
        "half-closed"
    } else if seen & ESTABLISHED == ESTABLISHED {
        "established"
    } else if seen & REPLY_SYN != 0 {
        "syn-received"
    } else {
        "syn-sent"
    }
}

#[cfg(test)]
mod tests {
    use super::{
        tcp_flag::{ACK, FIN, RST, SYN},
        *,
    };

    const O: Direction = Direction::Original;
    const R: Direction = Direction::Reply;

    #[test]
    fn every_state_has_its_name_in_the_list_and_no_other_is_there() {
        let mut given = [false; STATES.len()];
        for seen in 0..RESET << 1 {
            for protocol in [protocol::TCP, protocol::UDP] {
                let name = state_name(protocol, seen);
                let place = STATES.iter().position(|state| *state == name);
                given[place.unwrap_or_else(|| panic!("{name} is not listed"))] = true;
            }
        }
        assert_eq!(given, [true; STATES.len()]);
    }

    fn run(packets: &[(Direction, u8)]) -> u32 {
        packets.iter().fold(0, |seen, (direction, flags)| match update(seen, *direction, protocol::TCP, *flags) {
            Update::None => seen,
            Update::Add(bits) => seen | bits,
            Update::Set(bits) => bits,
        })
    }

    #[test]
    fn a_tcp_connection_goes_through_its_states() {
        type Case = (&'static str, &'static [(Direction, u8)], &'static str, Seconds);
        let cases: [Case; 10] = [
            ("syn", &[(O, SYN)], "syn-sent", 240),
            ("retransmitted syn", &[(O, SYN), (O, SYN)], "syn-sent", 240),
            ("syn/ack", &[(O, SYN), (R, SYN | ACK)], "syn-received", 240),
            ("handshake", &[(O, SYN), (R, SYN | ACK), (O, ACK)], "established", 7440),
            ("simultaneous open", &[(O, SYN), (R, SYN), (O, SYN | ACK), (R, SYN | ACK), (O, ACK)], "established", 7440),
            ("half-close", &[(O, SYN), (R, SYN | ACK), (O, ACK), (O, FIN | ACK), (R, ACK)], "half-closed", 7440),
            (
                "close",
                &[(O, SYN), (R, SYN | ACK), (O, ACK), (O, FIN | ACK), (R, FIN | ACK), (O, ACK)],
                "time-wait",
                240,
            ),
            ("reset", &[(O, SYN), (R, SYN | ACK), (O, ACK), (R, RST)], "reset", 240),
            (
                "data after a stray reset",
                &[(O, SYN), (R, SYN | ACK), (O, ACK), (R, RST), (O, ACK)],
                "established",
                7440,
            ),
            (
                "tuple used again",
                &[(O, SYN), (R, SYN | ACK), (O, ACK), (O, FIN | ACK), (R, FIN | ACK), (O, SYN)],
                "syn-sent",
                240,
            ),
        ];
        for (name, packets, state, idle) in cases {
            let seen = run(packets);
            assert_eq!(state_name(protocol::TCP, seen), state, "{name}");
            assert_eq!(timeout(protocol::TCP, seen, &Timeouts::RFC), idle, "{name}");
        }
    }

    #[test]
    fn data_on_an_established_connection_changes_nothing() {
        let seen = run(&[(O, SYN), (R, SYN | ACK), (O, ACK)]);
        assert!(is_settled(seen));
        for direction in [O, R] {
            assert_eq!(update(seen, direction, protocol::TCP, ACK), Update::None);
        }
    }

    #[test]
    fn a_reply_marks_udp_as_replied() {
        assert_eq!(update(0, O, protocol::UDP, 0), Update::None);
        assert_eq!(update(0, R, protocol::UDP, 0), Update::Add(REPLIED));
        assert_eq!(state_name(protocol::UDP, REPLIED), "replied");
    }
}
