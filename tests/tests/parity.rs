//! XDP may do what TC does with a frame, or leave it alone: nothing else.

use anyhow::{Result, ensure};
use vnet_tests::{
    cases::{all, check},
    switch::Switch,
};

#[test]
fn xdp_sends_the_same_frame_the_same_way_as_tc_or_passes_it_untouched() -> Result<()> {
    let mut switch = Switch::new(&[])?;
    let cases = all();
    let mut sent = 0;
    switch.host().enter(|| {
        check::table(&cases, |case| {
            sent += usize::from(check::on_xdp(&mut switch, case)?);
            Ok(())
        })
    })?;
    let wanted = cases.iter().filter(|case| case.accelerated).count();
    ensure!(sent >= wanted && wanted >= 6, "XDP sent {sent} of {} cases, {wanted} are for it", cases.len());
    Ok(())
}
