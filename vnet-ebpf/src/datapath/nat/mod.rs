//! NAT: bindings, port allocation, rewriting, and the making of connections.

mod binding;
mod connection;
mod port_alloc;
mod rewrite;

pub use binding::{BindingRequest, release as release_binding};
pub use connection::{Inbound, Outbound, create_inbound, create_outbound};
pub use rewrite::{Translation, is_partial, rewrite, rewrite_ttl};
