//! The distribution's packages that tests and demo use, and apt.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;

const UPDATE_LIMIT: Duration = Duration::from_secs(300);
const INSTALL_LIMIT: Duration = Duration::from_secs(1800);
const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// A program, and the package that has it on Debian and Ubuntu.
struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

const REQUIRED: &[Tool] = &[
    tool("ip", "iproute2"),
    tool("ping", "iputils-ping"),
    tool("nsenter", "util-linux"),
    tool("curl", "curl"),
    tool("iperf3", "iperf3"),
    tool("busybox", "busybox"),
    tool("ethtool", "ethtool"),
    tool("tcpdump", "tcpdump"),
    tool("socat", "socat"),
    tool("nc", "netcat-openbsd"),
    tool("dnsmasq", "dnsmasq-base"),
    tool("iptables", "iptables"),
    tool("nft", "nftables"),
];

/// Good to have at hand; installed along with the others, never demanded.
const OPTIONAL: &[Tool] = &[tool("bpftool", "bpftool")];

/// The packages of the required programs that this machine lacks.
pub fn missing() -> Vec<&'static str> {
    absent(REQUIRED)
}

fn absent(tools: &[Tool]) -> Vec<&'static str> {
    tools.iter().filter(|tool| process::which(tool.program).is_none()).map(|tool| tool.package).collect()
}

/// Installs what `missing` named, and the optional ones that exist.
pub fn install_missing(missing: &[&'static str]) -> Result<()> {
    refresh()?;
    let mut wanted: Vec<&str> = missing.to_vec();
    let optional = absent(OPTIONAL);
    let known = candidates(&optional)?;
    wanted.extend(optional.iter().filter(|name| known.has(name)));
    install(&wanted)
}

/// Reads the package lists anew, so that what exists can be asked; once a run.
pub fn refresh() -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    require_apt()?;
    if DONE.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    println!("setup: apt-get update");
    let outcome = process::capture(apt_get().args(["-q", "update"]), UPDATE_LIMIT)?;
    if !outcome.status.success() {
        // Lists that are there already may still do.
        println!("setup: apt-get update failed, going on with the package lists at hand");
    }
    Ok(())
}

/// Installs packages that are known to be needed; names those that do not exist.
pub fn install(packages: &[&str]) -> Result<()> {
    refresh()?;
    let known = candidates(packages)?;
    let unknown: Vec<&str> = packages.iter().copied().filter(|name| !known.has(name)).collect();
    if !unknown.is_empty() {
        bail!("this distribution's archives have no package {}", unknown.join(", "));
    }
    println!("setup: apt-get install --no-install-recommends {}", packages.join(" "));
    process::capture(apt_get().args(["-q", "-y", "install", "--no-install-recommends"]).args(packages), INSTALL_LIMIT)?
        .success("apt-get install")?;
    Ok(())
}

/// Downloads a package and those that it needs and this machine lacks into `archives`; installs nothing.
pub fn download(package: &str, archives: &Path) -> Result<()> {
    refresh()?;
    if !candidates(&[package])?.has(package) {
        bail!("this distribution's archives have no package {package}");
    }
    println!("setup: apt-get install --download-only {package}");
    let archives = format!("Dir::Cache::archives={}", archives.display());
    process::capture(
        apt_get().args(["-o", &archives, "-q", "-y", "install", "--no-install-recommends", "--download-only", package]),
        INSTALL_LIMIT,
    )?
    .success("apt-get install --download-only")?;
    Ok(())
}

fn require_apt() -> Result<()> {
    if process::which("apt-get").is_none() {
        bail!("only Debian and Ubuntu (apt-get) are set up automatically: install the packages by hand");
    }
    if !process::is_root() {
        bail!("installing packages needs root: run `cargo xtask setup` as root once");
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "Acquire::Retries=2",
        "-o",
        "Acquire::http::Timeout=30",
        "-o",
        "Acquire::https::Timeout=30",
    ]);
    command
}

/// Which versions `apt-get install` would take.
pub struct Candidates(Vec<(String, String)>);

impl Candidates {
    pub fn has(&self, package: &str) -> bool {
        self.version(package).is_some()
    }

    pub fn version(&self, package: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == package).map(|(_, version)| version.as_str())
    }
}

pub fn candidates(packages: &[&str]) -> Result<Candidates> {
    if packages.is_empty() {
        return Ok(Candidates(Vec::new()));
    }
    let text =
        process::capture(Command::new("apt-cache").env("LC_ALL", "C").arg("policy").args(packages), QUERY_LIMIT)?
            .success("apt-cache policy")?;
    Ok(parse_policy(&text))
}

/// Reads `apt-cache policy`: a package's name at the margin, then its fields.
fn parse_policy(text: &str) -> Candidates {
    let mut found = Vec::new();
    let mut package = None;
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(':')
            && !line.starts_with(' ')
        {
            package = Some(name);
        } else if let Some(version) = line.trim_start().strip_prefix("Candidate: ")
            && let Some(name) = package
            && version != "(none)"
        {
            found.push((name.to_owned(), version.to_owned()));
        }
    }
    Candidates(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_with_a_candidate_can_be_installed() {
        let policy = "\
rustc-web:
  Installed: (none)
  Candidate: 1.96.0+dfsg1-1~deb12u2
  Version table:
     1.85.0+dfsg3-1~deb12u3 500
llvm-99-dev:
  Installed: (none)
  Candidate: (none)
  Version table:
";
        let known = parse_policy(policy);
        assert_eq!(known.version("rustc-web"), Some("1.96.0+dfsg1-1~deb12u2"));
        assert!(!known.has("llvm-99-dev"));
        assert!(!known.has("never-heard-of"));
    }

    #[test]
    fn no_package_is_demanded_twice() {
        let mut names: Vec<&str> = REQUIRED.iter().chain(OPTIONAL).map(|tool| tool.package).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
