//! The harness of the tests that need a kernel.
//!
//! A test declares a [`topology`] of network namespaces, starts a [`daemon`] in the host's one, and
//! looks at what real peers ([`peers`], [`transfer`], [`reflector`]) and raw frames ([`frame`],
//! [`capture`], [`tap`]) see of it. Nothing here uses code of vnet itself: frames and checksums are
//! built and judged independently.
//!
//! Namespaces have no names: they are held by file descriptors, mounts are made in mount namespaces
//! of their own, and every child dies with the test, so that nothing is left behind however a test
//! ends. Every wait is for a condition and has a deadline.

pub mod alternative;
pub mod attachments;
pub mod capture;
pub mod cases;
pub mod cgroup;
pub mod checksum;
pub mod daemon;
pub mod follower;
pub mod fragments;
pub mod frame;
pub mod guest_nic;
pub mod icmp_error;
pub mod json;
pub mod maps;
pub mod namespace;
pub mod oracle;
pub mod peers;
pub mod process;
pub mod programs;
pub mod reflector;
pub mod scenario;
pub mod sctp;
pub mod seccomp;
pub mod snapshot;
pub mod socket;
pub mod stream;
pub mod stun;
pub mod switch;
pub mod tap;
pub mod topology;
pub mod transfer;
pub mod vnet_header;
pub mod wait;
