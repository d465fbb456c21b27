//! netfilter as the differential oracle of the NAT: one random sequence of packets goes through a nat
//! network of vnet and through nftables' masquerade, and what comes out of both is compared.
//!
//! Addresses are the same on both sides; external ports are not, and are named after their owner. Every
//! difference has to be explained by a requirement of an RFC ([`explain`]), or the comparison fails.

pub mod compare;
pub mod explain;
pub mod render;
pub mod script;
pub mod side;
