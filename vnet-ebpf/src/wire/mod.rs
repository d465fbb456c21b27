//! Headers: one protocol a file. Pure: bytes in, values out.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod ipv4;
pub mod l4;
