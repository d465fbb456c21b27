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
    pub const SETTINGS: &str = "SETTINGS";
    pub const CONNECTIONS: &str = "CONNECTIONS";
    pub const CONNECTION_BUCKETS: &str = "CONNECTION_BUCKETS";
    pub const CONNECTION_RING: &str = "CONNECTION_RING";
    pub const BINDINGS: &str = "BINDINGS";
    pub const BINDING_BUCKETS: &str = "BINDING_BUCKETS";
    pub const BINDING_RING: &str = "BINDING_RING";
    pub const POOLS: &str = "POOLS";
    pub const PATHS: &str = "PATHS";
    pub const PEERS: &str = "PEERS";
    pub const GUESTS: &str = "GUESTS";
    pub const FRAGMENTS: &str = "FRAGMENTS";
    pub const HELD_FRAGMENTS: &str = "HELD_FRAGMENTS";
    pub const EXTERNALS: &str = "EXTERNALS";
    pub const VPORT_STATS: &str = "VPORT_STATS";
    pub const EVENT_COUNTS: &str = "EVENT_COUNTS";
    pub const DETOURS: &str = "DETOURS";
    pub const EVENTS: &str = "EVENTS";

    /// All of them.
    pub const ALL: [&str; 26] = [
        VPORT_BY_IFINDEX,
        VPORTS,
        NETWORKS,
        FLOODS,
        FDB,
        LOCALS,
        ROUTED_SUBNETS,
        FORWARDS,
        SETTINGS,
        CONNECTIONS,
        CONNECTION_BUCKETS,
        CONNECTION_RING,
        BINDINGS,
        BINDING_BUCKETS,
        BINDING_RING,
        POOLS,
        PATHS,
        PEERS,
        GUESTS,
        FRAGMENTS,
        HELD_FRAGMENTS,
        EXTERNALS,
        VPORT_STATS,
        EVENT_COUNTS,
        DETOURS,
        EVENTS,
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
    /// Run by the daemon (test run of a TC program) on a list of records' numbers in `CONNECTIONS`.
    pub const EXPIRE_FLOWS: &str = "expire_flows";
    /// The same on [`crate::fdb::FdbKey`]s.
    pub const EXPIRE_FDB: &str = "expire_fdb";
    /// The same on numbers in `BINDINGS`.
    pub const EXPIRE_BINDINGS: &str = "expire_bindings";
    /// The same on [`crate::fragment::FragmentKey`]s.
    pub const EXPIRE_FRAGMENTS: &str = "expire_frags";
    /// The same on [`crate::fragment::HeldKey`]s.
    pub const EXPIRE_HELD: &str = "expire_held";
    /// Calls of the host's own sockets, at a cgroup: what they ask for is led to a forward's guest, and what
    /// they are told is what they asked for.
    pub const SOCKETS: [&str; 7] = [
        "host_connect4",
        "host_connect6",
        "host_sendmsg4",
        "host_recvmsg4",
        "host_recvmsg6",
        "host_peername4",
        "host_peername6",
    ];
}

/// Words that the daemon sets in the object before it loads it.
pub mod global {
    /// Cookie (`SO_NETNS_COOKIE`) of the network namespace whose sockets are the host's, `u64`; 0: none.
    pub const HOST_NETNS: &str = "HOST_NETNS";
}

/// What the expiry programs are handed as packet data: an [`expiry::Header`], then `count` keys.
pub mod expiry {
    use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

    /// Bytes of the keys of one run, at most: a run's packet fits into a page.
    pub const MAX_BYTES: usize = 2048;

    /// Keys in one run, at most.
    pub const fn most<K>() -> u32 {
        (MAX_BYTES / size_of::<K>()) as u32
    }

    /// What may be ended. Travels as the number.
    #[repr(u32)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Mode {
        /// What has been idle for its time.
        Expired = 0,
        /// Whatever is named.
        Force = 1,
        /// What can be spared where room is short: connections that nobody answered or that are over, ports
        /// that no connection uses.
        Spare = 2,
    }

    impl Mode {
        #[inline(always)]
        pub const fn from_u32(number: u32) -> Self {
            match number {
                1 => Self::Force,
                2 => Self::Spare,
                _ => Self::Expired,
            }
        }
    }

    /// Head of the packet; long enough to pass for an Ethernet header, which a test run wants to see.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
    pub struct Header {
        pub count: u32,
        /// [`Mode`] as its number.
        pub mode: u32,
        pub pad: [u32; 2],
    }
}
