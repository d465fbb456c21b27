//! `cargo xtask demo`: the newcomer's show, typed out command by command.

mod background;
mod narrator;
mod sandbox;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace::{self, Workspace};
use crate::{build, build_ebpf, interrupt, process, setup};
use background::Background;
use narrator::{Narrator, words};
use sandbox::{GUEST_A, HOST, NET, Sandbox};

/// Show vnet at work: guests behind NAT, a forward, and the tables.
///
/// Builds vnet, makes two guests and an "internet" out of network namespaces,
/// runs the daemon between them, and prints every command with its output.
/// The machine's own network is not touched, and all of it is gone at the end,
/// also after Ctrl-C. Needs root.
#[derive(clap::Args)]
pub struct Args {
    /// Keep everything running before the clean-up, until Ctrl-C
    #[arg(long)]
    hold: bool,
}

const PAGE: &str = "Hello from guest a, which lives at 192.168.122.10\n";
const OUTSIDE: &str = "203.0.113.1";
const FORWARD_URL: &str = "http://203.0.113.2:8080/";
const IPERF_PORT: u16 = 5201;
/// How soon Ctrl-C is noticed while everything is held.
const HOLD_POLL: Duration = Duration::from_millis(100);

pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !process::is_root() {
        bail!("the demo makes network namespaces and loads BPF programs: run it as root");
    }
    let toolchain = setup::for_running(workspace)?;
    println!("Building the BPF programs and the vnet binary (minutes when it is the first time)");
    build_ebpf::build(workspace, &toolchain)?;
    build::vnet(workspace, false)?;

    interrupt::catch()?;
    let binary = workspace.vnet_binary(false);
    perform(workspace, &binary, args.hold)?;
    println!();
    println!(
        "The demo and all that it made are gone. Next: README.md, your own guests on a real host; or `cargo xtask demo --hold` to try commands of your own here."
    );
    Ok(())
}

/// The guards inside undo everything on the way out, whatever the way.
fn perform(workspace: &Workspace, binary: &Path, hold: bool) -> Result<()> {
    let narrator = Narrator::new();
    let sandbox = Sandbox::new()?;
    let demo = Demo { narrator: &narrator, sandbox: &sandbox, binary };

    narrator.explain(
        "Two guests, the host they run on, and the internet, each a network namespace.\n\
         On a real host guests are taps or veths, and eth0 is the machine's NIC.",
    );
    sandbox.wire(&narrator)?;
    narrator.explain("Nobody out there knows a way to the guests: there is no route to 192.168.122.0/24.");
    narrator.sh("ip -n vnet-demo-net route")?;

    let daemon = demo.start_daemon(workspace)?;
    demo.configure()?;
    demo.ping()?;
    demo.transfer()?;
    demo.forward()?;
    demo.tables()?;
    if hold {
        demo.hold(workspace)?;
    }
    narrator.explain("Deleting the network undoes all that it did to the host.");
    demo.vnet("network del default")?;
    drop(daemon);
    Ok(())
}

struct Demo<'a> {
    narrator: &'a Narrator,
    sandbox: &'a Sandbox,
    binary: &'a Path,
}

