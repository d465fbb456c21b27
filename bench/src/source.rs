//! The source: an XDP program that the kernel runs on frames of its own making
//! (`BPF_PROG_TEST_RUN` with live frames, kernel ≥ 5.18), millions a second from one core.
//!
//! Each frame is written afresh and redirected into the sender's own end of a veth, so that it comes out
//! at the other end as if the sender had transmitted it.

use std::net::SocketAddrV4;

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use nix::net::if_::if_nametoindex;
use vnet_common::bench::{FRAME_LENGTH, MAGIC, SourceCount, global, map, program};
use vnet_tests::{
    frame::{Ipv4, Mac, be16},
    namespace::Namespace,
};
use zerocopy::{IntoBytes as _, transmute};

use crate::{cpu, programs};

/// Frames that the kernel makes at a time, as many as a driver's poll takes.
const BATCH: u32 = 64;
/// The UDP checksum of an untagged frame without IP options.
const UDP_CHECKSUM: usize = 40;
/// What the program's copy of the frame takes.
const PADDED_LENGTH: usize = 64;

/// One [`SourceCount`].
type CountWords = [u64; 4];

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    pub from: (Mac, SocketAddrV4),
    pub to: (Mac, SocketAddrV4),
    /// Which port tells the flows apart; the one above is the first.
    pub varying: Varying,
    pub flows: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varying {
    SourcePort,
    DestinationPort,
}

impl Traffic {
    /// The frame with the varying port zero.
    fn frame(&self) -> Vec<u8> {
        let ((from_mac, mut from), (to_mac, mut to)) = (self.from, self.to);
        match self.varying {
            Varying::SourcePort => from.set_port(0),
            Varying::DestinationPort => to.set_port(0),
        }
        let payload = [&[0, 0][..], &MAGIC.to_ne_bytes(), &[0; 12]].concat();
        Ipv4::udp(from, to, &payload).frame(to_mac, from_mac)
    }

    fn first_port(&self) -> u16 {
        match self.varying {
            Varying::SourcePort => self.from.1.port(),
            Varying::DestinationPort => self.to.1.port(),
        }
    }
}

/// How much was sent, and in what time.
#[derive(Clone, Copy, Debug)]
pub struct Emission {
    pub frames: u64,
    pub seconds: f64,
}

/// A source in a namespace, on one core.
pub struct Source {
    ebpf: Ebpf,
    inside: Namespace,
    core: usize,
    frame: Vec<u8>,
}

impl Source {
    /// Sends into `device`. Its peer must take redirected frames: see [`crate::wiring`].
    pub fn new(inside: &Namespace, device: &str, traffic: &Traffic, core: usize) -> Result<Self> {
        let frame = traffic.frame();
        let to_ifindex = inside.enter(|| Ok(if_nametoindex(device)?))?;
        ensure!(frame.len() == FRAME_LENGTH, "a frame of {} bytes", frame.len());
        let padded = [&frame[..], &[0; PADDED_LENGTH - FRAME_LENGTH]].concat();
        // All of the checksum but its last step: a port is added to the sum, then it is inverted.
        let sum = !be16(&frame, UDP_CHECKSUM).context("no checksum")?.to_be();
        let vary_destination = u32::from(traffic.varying == Varying::DestinationPort);
        let mut ebpf = programs::load(&[
            (global::TO_IFINDEX, to_ifindex.as_bytes()),
            (global::FRAME, &padded),
            (global::FRAME_SUM, u32::from(sum).as_bytes()),
            (global::VARY_DESTINATION, vary_destination.as_bytes()),
            (global::FIRST_PORT, u32::from(traffic.first_port()).as_bytes()),
            (global::FLOWS, u32::from(traffic.flows).as_bytes()),
        ])?;
        let source: &mut Xdp = ebpf.program_mut(program::SOURCE).context("no program")?.try_into()?;
        source.load().context("the kernel refuses the source")?;
        Ok(Self { ebpf, inside: inside.clone(), core, frame })
    }

    /// Sends `frames` frames, beginning with the first flow.
    ///
    /// The time is that from the first frame to the last, taken by the program itself: a call spends
    /// tens of milliseconds asleep before and after, while the kernel waits for grace periods.
    pub fn send(&mut self, frames: u32) -> Result<Emission> {
        let zero: CountWords = transmute!(SourceCount::default());
        programs::set_counters(&mut self.ebpf, map::SOURCE_COUNTS, zero)?;
        let source: &Xdp = self.ebpf.program(program::SOURCE).context("no program")?.try_into()?;
        self.inside.enter(|| {
            cpu::claim(self.core)?;
            let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let options = TestRunOptions { data_in: Some(&self.frame), repeat: frames, attrs, ..TestRunOptions::new() };
            source.test_run(options).context("a run with live frames (kernel 5.18 or newer)")?;
            Ok(())
        })?;
        self.emitted(frames)
    }

    fn emitted(&self, frames: u32) -> Result<Emission> {
        let counts: Vec<CountWords> = programs::counters(&self.ebpf, map::SOURCE_COUNTS)?;
        let counts = counts.into_iter().map(|words| -> SourceCount { transmute!(words) });
        let busy: Vec<SourceCount> = counts.filter(|count| count.frames != 0).collect();
        ensure!(busy.len() == 1, "the source ran on {} cores", busy.len());
        let count = busy[0];
        ensure!(count.frames == u64::from(frames), "the source made {} frames, not {frames}", count.frames);
        let seconds = count.last_ns.saturating_sub(count.first_ns) as f64 / 1e9;
        Ok(Emission { frames: count.frames, seconds })
    }
}
