//! NAT: bindings, port allocation, rewriting, and the making of connections.

mod binding;
mod connection;
mod fragment;
mod icmp_error;
mod mss;
mod port_alloc;
mod quota;
mod rewrite;
mod source;
mod target;

pub use binding::BindingRequest;
pub use connection::{Opener, Opening, create_outbound, create_to_target, end_use};
pub use fragment::{Fragment, Origin, expire as expire_fragment, expire_held, gather as gather_fragment, note_to_host};
pub use icmp_error::{Quotation, find_reported, rewrite_quotation};
pub use mss::clamp as clamp_mss;
#[cfg(not(target_arch = "bpf"))]
pub use port_alloc::Range;
pub use quota::end_binding;
pub use rewrite::{is_partial, rewrite, rewrite_addresses, rewrite_ttl};
pub use target::{Target, find_target};
