//! The sink: counts at the receiver, before its stack, and drops.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use aya::Ebpf;
use vnet_common::bench::{SinkCount, global, map, program};
use vnet_tests::namespace::Namespace;
use zerocopy::transmute;

use crate::programs;

/// Nothing has arrived for so long: whatever was under way is there, or lost.
const QUIET: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(5);

/// One [`SinkCount`].
type CountWords = [u64; 2];

/// A sink on one device.
pub struct Sink {
    ebpf: Ebpf,
}

impl Sink {
    /// Counts the frames that come from `source` (any, where there is none).
    pub fn new(inside: &Namespace, device: &str, source: Option<Ipv4Addr>) -> Result<Self> {
        let octets = source.map_or([0; 4], |address| address.octets());
        let mut ebpf = programs::load(&[(global::EXPECTED_SOURCE, &octets)])?;
        programs::attach(&mut ebpf, program::SINK, inside, device)?;
        Ok(Self { ebpf })
    }

    /// All that has arrived so far.
    pub fn count(&self) -> Result<SinkCount> {
        let mut total = SinkCount::default();
        for words in programs::counters::<CountWords>(&self.ebpf, map::SINK_COUNTS)? {
            let count: SinkCount = transmute!(words);
            total.expected += count.expected;
            total.unexpected += count.unexpected;
        }
        Ok(total)
    }

    /// The same, once nothing is under way any more.
    pub fn settled(&self) -> Result<SinkCount> {
        let deadline = Instant::now() + PATIENCE;
        let mut before = self.count()?;
        loop {
            thread::sleep(QUIET);
            let now = self.count()?;
            if now.expected == before.expected && now.unexpected == before.unexpected {
                return Ok(now);
            }
            if Instant::now() >= deadline {
                bail!("frames keep arriving though none are sent");
            }
            before = now;
        }
    }
}
