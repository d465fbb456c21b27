//! Makes the kernel hold what the user asked for: computes the picture that is wanted, compares it
//! with the one that is there, and takes the steps in between.
//!
//! The picture is one comparable value ([`Picture`]): wanted it is computed, present it is read from
//! the pinned tables once and then followed step by step. So a change costs what it changes, another
//! network's entries are never written, and what a failed change has done is known exactly and undone
//! by the same planner.

mod apply;
mod failures;
mod gateway;
mod picture;
mod plan;
mod reconciler;
mod run;
mod wanted;

#[cfg(test)]
mod tests;

pub use self::{
    picture::{Picture, UNTRANSLATED},
    reconciler::Reconciler,
};
