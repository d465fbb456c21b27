//! One side of the comparison: namespaces, the NAT, and a packet socket at every end.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context, Result};

use super::script::{FORWARDS, GUESTS, Inside};
use crate::{
    alternative::linux_bridge,
    daemon::Daemon,
    frame::{ETHERTYPE_IPV4, ICMP, Ipv4, Mac, TCP, ethernet, summary},
    namespace::Namespace,
    scenario::NETWORK,
    socket::PacketSocket,
    topology::{GATEWAY, HOST, OUTSIDE, SUBNET, Topology, UPLINK, World},
    wait,
};

/// The machine outside's MAC address.
const OUTSIDE_MAC: Mac = Mac([0x02, 0, 0, 0, 0x99, 1]);

/// The connection that markers travel on: what was sent before one has come out when it does.
pub const MARKER_REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 254), 9);
pub const MARKER_PORT: u16 = 55_555;

/// Ends of a side: the guests by number, then the outside.
pub const OUTSIDE_END: usize = GUESTS;

/// Endpoint outside, as (protocol, external port, remote): whose it is.
pub type Owners = HashMap<(u8, u16, SocketAddrV4), Inside>;

#[derive(Debug)]
pub struct Side {
    pub name: &'static str,
    /// Dropped first.
    vnet: Option<Daemon>,
    pub world: World,
    sockets: Vec<PacketSocket>,
    gateway: Mac,
    uplink: Mac,
    pub owners: Owners,
    /// The external port that an inside was last seen with, towards a remote and at all.
    pub externals: HashMap<(Inside, Option<SocketAddrV4>), u16>,
    pub marker_port: u16,
}

impl Side {
    pub fn vnet() -> Result<Self> {
        let world = Topology::new().guests(GUESTS).uplink().quiet().build()?;
        let vnet = Daemon::start(&world)?;
        vnet.line(&format!("network add {NETWORK} --mode nat --subnet {SUBNET} --uplink {UPLINK}"))?;
        for guest in world.guests() {
            vnet.line(&format!("port add {NETWORK} {}", guest.port))?;
        }
        for (protocol, port, guest, inside_port) in FORWARDS {
            let protocol = if protocol == TCP { "tcp" } else { "udp" };
            let address = world.guest(guest + 1).address;
            vnet.line(&format!("forward add {NETWORK} {protocol} {port} {address}:{inside_port}"))?;
        }
        Self::prepared("vnet", world, Some(vnet), &format!("vn-{NETWORK}"))
    }

