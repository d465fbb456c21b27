//! vnet's daemon and command line.

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod datapath;
mod edit;
pub mod error;
pub mod host;
pub mod netlink;
mod reconcile;
mod refusal;
pub mod state;

pub use self::{
    error::{Error, Result},
    refusal::Refusal,
};
