//! Settings of the host that vnet changes and undoes, and what of the host it must not disturb.

pub mod announce;
mod claims;
mod ports;
pub mod sockets;
pub mod sysctl;

pub use self::{
    claims::{HostPorts, reserved_ports},
    ports::PortSet,
};