    /// nftables' masquerade, as an expert sets it up: invalid packets are dropped, and time-outs are long.
    /// `pinned`: what leaves from this port of a guest has that external one.
    pub fn netfilter(pinned: Option<(u16, u16)>) -> Result<Self> {
        let world = Topology::new().guests(GUESTS).uplink().quiet().build()?;
        linux_bridge(&world)?;
        let host = &world.host;
        host.ip(&format!("addr add {GATEWAY}/24 dev br0\n"))?;
        host.sysctl("net/ipv4/ip_forward", "1")?;
        let mut rules = String::new();
        for (protocol, port, guest, inside_port) in FORWARDS {
            let protocol = if protocol == TCP { "tcp" } else { "udp" };
            let address = world.guest(guest + 1).address;
            rules +=
                &format!("iifname {UPLINK} ip daddr {HOST} {protocol} dport {port} dnat to {address}:{inside_port};");
        }
        let pinned = pinned.map_or_else(String::new, |(inside, external)| {
            format!("oifname {UPLINK} meta l4proto {{ tcp, udp, sctp }} th sport {inside} masquerade to :{external};")
        });
        host.run(&[
            "nft",
            &format!(
                "table ip nat {{
                    chain pre {{ type nat hook prerouting priority dstnat; {rules} }}
                    chain post {{ type nat hook postrouting priority srcnat; {pinned}
                        oifname {UPLINK} ip saddr {SUBNET} meta l4proto {{ tcp, udp }} masquerade to :49152-65535;
                        oifname {UPLINK} ip saddr {SUBNET} masquerade; }}
                }}
                table ip filter {{
                    chain forward {{ type filter hook forward priority filter;
                        ct state invalid drop;
                        iifname {UPLINK} ct state new ct status & dnat == 0 drop; }}
                }}"
            ),
        ])?;
        // Sequence numbers are no part of the comparison, and neither is loose pick-up.
        for (name, value) in
            [("tcp_be_liberal", "1"), ("tcp_loose", "0"), ("udp_timeout", "300"), ("icmp_timeout", "60")]
        {
            host.sysctl(&format!("net/netfilter/nf_conntrack_{name}"), value)?;
        }
        host.sysctl("net/ipv4/icmp_ratemask", "0")?;
        Self::prepared("netfilter", world, None, "br0")
    }

    fn prepared(name: &'static str, world: World, vnet: Option<Daemon>, gateway_device: &str) -> Result<Self> {
        let host = &world.host;
        // The ends are played by packet sockets: their kernels answer nothing but ARP, and neither does the host's.
        let mute =
            "table netdev mute { chain in { type filter hook ingress device eth0 priority 0; ether type ip drop; }; }";
        host.run(&["nft", "table ip mute { chain in { type filter hook input priority 10; policy drop; }; }"])?;
        let mut sockets = Vec::new();
        let ends = world.guests().iter().map(|guest| &guest.inside).chain([&world.outside().inside]);
        for end in ends {
            end.run(&["nft", mute])?;
            sockets.push(PacketSocket::open(end, "eth0")?);
        }
        for guest in world.guests() {
            let (address, mac) = (guest.address, guest.mac);
            host.ip(&format!("neigh replace {address} lladdr {mac} dev {gateway_device} nud permanent\n"))?;
        }
        host.ip(&format!("neigh replace {OUTSIDE} lladdr {OUTSIDE_MAC} dev {UPLINK} nud permanent\n"))?;
        let (gateway, uplink) = (mac_of(host, gateway_device)?, mac_of(host, UPLINK)?);
        let (owners, externals) = (HashMap::new(), HashMap::new());
        let mut side = Self { name, vnet, world, sockets, gateway, uplink, owners, externals, marker_port: 0 };
        side.begin()?;
        Ok(side)
    }

    /// How often vnet counted an event.
    pub fn event(&self, name: &str) -> Result<u64> {
        let stats = self.vnet.as_ref().context("no vnet here")?.json("stats")?;
        stats["events"][name].as_u64().with_context(|| format!("no {name} in {stats}"))
    }

    /// Every guest speaks once, so that the switch knows it, and the markers' connection opens.
    fn begin(&mut self) -> Result<()> {
        for guest in (0..GUESTS).rev() {
            let local = SocketAddrV4::new(self.address(guest), MARKER_PORT + guest as u16);
            self.send(guest, &Ipv4::udp(local, MARKER_REMOTE, b"begin"))?;
            let seen = self.wait_for(OUTSIDE_END, b"begin")?;
            self.marker_port = summary(&seen).and_then(|seen| seen.ipv4).context("no packet")?.src_port;
        }
        Ok(())
    }

    pub fn address(&self, guest: usize) -> Ipv4Addr {
        self.world.guest(guest + 1).address
    }

    /// A packet leaves an end towards the host.
    pub fn send(&self, end: usize, packet: &Ipv4) -> Result<()> {
        self.send_bytes(end, &packet.packet())
    }

    /// The same for the bytes of an IPv4 packet.
    pub fn send_bytes(&self, end: usize, packet: &[u8]) -> Result<()> {
        let frame = match self.world.guests().get(end) {
            Some(guest) => ethernet(self.gateway, guest.mac, ETHERTYPE_IPV4, packet),
            None => ethernet(self.uplink, OUTSIDE_MAC, ETHERTYPE_IPV4, packet),
        };
        self.sockets[end].send(&frame)
    }

    /// Sends a marker after what was sent from an end, and gives all that has come out before it: the end
    /// and the frame.
    pub fn settle(&self, sender: usize, number: usize) -> Result<Vec<(usize, Vec<u8>)>> {
        let text = format!("marker {number}.");
        let inside = SocketAddrV4::new(self.address(0), MARKER_PORT);
        let mut came = Vec::new();
        let at = if sender == OUTSIDE_END {
            let external = SocketAddrV4::new(HOST, self.marker_port);
            self.send(sender, &Ipv4::udp(MARKER_REMOTE, external, text.as_bytes()))?;
            0
        } else {
            // From the guest whose connection it is, whoever sent before: one CPU keeps the order.
            self.send(0, &Ipv4::udp(inside, MARKER_REMOTE, text.as_bytes()))?;
            OUTSIDE_END
        };
        loop {
            let packet = self.sockets[at].receive(wait::SOON)?;
            let packet = packet.with_context(|| format!("{}: {text} did not come out", self.name))?;
            if packet.bytes.ends_with(text.as_bytes()) && !packet.outgoing {
                break;
            }
            came.push((at, packet));
        }
        for (end, socket) in self.sockets.iter().enumerate() {
            while let Some(packet) = socket.receive(Duration::ZERO)? {
                came.push((end, packet));
            }
        }
        // The hosts' own multicast (IGMP) is no part of it.
        let unicast_ipv4 = |bytes: &[u8]| bytes[0] & 1 == 0 && bytes[12..14] == [8, 0];
        let incoming = came.into_iter().filter(|(_, packet)| !packet.outgoing && unicast_ipv4(&packet.bytes));
        Ok(incoming.map(|(end, packet)| (end, packet.bytes)).collect())
    }

    fn wait_for(&self, end: usize, payload: &[u8]) -> Result<Vec<u8>> {
        while let Some(packet) = self.sockets[end].receive(wait::SOON)? {
            if packet.bytes.ends_with(payload) && !packet.outgoing {
                return Ok(packet.bytes);
            }
        }
        anyhow::bail!("{}: {:?} did not come out", self.name, String::from_utf8_lossy(payload))
    }

    /// The port outside by which a remote reaches an inside: the forward's, the one last seen, or (never
    /// seen) its own.
    pub fn external(&self, inside: Inside, remote: SocketAddrV4) -> u16 {
        let forwarded = FORWARDS.iter().find(|(protocol, _, guest, port)| {
            (*protocol, *guest, *port) == (inside.protocol, inside.guest, inside.port)
        });
        let seen = |remote| self.externals.get(&(inside, remote)).copied();
        seen(Some(remote)).or(forwarded.map(|forward| forward.1)).or_else(|| seen(None)).unwrap_or(inside.port)
    }

    /// Notes whose an external port is.
    pub fn learn(&mut self, inside: Inside, external: u16, remote: SocketAddrV4) {
        let remote = if inside.protocol == ICMP { SocketAddrV4::new(*remote.ip(), 0) } else { remote };
        self.owners.insert((inside.protocol, external, remote), inside);
        self.externals.insert((inside, Some(remote)), external);
        self.externals.insert((inside, None), external);
    }
}

fn mac_of(host: &Namespace, device: &str) -> Result<Mac> {
    let shown: serde_json::Value = serde_json::from_str(&host.run(&["ip", "-j", "link", "show", device])?)?;
    let address = shown[0]["address"].as_str().and_then(Mac::parse);
    address.with_context(|| format!("{device} has no MAC address: {shown}"))
}
