//! Working memory of one run: what the 512 bytes of a BPF stack cannot hold.
//!
//! Each CPU has one (on the host, each set of tables). Stages write a field before they read it;
//! nothing outlives a run.

use vnet_common::flow::{FlowEntry, FlowKey};

use super::{
    forward::NextHop,
    nat::{BindingRequest, Translation},
    parse::Packet,
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
    /// What the packet becomes.
    pub translation: Translation,
    /// A binding that is wanted.
    pub binding: BindingRequest,
    /// A connection being made: both keys, and the entry that goes in next.
    pub original: FlowKey,
    pub reply: FlowKey,
    pub entry: FlowEntry,
}

#[cfg(not(target_arch = "bpf"))]
impl Work {
    /// All zero, as the kernel makes it.
    pub fn empty() -> Self {
        use vnet_common::{Be16, Ip, Word, flow::Path, nat::BindingKey, vport::UNTAGGED};

        use super::{
            forward::{self, Link},
            parse::Ports,
        };

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
            is_fragment: false,
            ports: None,
        };
        let key = forward::flow_key(&packet, &Ports { src: port, dst: port, tcp_flags: 0 }, 0);
        Self {
            packet,
            query: RouteQuery { src: ip, dst: ip, protocol: 0, tos: 0, src_port: port, dst_port: port, ifindex: 0 },
            next_hop: NextHop {
                to_vport: 0,
                ifindex: 0,
                side: crate::context::Side::Egress,
                link: Link::Unresolved { next_hop: ip },
            },
            translation: Translation { src: ip, dst: ip, src_port: port, dst_port: port },
            binding: BindingRequest {
                internal: BindingKey { address: ip, port, network: 0, vlan: UNTAGGED, protocol: 0, pad: 0 },
                external: ip,
                first: 0,
                last: 0,
                now: 0,
                random: 0,
            },
            original: key,
            reply: key,
            entry: FlowEntry {
                src: ip,
                dst: ip,
                src_port: port,
                dst_port: port,
                network: 0,
                vlan: UNTAGGED,
                direction: 0,
                origin: 0,
                pad: [0; 2],
                guest_vport: 0,
                created: 0,
                last_seen: Word::new(0),
                seen: Word::new(0),
                path: Path::default(),
            },
        }
    }
}
