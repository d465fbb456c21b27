//! Names of maps and programs, once.

/// Map names; the same words are the file names under the pin directory.
pub mod map {
    pub const VPORT_BY_IFINDEX: &str = "VPORT_BY_IFINDEX";
    pub const VPORTS: &str = "VPORTS";
    pub const NETWORKS: &str = "NETWORKS";
    pub const FLOODS: &str = "FLOODS";
    pub const FDB: &str = "FDB";
    pub const LOCALS: &str = "LOCALS";
    pub const ROUTED_SUBNETS: &str = "ROUTED_SUBNETS";
    pub const FORWARDS: &str = "FORWARDS";
    pub const FLOWS: &str = "FLOWS";
    pub const BINDINGS: &str = "BINDINGS";
    pub const VPORT_STATS: &str = "VPORT_STATS";
    pub const EVENT_COUNTS: &str = "EVENT_COUNTS";

    /// All of them.
    pub const ALL: [&str; 12] = [
        VPORT_BY_IFINDEX,
        VPORTS,
        NETWORKS,
        FLOODS,
        FDB,
        LOCALS,
        ROUTED_SUBNETS,
        FORWARDS,
        FLOWS,
        BINDINGS,
        VPORT_STATS,
        EVENT_COUNTS,
    ];
}

/// Program names (at most 15 characters, `BPF_OBJ_NAME_LEN`).
pub mod program {
    /// TC ingress of every port: the datapath.
    pub const PORT_INGRESS: &str = "port_ingress";
    /// TC egress of `vn-NAME`: what the host sends into a network.
    pub const GATEWAY_EGRESS: &str = "gateway_egress";
    /// TC egress of a bridge network's uplink: what the host sends out of the NIC.
    pub const UPLINK_EGRESS: &str = "uplink_egress";
    /// XDP accelerator of a port.
    pub const PORT_XDP: &str = "port_xdp";
    /// Run by the daemon (test run of a TC program) on a list of [`crate::flow::FlowKey`]s.
    pub const EXPIRE_FLOWS: &str = "expire_flows";
    /// The same on [`crate::fdb::FdbKey`]s.
    pub const EXPIRE_FDB: &str = "expire_fdb";
    /// The same on internal [`crate::nat::BindingKey`]s.
    pub const EXPIRE_BINDINGS: &str = "expire_bindings";
}

/// What the expiry programs are handed as packet data: an [`expiry::Header`], then `count` keys.
pub mod expiry {
    use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

    /// Keys in one run, at most: a run's packet fits into a page.
    pub const MAX_KEYS: u32 = 64;

    /// Head of the packet; long enough to pass for an Ethernet header, which a test run wants to see.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
    pub struct Header {
        pub count: u32,
        /// 0: delete what has expired. 1: delete whatever is named.
        pub force: u32,
        pub pad: [u32; 2],
    }
}
