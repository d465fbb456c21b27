//! A guest with a virtio-net card: its kernel in a namespace, its card a tap of the host.
//!
//! The guest's kernel sees a tap `eth0` of its own; a thread carries every frame, header and all,
//! between the two, as a virtual machine monitor does between tap and virtqueue. What passes is
//! judged: a NEEDS_CSUM frame holds the pseudo-header's sum, any other a complete one, and a frame
//! longer than the MTU is a GSO frame.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{namespace::Namespace, tap::Tap};
use std::os::fd::AsFd;

/// Longest frame on an MTU of 1500, with a VLAN tag.
const LONGEST: usize = 1500 + 14 + 4;

/// What was carried one way.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    pub frames: u64,
    /// Frames with a partial checksum.
    pub partial: u64,
    pub gso: u64,
    /// What was wrong with frames, the first few.
    pub faults: Vec<String>,
}

/// The running card.
#[derive(Debug)]
pub struct GuestNic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(Carried, Carried)>>>,
}

impl GuestNic {
    /// `port` becomes a persistent tap in `host`, `eth0` the guest's device.
    pub fn plug(host: &Namespace, port: &str, guest: &Namespace, header_length: usize) -> Result<Self> {
        let outer = Tap::open(host, port, header_length)?;
        let inner = Tap::open(guest, "eth0", header_length)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || carry(&outer, &inner, &stopped));
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Unplugs it: what went to the guest, and what came from it.
    pub fn unplug(mut self) -> Result<(Carried, Carried)> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().ok_or_else(|| anyhow!("already unplugged"))?;
        thread.join().map_err(|_| anyhow!("the carrying thread panicked"))?
    }
}

impl Drop for GuestNic {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn carry(outer: &Tap, inner: &Tap, stop: &AtomicBool) -> Result<(Carried, Carried)> {
    let (mut to_guest, mut from_guest) = (Carried::default(), Carried::default());
    while !stop.load(Relaxed) {
        let mut ready = [PollFd::new(outer.as_fd(), PollFlags::POLLIN), PollFd::new(inner.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(50_u8))?;
        carry_one(outer, inner, &mut to_guest)?;
        carry_one(inner, outer, &mut from_guest)?;
    }
    Ok((to_guest, from_guest))
}

fn carry_one(from: &Tap, to: &Tap, carried: &mut Carried) -> Result<()> {
    let Some(frame) = from.read(Duration::ZERO)? else { return Ok(()) };
    carried.frames += 1;
    carried.partial += u64::from(frame.header.needs_checksum());
    carried.gso += u64::from(frame.header.is_gso());
    if let Err(fault) = frame.header.judge(&frame.bytes, LONGEST)
        && carried.faults.len() < 5
    {
        carried.faults.push(format!("{fault:#}: {:?}, {} bytes", frame.header, frame.bytes.len()));
    }
    let mut header = frame.header;
    header.num_buffers = 0;
    to.write(&header, &frame.bytes)
}
