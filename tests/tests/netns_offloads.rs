//! The packet matrix with the metadata that the kernel delivers: partial checksums and GSO through the
//! translation, from a tap with a vnet header.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use vnet_tests::{
    capture::Capture,
    checksum::{self, L4},
    frame::{ETHERNET, Ipv4, Mac, UDP, be16, summary},
    scenario::{NETWORK, Scenario},
    tap::Tap,
    topology::{HOST, OUTSIDE, SUBNET, Topology, UPLINK},
    vnet_header::{GSO_NONE, GSO_TCPV4, NEEDS_CSUM, VnetHeader, complete},
};

const MACHINE: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0xaa, 1]), Ipv4Addr::new(10, 77, 0, 50));
/// No-operations and the end of the list.
const OPTIONS: [u8; 4] = [1, 1, 1, 0];
const GSO_UDP_L4: u8 = 5;
const SYN: u8 = 0x02;
const PSH_ACK: u8 = 0x18;

/// A packet of the machine's, as its driver hands it over.
struct Case {
    name: &'static str,
    protocol: fn(SocketAddrV4, SocketAddrV4, &[u8]) -> Ipv4,
    /// Offset of the checksum in the L4 header.
    checksum: u16,
    /// Length of the L4 header.
    header: u16,
    options: &'static [u8],
    payload: usize,
    gso: (u8, u16),
}

const CASES: [Case; 8] = [
    case("UDP", Ipv4::udp, 6, 8, &[], 100, (GSO_NONE, 0)),
    case("UDP, an odd number of bytes", Ipv4::udp, 6, 8, &[], 101, (GSO_NONE, 0)),
    case("UDP with IP options", Ipv4::udp, 6, 8, &OPTIONS, 100, (GSO_NONE, 0)),
    case("UDP in segments", Ipv4::udp, 6, 8, &[], 4500, (GSO_UDP_L4, 1000)),
    case("TCP", segment, 16, 20, &[], 100, (GSO_NONE, 0)),
    case("TCP with IP options", segment, 16, 20, &OPTIONS, 101, (GSO_NONE, 0)),
    case("TCP in segments", segment, 16, 20, &[], 9001, (GSO_TCPV4, 1448)),
    case("TCP in segments with IP options", segment, 16, 20, &OPTIONS, 9000, (GSO_TCPV4, 1400)),
];

const fn case(
    name: &'static str,
    protocol: fn(SocketAddrV4, SocketAddrV4, &[u8]) -> Ipv4,
    checksum: u16,
    header: u16,
    options: &'static [u8],
    payload: usize,
    gso: (u8, u16),
) -> Case {
    Case { name, protocol, checksum, header, options, payload, gso }
}

fn segment(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Ipv4 {
    Ipv4::tcp(from, to, PSH_ACK, payload)
}

/// A packet whose checksum is the bare pseudo-header's sum, and the header in front that says so.
fn partial(case: &Case, packet: Ipv4) -> (VnetHeader, Ipv4) {
    let pseudo = checksum::sum(&[&checksum::pseudo_header(&packet.packet(), packet.payload.len())]);
    let start = (ETHERNET + 20 + packet.options.len()) as u16;
    let (gso_type, gso_size) = case.gso;
    let header = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type,
        hdr_len: if gso_type == GSO_NONE { 0 } else { start + case.header },
        gso_size,
        csum_start: start,
        csum_offset: case.checksum,
        num_buffers: 0,
    };
    (header, packet.spoil(usize::from(case.checksum), &pseudo.to_be_bytes()))
}

struct Machine {
    scenario: Scenario,
    tap: Tap,
    gateway: Mac,
    wire: Capture,
}

impl Machine {
    fn plug() -> Result<Self> {
        let scenario = Scenario::with(
            Topology::new().uplink().quiet(),
            &format!("--mode nat --subnet {SUBNET} --uplink {UPLINK}"),
        )?;
        let host = &scenario.world.host;
        let tap = Tap::open(host, "tap0", 12)?;
        scenario.vnet.line(&format!("port add {NETWORK} tap0"))?;
        let (mac, address) = MACHINE;
        host.ip(&format!("neigh replace {address} lladdr {mac} dev vn-{NETWORK} nud permanent\n"))?;
        let shown = scenario.vnet.json(&format!("network show {NETWORK}"))?;
        let gateway = shown["gateway"]["mac"].as_str().and_then(Mac::parse).with_context(|| format!("{shown}"))?;
        let wire = Capture::open(scenario.world.outside(), "eth0")?;
        Ok(Self { scenario, tap, gateway, wire })
    }

