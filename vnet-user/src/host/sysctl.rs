//! `/proc/sys/net` of the daemon's network namespace.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use super::PortSet;
use crate::error::{Error, Result};

const RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// A switch of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceSysctl {
    /// `net.ipv4.conf.DEVICE.forwarding`
    Ipv4Forwarding,
    /// `net.ipv4.conf.DEVICE.rp_filter`
    ReversePathFilter,
    /// `net.ipv4.conf.DEVICE.accept_redirects`
    Ipv4AcceptRedirects,
    /// `net.ipv4.conf.DEVICE.send_redirects`
    Ipv4SendRedirects,
    /// `net.ipv6.conf.DEVICE.accept_ra`
    Ipv6AcceptRa,
    /// `net.ipv6.conf.DEVICE.accept_redirects`
    Ipv6AcceptRedirects,
    /// `net.ipv6.conf.DEVICE.disable_ipv6`
    DisableIpv6,
}

impl DeviceSysctl {
    /// A path rather than a dotted name: device names may hold dots.
    fn path(self, device: &str) -> PathBuf {
        let (family, name) = match self {
            Self::Ipv4Forwarding => ("ipv4", "forwarding"),
            Self::ReversePathFilter => ("ipv4", "rp_filter"),
            Self::Ipv4AcceptRedirects => ("ipv4", "accept_redirects"),
            Self::Ipv4SendRedirects => ("ipv4", "send_redirects"),
            Self::Ipv6AcceptRa => ("ipv6", "accept_ra"),
            Self::Ipv6AcceptRedirects => ("ipv6", "accept_redirects"),
            Self::DisableIpv6 => ("ipv6", "disable_ipv6"),
        };
        Path::new("/proc/sys/net").join(family).join("conf").join(device).join(name)
    }

    /// The present value; `None` where the host does not have the switch (no IPv6, device gone).
    pub fn get(self, device: &str) -> Result<Option<bool>> {
        let path = self.path(device);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim() != "0")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", path, error)),
        }
    }

    /// Sets the value where the host has the switch.
    pub fn set(self, device: &str, on: bool) -> Result<()> {
        if self.get(device)?.is_none_or(|present| present == on) {
            return Ok(());
        }
        let path = self.path(device);
        write(&path, if on { "1" } else { "0" })
    }
}

/// The ports that the host picks from for its own connections.
pub fn ephemeral_ports() -> Result<(u16, u16)> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = std::fs::read_to_string(path).map_err(|error| Error::file("read", path, error))?;
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok((first, last)),
        _ => Err(Error::BadFile { path: path.into(), reason: "holds no range".into() }),
    }
}

/// The ports that the host leaves to others when it picks one itself.
pub fn reserved_ports() -> Result<PortSet> {
    // One large read: the kernel answers no second one, and a reader that begins with a small probe
    // (as `std::fs::read` does on files of size 0) would see the list cut off.
    let failed = |error| Error::file("read", RESERVED_PORTS, error);
    let mut buffer = vec![0; 1 << 20];
    let length = File::open(RESERVED_PORTS).and_then(|mut file| file.read(&mut buffer)).map_err(failed)?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    text.parse().map_err(|reason| Error::BadFile { path: RESERVED_PORTS.into(), reason })
}

pub fn set_reserved_ports(ports: &PortSet) -> Result<()> {
    write(Path::new(RESERVED_PORTS), &ports.to_string())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(|error| Error::file("open", path, error))?;
    // With its line end, so that an empty list is a write too.
    file.write_all(format!("{text}\n").as_bytes()).map_err(|error| Error::file("write", path, error))
}