impl Demo<'_> {
    /// What tells this vnet from one that the machine may run already.
    fn environment(&self) -> [(&'static str, PathBuf); 5] {
        [
            ("VNET_SOCKET", self.sandbox.file("vnet.sock")),
            ("VNET_STATE_DIR", self.sandbox.file("state")),
            ("VNET_RUN_DIR", self.sandbox.file("run")),
            ("VNET_PIN_DIR", self.sandbox.file("bpf")),
            // Nothing on this machine's own cgroups.
            ("VNET_CGROUP", PathBuf::from("none")),
        ]
    }

    fn start_daemon(&self, workspace: &Workspace) -> Result<Background> {
        self.narrator.explain(
            "The daemon, in the host's namespace, with its files kept apart from a vnet\n\
             that this machine may run already. It loads the BPF programs and keeps their maps.",
        );
        for (name, path) in self.environment() {
            self.narrator.show(&format!("export {name}={}", path.display()));
        }
        if let Some(dir) = self.binary.parent() {
            let dir = workspace::typed(workspace, dir);
            self.narrator.show(&format!("export PATH={dir}:$PATH"));
        }
        self.narrator.show(&format!("nsenter --net=/run/netns/{HOST} vnet daemon &"));
        let mut command = sandbox::inside(HOST, self.binary);
        command.arg("daemon").envs(self.environment());
        let log = self.sandbox.file("daemon.log");
        let mut daemon = Background::start("vnet daemon", &mut command, log)?;
        daemon.wait_for_socket(&self.sandbox.file("vnet.sock"))?;
        Ok(daemon)
    }

    fn configure(&self) -> Result<()> {
        self.narrator.explain("A NAT network behind eth0, the two guests on it, and a forward to guest a.");
        self.vnet("network add default --mode nat --uplink eth0 --subnet 192.168.122.0/24")?;
        self.vnet("port add default vnet-a")?;
        self.vnet("port add default vnet-b")?;
        self.vnet("forward add default tcp 8080 192.168.122.10:80")?;
        Ok(())
    }

    fn ping(&self) -> Result<()> {
        for (what, address) in [
            ("Guest a reaches guest b, …", "192.168.122.11"),
            ("… its gateway, …", "192.168.122.1"),
            ("… and, translated, the outside.", OUTSIDE),
        ] {
            self.narrator.explain(what);
            self.narrator.sh(&format!("ip netns exec {GUEST_A} ping -c 3 -i 0.2 -w 10 {address}"))?;
        }
        Ok(())
    }

    fn transfer(&self) -> Result<()> {
        self.narrator.explain("Bulk TCP from guest a to the outside, through the NAT.");
        let server = format!("ip netns exec {NET} iperf3 -s -1");
        self.narrator.show(&format!("{server} &"));
        let log = self.sandbox.file("iperf3.log");
        let mut iperf = Background::start("iperf3", &mut words(&server), log)?;
        iperf.wait_for_tcp_port(IPERF_PORT)?;
        let report = self.narrator.sh(&format!("ip netns exec {GUEST_A} iperf3 -c {OUTSIDE} -t 3 -i 0"))?;
        let rate = received_rate(&report).context("the demo ends here: iperf3 reports no rate at the receiver")?;
        self.narrator.explain(&format!("{rate} through the NAT, on this machine."));
        Ok(())
    }

    fn forward(&self) -> Result<()> {
        self.narrator.explain("A web server in guest a, asked from outside through the forward.");
        let site = self.sandbox.file("www");
        fs::create_dir_all(&site)
            .and_then(|()| fs::write(site.join("index.html"), PAGE))
            .with_context(|| format!("{} cannot be written", site.display()))?;
        let server = format!("ip netns exec {GUEST_A} busybox httpd -f -v -p 80 -h {}", site.display());
        self.narrator.show(&format!("{server} &"));
        let log = self.sandbox.file("httpd.log");
        let mut httpd = Background::start("busybox httpd", &mut words(&server), log)?;
        httpd.wait_for_tcp_port(80)?;
        let page = self.narrator.sh(&format!("ip netns exec {NET} curl -sS --max-time 10 {FORWARD_URL}"))?;
        if page != PAGE {
            bail!("the demo ends here: {FORWARD_URL} is not guest a's page");
        }
        process::wait_until("the web server notes its visitor", Duration::from_secs(5), || {
            Ok(!httpd.log().is_empty())
        })?;
        self.narrator.explain("The guest sees who really asks; its server's log:");
        print!("{}", httpd.log());
        Ok(())
    }

    fn tables(&self) -> Result<()> {
        for (what, line) in [
            ("The whole host on one screen.", "show"),
            ("The ports, and what went through them.", "port list"),
            ("The live connections, and how they are translated.", "conntrack list"),
            ("What was counted, and what was dropped and why.", "stats"),
        ] {
            self.narrator.explain(what);
            self.vnet(line)?;
        }
        Ok(())
    }

    fn hold(&self, workspace: &Workspace) -> Result<()> {
        self.narrator.explain(&format!(
            "All of it keeps running. In another terminal, as root:\n\
             \x20   export VNET_SOCKET={}\n\
             \x20   {} show\n\
             \x20   ip netns exec {GUEST_A} bash\n\
             Ctrl-C here cleans up.",
            self.sandbox.file("vnet.sock").display(),
            workspace::short(workspace, self.binary).display(),
        ));
        while !interrupt::happened() {
            std::thread::sleep(HOLD_POLL);
        }
        interrupt::clear();
        Ok(())
    }

    fn vnet(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new(self.binary);
        command.args(arguments.split_whitespace()).envs(self.environment());
        self.narrator.run(&format!("vnet {arguments}"), &mut command)
    }
}

/// From iperf3's closing line about the receiver: `… 27.5 Gbits/sec  receiver`.
fn received_rate(report: &str) -> Option<String> {
    let line = report.lines().find(|line| line.ends_with("receiver"))?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let unit = fields.iter().position(|field| field.ends_with("bits/sec"))?;
    let number = fields.get(unit.checked_sub(1)?)?;
    Some(format!("{number} {}", fields.get(unit)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_rate_is_quoted() {
        let report = "\
[ ID] Interval           Transfer     Bitrate         Retr
[  5]   0.00-3.00   sec  9.71 GBytes  27.8 Gbits/sec    0             sender
[  5]   0.00-3.00   sec  9.70 GBytes  27.7 Gbits/sec                  receiver
";
        assert_eq!(received_rate(report).as_deref(), Some("27.7 Gbits/sec"));
        assert_eq!(received_rate("iperf3: error"), None);
        assert_eq!(received_rate("receiver"), None);
    }
}