    fn send(&self, header: &VnetHeader, packet: &Ipv4) -> Result<()> {
        self.tap.write(header, &packet.frame(self.gateway, MACHINE.0))
    }

    /// The external port by which a packet with this payload leaves. Every piece of it is judged on the way.
    fn leaves(&self, case: &Case, payload: &[u8]) -> Result<u16> {
        let mut came = Vec::new();
        let mut external = 0;
        while came.len() < payload.len() {
            let packet = self.wire.wait_for(case.name, |packet| {
                summary(&packet.bytes).and_then(|frame| frame.ipv4).is_some_and(|ip| ip.src == HOST && ip.dst_port == 7)
            })?;
            let ip = summary(&packet.bytes).and_then(|frame| frame.ipv4).context("no packet")?;
            let state = checksum::judge(&packet.bytes).map_err(anyhow::Error::msg)?;
            let right = if packet.partial { L4::Partial } else { L4::Full };
            ensure!(state == right || state == L4::Either, "{state:?}, partial: {}", packet.partial);
            ensure!(external == 0 || external == ip.src_port, "two external ports");
            ensure!(ip.ttl == 63 && ip.l4 == ETHERNET + 20 + case.options.len(), "{ip:?}");
            external = ip.src_port;
            let end = ETHERNET + usize::from(be16(&packet.bytes, ETHERNET + 2).context("no length")?);
            came.extend_from_slice(&packet.bytes[ip.l4 + usize::from(case.header)..end]);
        }
        ensure!(came == payload, "{} bytes came, {} were sent, or they differ", came.len(), payload.len());
        Ok(external)
    }

    /// An answer from outside to the external port reaches the machine, its checksum right once completed.
    fn is_answered(&self, case: &Case, inside: u16, external: u16) -> Result<()> {
        let from = SocketAddrV4::new(OUTSIDE, 7);
        let answer = |to| (case.protocol)(from, to, b"answer").options(case.options);
        let uplink = self.uplink()?;
        self.wire.send(&answer(SocketAddrV4::new(HOST, external)).frame(uplink, Mac([2, 0, 0, 0, 0x99, 1])))?;
        let expected = answer(SocketAddrV4::new(MACHINE.1, inside)).ttl(63).packet();
        let mut seen = self.tap.wait_for("the answer", |frame| {
            frame.bytes.get(..6) == Some(&MACHINE.0.0) && frame.bytes.ends_with(b"answer")
        })?;
        seen.header.judge(&seen.bytes, 1518)?;
        complete(&seen.header, &mut seen.bytes)?;
        ensure!(seen.bytes[ETHERNET..] == expected, "{:02x?} instead of {expected:02x?}", &seen.bytes[ETHERNET..]);
        Ok(())
    }

    fn uplink(&self) -> Result<Mac> {
        let printed = self.scenario.world.host.run(&["ip", "-j", "link", "show", UPLINK])?;
        let shown: serde_json::Value = serde_json::from_str(&printed)?;
        shown[0]["address"].as_str().and_then(Mac::parse).context("the uplink has no MAC address")
    }
}

#[test]
fn partial_checksums_and_segments_pass_the_translation_right() -> Result<()> {
    let machine = Machine::plug()?;
    for (number, case) in CASES.iter().enumerate() {
        // Below the external range: the port is changed in any case.
        let inside = 2000 + number as u16;
        let (from, to) = (SocketAddrV4::new(MACHINE.1, inside), SocketAddrV4::new(OUTSIDE, 7));
        let payload: Vec<u8> = (0..case.payload).map(|at| at as u8).collect();
        let work = || -> Result<()> {
            let packet = (case.protocol)(from, to, &payload).options(case.options);
            if packet.protocol != UDP {
                let opening = Case { gso: (GSO_NONE, 0), ..*case };
                let (header, syn) = partial(&opening, Ipv4::tcp(from, to, SYN, b"").options(case.options));
                machine.send(&header, &syn)?;
            }
            let (header, packet) = partial(case, packet);
            machine.send(&header, &packet)?;
            let external = machine.leaves(case, &payload)?;
            ensure!(external >= 49_152, "external port {external}");
            machine.is_answered(case, inside, external)
        };
        work().context(case.name)?;
    }
    Ok(())
}
