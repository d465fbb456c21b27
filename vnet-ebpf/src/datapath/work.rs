//! Working memory of one run: what the 512 bytes of a BPF stack cannot hold.
//!
//! Each CPU has one (on the host, each set of tables). Stages write a field before they read it;
//! nothing outlives a run.

use vnet_common::{
    flow::{Connection, Endpoints, FlowKey},
    fragment::{HeldFragment, HeldKey},
    index::Found,
};

use super::{
    icmp_reply::ErrorMessage,
    nat::{BindingRequest, Opening, Quotation, Target},
    parse::Packet,
    way::NextHop,
};
use crate::context::RouteQuery;

/// See the module.
#[repr(C)]
pub struct Work {
    /// The packet being routed.
    pub packet: Packet,
    /// A question to the kernel's routing table.
    pub query: RouteQuery,
    /// The way out.
    pub next_hop: NextHop,
    /// The packet's flow, and the connection that it was found to belong to.
    pub key: FlowKey,
    pub found: Found,
    /// What the packet becomes.
    pub translation: Endpoints,
    /// Whom its destination stands for.
    pub target: Target,
    /// A connection being made, and the binding that it wants.
    pub opening: Opening,
    pub connection: Connection,
    pub request: BindingRequest,
    /// An ICMP error about the packet.
    pub error: ErrorMessage,
    /// What the packet, an ICMP error, quotes.
    pub quotation: Quotation,
    /// The datagram that the packet is a fragment of, and a frame being kept.
    pub held_key: HeldKey,
    pub held: HeldFragment,
}

#[cfg(not(target_arch = "bpf"))]
impl Work {
    /// All zero, as the kernel makes it.
    pub fn empty() -> Self {
        use vnet_common::{Be16, Ip, config::OUTSIDE, fragment::HELD_BYTES, nat::Binding};

        use super::way::Link;

        let (ip, port) = (Ip::UNSPECIFIED, Be16::ZERO);
        let packet = Packet {
            src: ip,
            dst: ip,
            protocol: 0,
            ttl: 0,
            tos: 0,
            header_checksum: 0,
            l3: 0,
            l4: 0,
            l4_length: 0,
            id: 0,
            datagram_length: 0,
            is_fragment: false,
            is_later_fragment: false,
            is_icmp_error: false,
            ports: None,
        };
        Self {
            packet,
            query: RouteQuery { src: ip, dst: ip, protocol: 0, tos: 0, src_port: port, dst_port: port, ifindex: 0 },
            next_hop: NextHop {
                to_vport: 0,
                ifindex: 0,
                side: crate::context::Side::Egress,
                link: Link::Unresolved { next_hop: ip },
            },
            key: FlowKey::default(),
            found: Found::NOTHING,
            translation: Endpoints::default(),
            target: Target::NOBODY,
            opening: Opening {
                source: OUTSIDE,
                destination: OUTSIDE,
                guest: 0,
                source_binding: 0,
                target_binding: 0,
                origin: 0,
                generation: 0,
                seen: 0,
            },
            connection: Connection::default(),
            request: BindingRequest {
                binding: Binding::default(),
                range: super::nat::Range { first: 0, last: 0 },
                guest: 0,
                limit: 0,
                now: 0,
                random: 0,
                index: 0,
                external_port: port,
            },
            error: ErrorMessage::EMPTY,
            quotation: Quotation::NONE,
            held_key: HeldKey::default(),
            held: HeldFragment { length: 0, created: 0, from_vport: 0, bytes: [0; HELD_BYTES] },
        }
    }
}
