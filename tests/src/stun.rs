//! coturn as the judge of the NAT: a STUN server with two addresses and two ports, and the client that
//! finds out how the NAT in between behaves (RFC 5780).

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{daemon::target_directory, namespace::Namespace, process::Process, wait};

/// The server's first port; the alternate one is the next.
pub const PORT: u16 = 3478;

/// How long a discovery may take beyond what it waits for: each answer that does not come costs it
/// some seconds.
const DISCOVERY: Duration = Duration::from_secs(60);

/// Where `cargo xtask setup` unpacks the package.
fn unpacked() -> PathBuf {
    target_directory().join("coturn/usr")
}

/// One of the package's programs, unpacked or installed.
fn command(inside: &Namespace, program: &str) -> Result<Command> {
    let path = unpacked().join("bin").join(program);
    if !path.is_file() {
        return Ok(inside.command(program));
    }
    let mut command = inside.command(path.to_str().context("the target directory's path is not UTF-8")?);
    // The libraries that this machine lacks lie beside it, in a directory named for the architecture.
    let mut directories = Vec::new();
    for entry in std::fs::read_dir(unpacked().join("lib"))? {
        let path = entry?.path();
        if path.is_dir() {
            directories.push(path);
        }
    }
    command.env("LD_LIBRARY_PATH", std::env::join_paths(directories)?);
    Ok(command)
}

/// A running STUN server, ended when dropped.
#[derive(Debug)]
pub struct StunServer {
    _process: Process,
}

impl StunServer {
    /// On [`PORT`] and the next one of both addresses. The second address is the alternate one.
    pub fn start(inside: &Namespace, first: Ipv4Addr, second: Ipv4Addr, directory: &Path) -> Result<Self> {
        // Until 4.6.1 the RFC 5780 attributes come by default, later they have to be asked for.
        let mut help = command(inside, "turnserver")?;
        help.arg("--help");
        let help = Process::spawn(help)?.output(wait::SOON)?;
        let mut server = command(inside, "turnserver")?;
        server.args(["-n", "--stun-only", "--no-tls", "--no-dtls", "--no-cli", "--log-file", "stdout"]);
        server.args(["--listening-port", &PORT.to_string(), "--alt-listening-port", &(PORT + 1).to_string()]);
        server.args(["-L", &first.to_string(), "-L", &second.to_string()]);
        server.arg("--pidfile").arg(directory.join("turnserver.pid"));
        server.arg("--userdb").arg(directory.join("turndb")).current_dir(directory);
        if help.to_string().contains(" --rfc5780") {
            server.arg("--rfc5780");
        }
        let mut process = Process::spawn(server)?;
        wait::until_true("the STUN server listens", wait::SOON, || {
            ensure!(process.is_running()?, "turnserver ended at once:\n{}", process.printed());
            let sockets = inside.run(&["ss", "-Hlun"])?;
            let listening = |address, port| sockets.contains(&format!("{address}:{port} "));
            Ok([first, second].iter().all(|address| listening(address, PORT) && listening(address, PORT + 1)))
        })?;
        Ok(Self { _process: process })
    }
}

/// What `turnutils_natdiscovery` found out.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// The guest's addresses as the server saw them, in the order of the answers.
    pub seen: Vec<SocketAddrV4>,
    pub printed: String,
}

impl Discovery {
    /// It came to this conclusion (`NAT with Endpoint Independent Mapping!`).
    pub fn says(&self, conclusion: &str) -> Result<()> {
        ensure!(self.printed.contains(conclusion), "natdiscovery does not say {conclusion:?}:\n{}", self.printed);
        Ok(())
    }
}

/// Runs a discovery (`-m` mapping, `-f` filtering, `-H` hairpinning, `-t -T SECONDS` lifetime,
/// `-c -A ADDRESS` collision) from a local address towards the server's first address.
pub fn discover(from: &Namespace, local: Ipv4Addr, server: Ipv4Addr, what: &[&str]) -> Result<Discovery> {
    let mut client = command(from, "turnutils_natdiscovery")?;
    client.args(what).args(["-p", &PORT.to_string(), "-L", &local.to_string(), &server.to_string()]);
    let output = Process::spawn(client)?.output(DISCOVERY)?;
    let seen = output.stdout.lines().filter_map(|line| line.split("UDP reflexive addr: ").nth(1));
    let seen: Vec<SocketAddrV4> = seen.map(|address| address.trim().parse()).collect::<Result<_, _>>()?;
    ensure!(!seen.is_empty(), "the STUN server did not answer: {output}");
    Ok(Discovery { seen, printed: output.to_string() })
}
