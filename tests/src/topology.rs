//! Networks of namespaces, declared: guests on veths, and machines outside behind uplinks.
//!
//! ```text
//!  guest 1 ─eth0══g1─┐                ┌─up0══eth0─ outside (203.0.113.1 on lo: "the internet")
//!  guest 2 ─eth0══g2─┤ host namespace │
//! ```

use std::{net::Ipv4Addr, ops::Deref, path::Path, sync::Once};

use anyhow::{Context, Result};
use nix::net::if_::InterfaceFlags;
use tempfile::TempDir;

use crate::{cgroup::Cgroup, frame::Mac, namespace::Namespace, wait};

/// An address of the machine outside that the host reaches by its default route only.
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The gateway of the guests of [`Topology::guests`].
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Their subnet.
pub const SUBNET: &str = "10.77.0.0/24";
/// The gateway of the guests of [`Topology::other_guests`].
pub const OTHER_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// Their subnet.
pub const OTHER_SUBNET: &str = "10.88.0.0/24";

/// The host's address on its first uplink.
pub const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The address of the machine at the other end of the first uplink.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const UPLINK: &str = "up0";

/// How the directories of tests begin; the process's number follows.
const DIRECTORY: &str = "vnet-test-";

#[derive(Clone, Debug)]
struct GuestSpec {
    port: String,
    address: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    mac: Mac,
}

/// What to build.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    guests: Vec<GuestSpec>,
    uplink: bool,
    quiet: bool,
    processes: bool,
}

impl Topology {
    pub fn new() -> Self {
        Self::default()
    }

    fn add_guest(mut self, address: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Self {
        let number = self.guests.len() + 1;
        let mac = Mac([0x02, 0, 0, 0, 0x77, number as u8]);
        self.guests.push(GuestSpec { port: format!("g{number}"), address, gateway, mac });
        self
    }

    /// Guests 10.77.0.11, .12, … with a default route to 10.77.0.1.
    pub fn guests(mut self, count: usize) -> Self {
        for _ in 0..count {
            let last = 11 + self.guests.len() as u8;
            self = self.add_guest(Ipv4Addr::new(10, 77, 0, last), Some(GATEWAY));
        }
        self
    }

    /// Guests of a second network, 10.88.0.11 and on.
    pub fn other_guests(mut self, count: usize) -> Self {
        for _ in 0..count {
            let last = 11 + self.guests.len() as u8;
            self = self.add_guest(Ipv4Addr::new(10, 88, 0, last), Some(OTHER_GATEWAY));
        }
        self
    }

    /// Guests in the uplink's own subnet, 198.51.100.11 and on: for bridge mode.
    pub fn bridged_guests(mut self, count: usize) -> Self {
        for _ in 0..count {
            let last = 11 + self.guests.len() as u8;
            self = self.add_guest(Ipv4Addr::new(198, 51, 100, last), None);
        }
        self
    }

    /// The host's uplink `up0`, 198.51.100.2, and a machine outside at its other end.
    pub fn uplink(mut self) -> Self {
        self.uplink = true;
        self
    }

    /// No IPv6 anywhere, so that no machine sends anything of its own accord: for counting frames.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// A cgroup for processes that are the host's own.
    pub fn processes(mut self) -> Self {
        self.processes = true;
        self
    }

    pub fn build(self) -> Result<World> {
        let host = self.namespace("host")?;
        let mut guests = Vec::new();
        for spec in &self.guests {
            guests.push(self.guest(&host, spec).with_context(|| format!("guest {}", spec.port))?);
        }
        let outside = if self.uplink { Some(self.outside(&host).context("the outside")?) } else { None };
        sweep();
        let prefix = format!("{DIRECTORY}{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let processes = self.processes.then(Cgroup::new).transpose()?;
        Ok(World { host, guests, outside, directory, processes })
    }

    fn namespace(&self, label: &str) -> Result<Namespace> {
        let made = Namespace::new(label)?;
        if self.quiet {
            made.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            made.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        Ok(made)
    }

    fn guest(&self, host: &Namespace, spec: &GuestSpec) -> Result<Guest> {
        let inside = self.namespace(&spec.port)?;
        let GuestSpec { port, address, gateway, mac } = spec;
        plug(host, port, &inside, *mac)?;
        let route = gateway.map(|gateway| format!("route add default via {gateway}")).unwrap_or_default();
        inside.ip(&format!("addr add {address}/24 dev eth0\n{route}\n"))?;
        Ok(Guest { inside, port: port.clone(), address: *address, mac: *mac })
    }

    fn outside(&self, host: &Namespace) -> Result<Outside> {
        let inside = self.namespace("outside")?;
        plug(host, UPLINK, &inside, Mac([0x02, 0, 0, 0, 0x99, 1]))?;
        host.ip(&format!("addr add {HOST}/24 dev {UPLINK}\nroute add default via {OUTSIDE}\n"))?;
        inside.ip(&format!("addr add {OUTSIDE}/24 dev eth0\naddr add {INTERNET}/32 dev lo\n"))?;
        Ok(Outside { inside })
    }
}

/// Removes the directories of tests that were killed: all else that they made has gone with them.
fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(DIRECTORY)?.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // Another test process may be faster.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    });
}

/// A veth cable, up at both ends: `port` in the host, `eth0` in the guest.
pub fn plug(host: &Namespace, port: &str, guest: &Namespace, mac: Mac) -> Result<()> {
    host.ip(&format!("link add {port} type veth peer name eth0 address {mac} netns {}\n", guest.path()))?;
    guest.ip("link set eth0 up")?;
    host.ip(&format!("link set {port} up"))?;
    wait::until_true(&format!("{port} has a carrier"), wait::SOON, || {
        host.enter(|| {
            let mut devices = nix::ifaddrs::getifaddrs()?;
            Ok(devices
                .any(|device| device.interface_name == port && device.flags.contains(InterfaceFlags::IFF_RUNNING)))
        })
    })
}

/// What was built; everything goes when it is dropped.
#[derive(Debug)]
pub struct World {
    pub host: Namespace,
    guests: Vec<Guest>,
    outside: Option<Outside>,
    pub directory: TempDir,
    processes: Option<Cgroup>,
}

impl World {
    /// A guest by its number, from 1 (its port is `gN`).
    pub fn guest(&self, number: usize) -> &Guest {
        &self.guests[number - 1]
    }

    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    /// The machine at the other end of the uplink.
    pub fn outside(&self) -> &Outside {
        self.outside.as_ref().expect("the topology was declared with .uplink()")
    }

    /// Runs `work` as a process of the host's own.
    pub fn as_process<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.processes.as_ref().expect("the topology was declared with .processes()").enter(work)
    }

    /// Where processes of the host's own are, if the topology was declared with some.
    pub fn cgroup(&self) -> Option<&Path> {
        self.processes.as_ref().map(Cgroup::path)
    }
}

/// A guest: a namespace whose `eth0` ends as `port` in the host.
#[derive(Debug)]
pub struct Guest {
    pub inside: Namespace,
    pub port: String,
    pub address: Ipv4Addr,
    pub mac: Mac,
}

impl Deref for Guest {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.inside
    }
}

/// The machine outside.
#[derive(Debug)]
pub struct Outside {
    pub inside: Namespace,
}

impl Deref for Outside {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.inside
    }
}
