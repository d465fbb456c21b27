//! What outlives the daemon: the user's wishes (state directory), and the numbers and host changes of
//! this boot (run directory).

mod file;
mod incarnation;
mod journal;
mod runtime;

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

pub use self::{
    file::{Lifetime, Staged},
    incarnation::Incarnation,
    journal::{HostSetting, Journal, Record},
    runtime::Runtime,
};
use crate::{
    config::{Config, MacAddress, NetworkConfig, NetworkName},
    edit,
    error::{Error, Result},
};

/// Version of the state file's shape.
const VERSION: u32 = 1;

/// The state directory, held by one daemon at a time.
pub struct StateDir {
    path: PathBuf,
    _lock: DirLock,
}

/// A directory that is held until this is dropped, or the process ends, however it ends.
pub struct DirLock {
    _lock: Flock<File>,
}

impl DirLock {
    /// Takes the directory, which is made if it is missing.
    pub fn take(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(|error| Error::file("create", path, error))?;
        let lock_path = path.join("lock");
        let file = File::create(&lock_path).map_err(|error| Error::file("create", &lock_path, error))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            nix::errno::Errno::EWOULDBLOCK => Error::Setup(format!(
                "another vnet daemon works on {}: stop it first, or give this one directories of its own",
                path.display()
            )),
            other => Error::file("lock", &lock_path, other.into()),
        })?;
        Ok(Self { _lock: lock })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    version: u32,
    #[serde(default, rename = "network", skip_serializing_if = "BTreeMap::is_empty")]
    networks: BTreeMap<NetworkName, NetworkConfig>,
}

/// Looked at first: a newer file may hold anything else.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl StateDir {
    /// Takes the directory: one daemon at a time works on it.
    pub fn lock(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), _lock: DirLock::take(path)? })
    }

    fn file(&self) -> PathBuf {
        self.path.join("state.toml")
    }

    /// The saved wishes; none where nothing was saved yet.
    ///
    /// `gateway_mac` gives networks written by hand their gateway's MAC address.
    pub fn load(&self, gateway_mac: impl Fn(&NetworkName) -> MacAddress) -> Result<Config> {
        let path = self.file();
        let Some(text) = file::read(&path)? else { return Ok(Config::default()) };
        let bad = |reason| Error::BadFile { path: path.display().to_string(), reason };
        let config = parse(&text).map_err(bad)?;
        edit::check_whole(&config, gateway_mac)
            .map_err(|refusal| bad(format!("says what cannot be ({refusal}): mend it, or move the file away")))
    }

    /// Makes ready to save, so that a full disk shows before anything else is done.
    pub fn stage(&self, config: &Config) -> Result<Staged> {
        let state = StateFile { version: VERSION, networks: config.networks.clone() };
        Staged::new(&self.file(), &file::to_toml(&state)?, Lifetime::Forever)
    }
}

fn parse(text: &str) -> Result<Config, String> {
    let versioned: Versioned = toml::from_str(text).map_err(|error| unreadable(&error, text))?;
    if versioned.version != VERSION {
        return Err(format!(
            "is of version {}, this vnet knows version {VERSION}: start the vnet that wrote it, or move the file away",
            versioned.version
        ));
    }
    let state: StateFile = toml::from_str(text).map_err(|error| unreadable(&error, text))?;
    Ok(Config { networks: state.networks })
}

/// A parser's complaint on one line, with the place.
fn unreadable(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message().replace('\n', " ");
    format!("is broken at line {line} ({message}): mend it, or move the file away")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"version = 1

[network.default]
mode = "nat"
subnet = ["192.168.122.0/24"]
gateway_mac = "02:00:00:00:00:01"

[[network.default.port]]
device = "eth0"
uplink = true

[[network.default.port]]
device = "tap0"
mac = "52:54:00:12:34:56"
ip = ["192.168.122.10"]

[[network.default.forward]]
protocol = "tcp"
listen = "8080"
to = "192.168.122.10:80"

[[network.default.fdb]]
mac = "52:54:00:12:34:57"
device = "tap0"
"#;

    fn mac(_: &NetworkName) -> MacAddress {
        MacAddress::locally_administered([1; 6])
    }

    #[test]
    fn the_state_file_reads_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(dir.path()).unwrap();
        assert_eq!(state.load(mac).unwrap(), Config::default());
        let config = parse(FULL).unwrap();
        state.stage(&config).unwrap().commit().unwrap();
        assert_eq!(state.load(mac).unwrap(), config);
        assert_eq!(std::fs::read_to_string(dir.path().join("state.toml")).unwrap(), FULL);
    }

    #[test]
    fn a_file_that_contradicts_itself_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(dir.path()).unwrap();
        let twice = FULL.replace("device = \"eth0\"", "device = \"tap0\"");
        std::fs::write(dir.path().join("state.toml"), &twice).unwrap();
        let refusal = state.load(mac).unwrap_err().to_string();
        assert!(refusal.contains("says what cannot be (tap0 is already on network 'default'"), "{refusal}");
        assert_eq!(std::fs::read_to_string(dir.path().join("state.toml")).unwrap(), twice);
    }

    #[test]
    fn a_network_written_by_hand_gets_its_gateways_address() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(dir.path()).unwrap();
        let by_hand = "version = 1\n[network.lab]\nmode = \"host-only\"\nsubnet = [\"10.0.0.0/24\"]\n";
        std::fs::write(dir.path().join("state.toml"), by_hand).unwrap();
        assert_eq!(state.load(mac).unwrap().networks["lab"].gateway_mac, Some(mac(&"lab".parse().unwrap())));
    }

    #[test]
    fn a_second_holder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = StateDir::lock(dir.path()).unwrap();
        let refusal = StateDir::lock(dir.path()).err().unwrap().to_string();
        assert!(refusal.starts_with("another vnet daemon works on"), "{refusal}");
    }

    #[test]
    fn a_file_that_is_not_wholly_understood_is_refused() {
        let cases = [
            ("", "is broken at line 1 (missing field `version`): mend it, or move the file away"),
            (
                "version = 2\nsomething = 1",
                "is of version 2, this vnet knows version 1: start the vnet that wrote it, or move the file away",
            ),
            (&FULL[..60], "is broken at line 5"),
            ("version = 1\n[network.a]\nmode = \"nat\"\ncolour = 1", "is broken at line 4 (unknown field `colour`"),
            ("version = 1\n[network.\"a b\"]\nmode = \"nat\"", "is broken at line"),
            ("version = 1\n[network.a]\nmode = \"nat\"\nsubnet = [\"10.0.0.1/24\"]", "10.0.0.1/24 is not a network"),
            ("\u{0}\u{1}\u{2}", "is broken at line 1"),
        ];
        for (text, expected) in cases {
            let reason = parse(text).unwrap_err();
            assert!(reason.contains(expected), "{text:?}: {reason}");
            assert!(!reason.contains('\n'), "{reason}");
        }
    }
}
