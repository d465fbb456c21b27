//! The loaded TC programs on single frames: verdict, bytes and counters of every case.

use anyhow::Result;
use vnet_tests::{
    cases::{Case, bridging, check, inbound, outbound, parsing},
    switch::Switch,
};

fn all_hold(cases: Vec<Case>) -> Result<()> {
    let mut switch = Switch::new(&[])?;
    switch.host().enter(|| check::table(&cases, |case| check::on_tc(&mut switch, case)))
}

#[test]
fn malformed_and_forged_frames_end_for_their_reason() -> Result<()> {
    all_hold(parsing::cases())
}

#[test]
fn frames_between_guests_go_where_they_belong() -> Result<()> {
    all_hold(bridging::cases())
}

#[test]
fn packets_to_the_outside_are_translated_and_their_answers_back() -> Result<()> {
    all_hold(outbound::cases())
}

#[test]
fn packets_from_the_outside_come_in_through_forwards_only() -> Result<()> {
    all_hold(inbound::cases())
}
