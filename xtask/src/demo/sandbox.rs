//! The demo's own world: four network namespaces, and one directory below
//! /run for everything the daemon keeps. Nothing else on the machine changes.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::narrator::Narrator;
use crate::{interrupt, process};

/// Where vnet runs.
pub const HOST: &str = "vnet-demo-host";
/// The "internet".
pub const NET: &str = "vnet-demo-net";
pub const GUEST_A: &str = "vnet-demo-a";
pub const GUEST_B: &str = "vnet-demo-b";
const NAMESPACES: [&str; 4] = [HOST, NET, GUEST_A, GUEST_B];

/// Only root can write here, so no one can have put traps into it.
const DIR: &str = "/run/vnet-demo";
/// A name that one process at a time can hold, and that vanishes with it.
const LOCK: &str = "vnet-demo";

const QUICK: Duration = Duration::from_secs(10);

/// The guests' network, the host's outside address, and who is out there.
const LINKS: &[&str] = &[
    "ip -n vnet-demo-host link add eth0 type veth peer name eth0 netns vnet-demo-net",
    "ip -n vnet-demo-host addr add 203.0.113.2/24 dev eth0",
    "ip -n vnet-demo-host link set eth0 up",
    "ip -n vnet-demo-net addr add 203.0.113.1/24 dev eth0",
    "ip -n vnet-demo-net link set eth0 up",
    "ip -n vnet-demo-host route add default via 203.0.113.1",
    "ip -n vnet-demo-host link add vnet-a type veth peer name eth0 netns vnet-demo-a",
    "ip -n vnet-demo-host link set vnet-a up",
    "ip -n vnet-demo-a addr add 192.168.122.10/24 dev eth0",
    "ip -n vnet-demo-a link set eth0 up",
    "ip -n vnet-demo-a route add default via 192.168.122.1",
    "ip -n vnet-demo-host link add vnet-b type veth peer name eth0 netns vnet-demo-b",
    "ip -n vnet-demo-host link set vnet-b up",
    "ip -n vnet-demo-b addr add 192.168.122.11/24 dev eth0",
    "ip -n vnet-demo-b link set eth0 up",
    "ip -n vnet-demo-b route add default via 192.168.122.1",
];

/// Exists as long as the demo's world does; dropping it removes that world.
pub struct Sandbox {
    /// Held, never used: a second demo would take this one for a leftover.
    _lock: UnixListener,
}

impl Sandbox {
    /// Removes what an earlier demo may have left, and takes the place.
    pub fn new() -> Result<Self> {
        let lock = lock()?;
        clear().context("what an earlier demo left cannot be removed")?;
        fs::create_dir_all(DIR).with_context(|| format!("{DIR} cannot be made"))?;
        Ok(Self { _lock: lock })
    }

    /// Namespaces, cables and addresses.
    pub fn wire(&self, narrator: &Narrator) -> Result<()> {
        for namespace in NAMESPACES {
            narrator.sh(&format!("ip netns add {namespace}"))?;
            // Every machine has its loopback up; nothing to tell.
            quiet(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        for line in LINKS {
            narrator.sh(line)?;
        }
        Ok(())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        interrupt::ignore();
        if let Err(error) = clear() {
            eprintln!("warning: the demo could not remove all of itself: {error:#}");
        }
    }
}

/// A command that runs inside one of the namespaces. Not `ip netns exec`: that
/// gives the program another /sys, without the BPF file system.
pub fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
    command
}

fn lock() -> Result<UnixListener> {
    let name = SocketAddr::from_abstract_name(LOCK).context("the demo's lock has a bad name")?;
    UnixListener::bind_addr(&name).context("another demo seems to be running: wait for its end, or end it")
}

/// Ends what runs in the namespaces, and removes them and the directory. Does
/// as much as can be done, and tells the first failure.
fn clear() -> Result<()> {
    let present: Vec<&str> =
        NAMESPACES.into_iter().filter(|namespace| Path::new("/run/netns").join(namespace).exists()).collect();
    let mut result = Ok(());
    for namespace in &present {
        result = result.and(end_processes(namespace));
    }
    result = result.and(unmount_all());
    for namespace in &present {
        result = result.and(quiet(&["netns", "del", namespace]));
    }
    if result.is_ok() && Path::new(DIR).exists() {
        result = fs::remove_dir_all(DIR).with_context(|| format!("{DIR} cannot be removed"));
    }
    result
}

fn end_processes(namespace: &str) -> Result<()> {
    let signal_all = |signal| -> Result<bool> {
        let pids = pids(namespace)?;
        for pid in &pids {
            process::signal(*pid, signal);
        }
        Ok(pids.is_empty())
    };
    if signal_all(libc::SIGTERM)? {
        return Ok(());
    }
    let gone = || Ok(pids(namespace)?.is_empty());
    let what = format!("the processes in {namespace} end");
    process::wait_until(&what, Duration::from_secs(3), gone).or_else(|_| {
        signal_all(libc::SIGKILL)?;
        process::wait_until(&what, QUICK, gone)
    })
}

fn pids(namespace: &str) -> Result<Vec<u32>> {
    let text =
        process::capture(Command::new("ip").args(["netns", "pids", namespace]), QUICK)?.success("ip netns pids")?;
    Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

/// The daemon mounts a BPF file system for its pins; whoever dies last, it stays.
fn unmount_all() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("the mounts cannot be read")?;
    for point in mount_points_below(&mounts, DIR).iter().rev() {
        process::capture(Command::new("umount").arg(point), QUICK)?.success("umount")?;
    }
    Ok(())
}

/// In the order of their mounting.
fn mount_points_below<'a>(mountinfo: &'a str, dir: &str) -> Vec<&'a str> {
    const MOUNT_POINT: usize = 4;
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(MOUNT_POINT))
        .filter(|point| Path::new(point).starts_with(dir))
        .collect()
}

fn quiet(arguments: &[&str]) -> Result<()> {
    process::capture(Command::new("ip").args(arguments), QUICK)?.success(&format!("ip {}", arguments.join(" ")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_the_demo_are_found() {
        let mountinfo = "\
21 1 0:19 / /sys rw - sysfs sysfs rw
30 21 0:27 / /sys/fs/bpf rw - bpf bpf rw
31 1 0:28 / /run/vnet-demo/bpf rw - bpf bpf rw
32 1 0:29 / /run/vnet-demo-other rw - tmpfs tmpfs rw
33 31 0:30 / /run/vnet-demo/bpf rw - bpf bpf rw
";
        assert_eq!(mount_points_below(mountinfo, "/run/vnet-demo"), ["/run/vnet-demo/bpf", "/run/vnet-demo/bpf"]);
    }

    #[test]
    fn every_cable_ends_in_namespaces_of_the_demo() {
        for line in LINKS {
            for word in ["-n", "netns"] {
                let mut words = line.split(' ').skip_while(|w| *w != word).skip(1);
                if let Some(namespace) = words.next() {
                    assert!(NAMESPACES.contains(&namespace), "{line}");
                }
            }
            assert!(line.starts_with("ip -n "), "{line}");
        }
    }
}
