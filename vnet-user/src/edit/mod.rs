//! The user's changes to what is asked for: each is checked against everything else that is asked for
//! and against the host, and either made wholly or refused with the configuration untouched.

mod fdb;
mod forward;
mod nat;
mod network;
mod port;
mod whole;

pub use self::{
    fdb::{add_fdb_entry, delete_fdb_entry},
    forward::{add_forward, delete_forward},
    nat::set_network,
    network::{add_network, delete_network},
    port::{add_port, delete_port},
    whole::check_whole,
};

#[cfg(test)]
mod tests;
