//! Headers: one protocol a file. Pure: bytes in, values out.

pub mod arp;
pub mod checksum;
pub mod crc32c;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod l4;
pub mod tcp;
