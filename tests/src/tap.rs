//! A tap with a vnet header, as a virtual machine monitor holds it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    namespace::Namespace,
    socket::{check, readable},
    vnet_header::VnetHeader,
    wait::SOON,
};

/// An open queue of a tap device. The device itself is persistent: it stays when the queue is closed.
#[derive(Debug)]
pub struct Tap {
    file: File,
    header_length: usize,
    name: String,
}

/// What a tap's reader gets.
#[derive(Clone, Debug)]
pub struct TapFrame {
    pub header: VnetHeader,
    pub bytes: Vec<u8>,
}

impl Tap {
    /// Makes the device (or attaches to it when it is there), with all offloads that virtio-net
    /// negotiates by default, and brings it up.
    pub fn open(inside: &Namespace, name: &str, header_length: usize) -> Result<Self> {
        let file = inside.enter(|| open_here(name, header_length).with_context(|| format!("tap {name}")))?;
        inside.ip(&format!("link set {name} up"))?;
        Ok(Self { file, header_length, name: name.to_owned() })
    }

    /// What the guest sends: goes into the host.
    pub fn write(&self, header: &VnetHeader, frame: &[u8]) -> Result<()> {
        let bytes = [&header.bytes(self.header_length)[..], frame].concat();
        let written = (&self.file).write(&bytes).with_context(|| format!("writing to {}", self.name))?;
        ensure!(written == bytes.len(), "wrote {written} of {} bytes", bytes.len());
        Ok(())
    }

    /// The next frame for the guest, or none before the time is over.
    pub fn read(&self, within: Duration) -> Result<Option<TapFrame>> {
        if !readable(&self.file, within)? {
            return Ok(None);
        }
        let mut bytes = vec![0; 70_000];
        let length = (&self.file).read(&mut bytes).with_context(|| format!("reading from {}", self.name))?;
        bytes.truncate(length);
        ensure!(length >= self.header_length, "{length} bytes from {}", self.name);
        let frame = bytes.split_off(self.header_length);
        Ok(Some(TapFrame { header: VnetHeader::parse(&bytes)?, bytes: frame }))
    }

    /// Waits for a frame that the predicate likes.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&TapFrame) -> bool) -> Result<TapFrame> {
        let deadline = Instant::now() + SOON;
        while let Some(frame) = self.read(deadline.saturating_duration_since(Instant::now()))? {
            if wanted(&frame) {
                return Ok(frame);
            }
        }
        bail!("{what} did not come out of {}", self.name)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_here(name: &str, header_length: usize) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
    ensure!(name.len() < libc::IFNAMSIZ, "name too long");
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which lives through the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
    // SAFETY: TUNSETPERSIST takes a plain integer.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST as _, 1) })?;
    let length = i32::try_from(header_length)?;
    // SAFETY: TUNSETVNETHDRSZ reads an int, which lives through the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const length) })?;
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // SAFETY: TUNSETOFFLOAD takes a plain integer.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as _, offloads) })?;
    Ok(file)
}
