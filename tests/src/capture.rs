//! Watching a device, with a deadline on every wait.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{
    frame::{ETHERTYPE_TEST, Mac, Summary, ethernet, summary},
    namespace::Namespace,
    socket::{Packet, PacketSocket},
    wait::SOON,
};

/// Everything that passes a device from the moment it was opened.
#[derive(Debug)]
pub struct Capture {
    socket: PacketSocket,
    label: String,
}

impl Capture {
    pub fn open(inside: &Namespace, device: &str) -> Result<Self> {
        let socket = PacketSocket::open(inside, device)?;
        Ok(Self { socket, label: format!("{device} in {}", inside.label()) })
    }

    /// Puts a frame onto the wire, as the device's owner would.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame)
    }

    /// Waits for an incoming frame that the predicate likes.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Packet) -> bool) -> Result<Packet> {
        let mut others = self.until(what, |packet| !packet.outgoing && wanted(packet))?;
        others.pop().ok_or_else(|| anyhow::anyhow!("nothing captured"))
    }

    /// Waits for exactly these bytes.
    pub fn wait_for_bytes(&self, what: &str, frame: &[u8]) -> Result<Packet> {
        self.wait_for(what, |packet| packet.bytes == frame)
    }

    /// Everything up to the frame that the predicate likes, this one last.
    pub fn until(&self, what: &str, wanted: impl Fn(&Packet) -> bool) -> Result<Vec<Packet>> {
        let deadline = Instant::now() + SOON;
        let mut seen = Vec::new();
        while let Some(packet) = self.socket.receive(left(deadline))? {
            let found = wanted(&packet);
            seen.push(packet);
            if found {
                return Ok(seen);
            }
        }
        let others: Vec<_> = seen.iter().rev().take(20).filter_map(|packet| summary(&packet.bytes)).collect();
        bail!("{what} did not pass {} within {SOON:?}; the last of {} frames: {others:#?}", self.label, seen.len())
    }

    /// What has come in before a marker frame: the way to see that something did *not* come.
    pub fn before(&self, marker: &[u8]) -> Result<Vec<Packet>> {
        let mut seen = self.until("the marker", |packet| packet.bytes == marker)?;
        seen.pop();
        seen.retain(|packet| !packet.outgoing);
        Ok(seen)
    }

    /// What has come in until now.
    pub fn drain(&self) -> Result<Vec<Packet>> {
        let mut seen = Vec::new();
        while let Some(packet) = self.socket.receive(Duration::ZERO)? {
            seen.push(packet);
        }
        seen.retain(|packet| !packet.outgoing);
        Ok(seen)
    }

    /// Nothing at all comes within the time: only where no marker can come either.
    pub fn silent(&self, within: Duration, unwanted: impl Fn(&Summary) -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        while let Some(packet) = self.socket.receive(left(deadline))? {
            if let Some(found) = summary(&packet.bytes).filter(|found| !packet.outgoing && unwanted(found)) {
                bail!("{found:?} came in at {}", self.label);
            }
        }
        Ok(())
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// A broadcast frame that no other one equals.
pub fn marker(src: Mac, number: u16) -> Vec<u8> {
    let payload = [&number.to_be_bytes()[..], b"marker", &[0; 42]].concat();
    ethernet(Mac::BROADCAST, src, ETHERTYPE_TEST, &payload)
}
