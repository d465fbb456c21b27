//! vnet's datapath.
//!
//! One generic implementation over two seams: [`context::Frame`], the hook that a frame arrives at,
//! and [`tables::Tables`], the maps. The BPF object (`main.rs`) puts the kernel behind both; tests put
//! plain memory behind them. `datapath` and `wire` know neither.
//!
//! Allowed `unsafe`: `context`, `tables`, `maps.rs`, `verifier.rs`, and the entry points in `main.rs`.
#![cfg_attr(target_arch = "bpf", no_std, feature(asm_experimental_arch))]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod context;
pub mod datapath;
#[cfg(target_arch = "bpf")]
pub mod maps;
pub mod tables;
#[cfg(target_arch = "bpf")]
pub mod verifier;
pub mod wire;
