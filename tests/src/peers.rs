//! Real programs as peers: ping, iperf3, curl and a web server.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{json, namespace::Namespace, process::Process, socket::connect_from, wait};

/// Echo requests that were answered, of `count`.
pub fn pings(from: &Namespace, to: Ipv4Addr, count: u32) -> Result<u32> {
    let (count_text, to) = (count.to_string(), to.to_string());
    let words = ["ping", "-n", "-q", "-c", &count_text, "-i", "0.02", "-W", "1", &to];
    let output = from.output(&words, Duration::from_secs(10) + Duration::from_secs(1) * count)?;
    let received = output
        .stdout
        .split(", ")
        .find_map(|part| part.strip_suffix(" received"))
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("ping {to} from {}: {output}", from.label()));
    // "Network is unreachable" ends ping before it counts anything.
    if output.stderr.contains("unreachable") { Ok(0) } else { received }
}

/// Every one of three pings is answered.
pub fn reaches(from: &Namespace, to: Ipv4Addr) -> Result<()> {
    let answered = pings(from, to, 3)?;
    ensure!(answered == 3, "{answered} of 3 pings from {} to {to} were answered", from.label());
    Ok(())
}

/// A ping is not answered.
pub fn does_not_reach(from: &Namespace, to: Ipv4Addr) -> Result<()> {
    let answered = pings(from, to, 1)?;
    ensure!(answered == 0, "{} reaches {to}, which it must not", from.label());
    Ok(())
}

/// A TCP connection cannot be made: refused, or no answer within the time.
pub fn cannot_connect(from: &Namespace, to: Ipv4Addr, port: u16) -> Result<()> {
    match connect_from(from, 0, SocketAddrV4::new(to, port), Duration::from_millis(1500)) {
        Ok(stream) => anyhow::bail!("{} connected to {:?}, which it must not", from.label(), stream.peer_addr()),
        Err(_) => Ok(()),
    }
}

/// What iperf3 measured.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    pub bits_per_second: f64,
    pub retransmits: u64,
}

/// One iperf3 TCP stream from `client` to a server in `server`, which the client calls `to`.
pub fn iperf3(client: &Namespace, server: &Namespace, to: Ipv4Addr, seconds: u32, more: &[&str]) -> Result<Throughput> {
    let mut listening = server.command("iperf3");
    listening.args(["-s", "-1"]);
    let serving = Process::spawn(listening)?;
    wait::until_true("iperf3 listens", wait::SOON, || {
        Ok(server.run(&["ss", "-Hltn", "sport = :5201"])?.contains("5201"))
    })?;
    let (to, time) = (to.to_string(), seconds.to_string());
    let words = [&["iperf3", "-c", &to, "-t", &time, "-J", "--connect-timeout", "5000"], more].concat();
    let output = client.output(&words, Duration::from_secs(20 + u64::from(seconds)))?;
    ensure!(output.status == 0, "iperf3: {output}\nserver: {}", serving.printed());
    let report: Value = serde_json::from_str(&output.stdout)?;
    let end = &report["end"];
    Ok(Throughput {
        bits_per_second: end["sum_received"]["bits_per_second"].as_f64().context("no rate in iperf3's report")?,
        retransmits: json::number(&end["sum_sent"], "retransmits").unwrap_or(0),
    })
}

/// A web server for one directory.
pub fn web_server(inside: &Namespace, port: u16, directory: &Path) -> Result<Process> {
    let mut command = inside.command("busybox");
    command.args(["httpd", "-f", "-p", &port.to_string(), "-h"]).arg(directory);
    let server = Process::spawn(command)?;
    wait::until_true("httpd listens", wait::SOON, || {
        inside.enter(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()))
    })?;
    Ok(server)
}

/// Fetches a page.
pub fn curl(from: &Namespace, url: &str) -> Result<String> {
    from.run(&["curl", "--silent", "--show-error", "--fail", "--max-time", "10", url])
}
