//! `vnet stats`.

use anyhow::Result;

use super::output::{Output, facts, table};
use crate::api::{client::Client, types::Stats};

pub(super) async fn run(client: &Client, output: Output) -> Result<()> {
    let stats: Stats = client.get("/v1/stats").await?;
    output.print(&stats, text)
}

fn text(stats: &Stats) -> String {
    let totals = facts([
        ("Networks", stats.networks.to_string()),
        ("Ports", stats.ports.to_string()),
        ("Received", format!("{} frames, {} bytes", stats.rx.frames, stats.rx.bytes)),
        ("Sent", format!("{} frames, {} bytes", stats.tx.frames, stats.tx.bytes)),
        ("Attached by", stats.backend.clone()),
    ]);
    let drops = stats.drops.iter().map(|drop| vec![drop.reason.clone(), drop.count.to_string(), drop.meaning.clone()]);
    let drops = match stats.drops.is_empty() {
        true => "Nothing was dropped.".into(),
        false => table(&["DROPPED", "FRAMES", "MEANING"], &["FRAMES"], drops),
    };
    let events = stats.events.iter().map(|(name, count)| vec![name.clone(), count.to_string()]);
    let tables = stats.tables.iter().map(|fill| {
        let percent = (fill.used * 100).checked_div(fill.capacity).unwrap_or(0);
        vec![fill.name.clone(), fill.used.to_string(), fill.capacity.to_string(), format!("{percent}%")]
    });
    [
        totals,
        drops,
        table(&["EVENT", "COUNT"], &["COUNT"], events),
        table(&["TABLE", "USED", "CAPACITY", "FILL"], &["USED", "CAPACITY", "FILL"], tables),
    ]
    .join("\n\n")
}
