//! What people use today, set up as an expert would.

use anyhow::{Context, Result};
use aya::Ebpf;
use nix::net::if_::if_nametoindex;
use vnet_common::bench::global;
use vnet_tests::{
    frame::Mac,
    namespace::Namespace,
    topology::{GATEWAY, SUBNET, UPLINK, World},
};
use zerocopy::IntoBytes as _;

use crate::programs;

/// A linux-bridge over `ports`: no forward delay, no detour by netfilter.
pub fn linux_bridge(host: &Namespace, ports: &[&str]) -> Result<()> {
    keep_netfilter_out(host)?;
    host.ip("link add br0 type bridge forward_delay 0\nlink set br0 up\n")?;
    for port in ports {
        host.ip(&format!("link set {port} master br0\n"))?;
    }
    Ok(())
}

/// With br_netfilter in the kernel, a bridge hands every frame to iptables unless told otherwise.
fn keep_netfilter_out(host: &Namespace) -> Result<()> {
    for name in ["iptables", "ip6tables", "arptables"] {
        let path = format!("net/bridge/bridge-nf-call-{name}");
        if host.enter(|| Ok(std::fs::exists(format!("/proc/sys/{path}"))?))? {
            host.sysctl(&path, "0")?;
        }
    }
    Ok(())
}

/// Tells the bridge where a machine lives, so that the entry never ages.
pub fn static_fdb_entry(host: &Namespace, mac: Mac, port: &str) -> Result<()> {
    host.run(&["bridge", "fdb", "replace", &mac.to_string(), "dev", port, "master", "static"]).map(drop)
}

/// Routing with iptables MASQUERADE on the uplink.
pub fn iptables(world: &World) -> Result<()> {
    route(world)?;
    let rule = ["iptables", "-t", "nat", "-A", "POSTROUTING", "-s", SUBNET, "-o", UPLINK, "-j", "MASQUERADE"];
    world.host.run(&rule)?;
    spare_checksums(&world.host)
}

/// The same with nft.
pub fn nft(world: &World) -> Result<()> {
    route(world)?;
    let rules = format!(
        "table ip nat {{ chain post {{ type nat hook postrouting priority srcnat; \
         ip saddr {SUBNET} oifname \"{UPLINK}\" masquerade; }}; }}"
    );
    world.host.run(&["nft", &rules])?;
    spare_checksums(&world.host)
}

/// The gateway is the guest's port itself: a bridge in between, as libvirt has it, would cost the peer
/// another tenth.
fn route(world: &World) -> Result<()> {
    world.host.ip(&format!("addr add {GATEWAY}/24 dev {}\n", world.guest(1).port))?;
    world.host.sysctl("net/ipv4/ip_forward", "1")
}

/// conntrack would compute each checksum, as no hardware vouches for the source's frames; a guest's own
/// frames are vouched for.
fn spare_checksums(host: &Namespace) -> Result<()> {
    host.sysctl("net/netfilter/nf_conntrack_checksum", "0")
}

/// How many connections conntrack knows in a namespace.
pub fn conntrack_count(host: &Namespace) -> Result<u64> {
    read_number(host, "/proc/sys/net/netfilter/nf_conntrack_count")
}

/// How many it would hold. The setting is the whole machine's and is left alone.
pub fn conntrack_limit(host: &Namespace) -> Result<u64> {
    read_number(host, "/proc/sys/net/netfilter/nf_conntrack_max")
}

fn read_number(host: &Namespace, path: &str) -> Result<u64> {
    host.enter(|| {
        let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
        text.trim().parse().with_context(|| format!("{path}: {text}"))
    })
}

/// A TC program that sends all that comes in on one device out of another: what the hook allows.
/// `program`: `redirect`, or `redirect_peer` where the other is a veth.
pub fn constant(program: &str, host: &Namespace, from: &str, to: &str) -> Result<Ebpf> {
    let to_ifindex = host.enter(|| Ok(if_nametoindex(to)?))?;
    let mut ebpf = programs::load(&[(global::TO_IFINDEX, to_ifindex.as_bytes())])?;
    programs::attach(&mut ebpf, program, host, from)?;
    Ok(ebpf)
}
