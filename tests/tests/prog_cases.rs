//! The loaded TC programs on single frames: verdict, bytes and counters of every case.

use anyhow::Result;
use vnet_tests::{
    cases::{Case, bridging, check, inbound, matrix, outbound, parsing, refusals, transport},
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

#[test]
fn what_cannot_be_routed_is_refused_with_the_right_icmp_error_or_silently() -> Result<()> {
    all_hold(refusals::cases())
}

#[test]
fn segments_are_clamped_and_sctp_is_translated() -> Result<()> {
    all_hold(transport::cases())
}

#[test]
fn every_protocol_passes_the_translation_whole_in_fragments_and_as_the_cause_of_errors() -> Result<()> {
    all_hold(matrix::cases())
}
