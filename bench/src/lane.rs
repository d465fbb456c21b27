//! A source, a sink, and whatever forwards between them.

use anyhow::{Result, ensure};

use crate::{method::Sample, sink::Sink, source::Source};

pub struct Lane {
    pub source: Source,
    pub sink: Sink,
}

impl Lane {
    /// Sends `frames` frames through; the rate is that of the frames that arrived.
    pub fn block(&mut self, frames: u32) -> Result<Sample> {
        let before = self.sink.count()?;
        let emission = self.source.send(frames)?;
        let after = self.sink.settled()?;
        let strange = after.unexpected - before.unexpected;
        ensure!(strange == 0, "{strange} frames arrived from another address than the expected one");
        let arrived = (after.expected - before.expected) as f64;
        ensure!(arrived > 0.0, "of {frames} frames not one arrived");
        let lost = (1.0 - arrived / emission.frames as f64).max(0.0);
        Ok(Sample { rate: arrived / emission.seconds, lost: Some(lost) })
    }

    /// Sends `frames` frames through without counting them, for what they leave in tables.
    pub fn prime(&mut self, frames: u32) -> Result<()> {
        self.block(frames).map(drop)
    }
}
