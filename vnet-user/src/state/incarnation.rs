//! Which boot and network namespace numbers and host changes belong to.

use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A boot and a namespace: what the kernel held in another one is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    boot: String,
    namespace: u64,
}

impl Incarnation {
    pub fn current() -> Result<Self> {
        let boot = "/proc/sys/kernel/random/boot_id";
        let namespace = "/proc/thread-self/ns/net";
        Ok(Self {
            boot: std::fs::read_to_string(boot).map_err(|error| Error::file("read", boot, error))?.trim().to_owned(),
            namespace: std::fs::metadata(namespace).map_err(|error| Error::file("read", namespace, error))?.ino(),
        })
    }
}
