//! Errors of the daemon, and what they look like to its clients.

use crate::{
    datapath::{DatapathError, TableError},
    refusal::Refusal,
};

/// Why the daemon did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot be granted; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The datapath could not be set up or changed.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// A netlink request failed.
    #[error("cannot {action}: {reason}")]
    Netlink { action: String, reason: String },
    /// A file of ours or of the kernel could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    File { action: &'static str, path: String, source: std::io::Error },
    /// A file of ours does not hold what it should.
    #[error("{path} {reason}; nothing was changed")]
    BadFile { path: String, reason: String },
    /// The daemon cannot run here.
    #[error("{0}")]
    Setup(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<TableError> for Error {
    fn from(error: TableError) -> Self {
        Self::Datapath(error.into())
    }
}

impl Error {
    pub fn file(action: &'static str, path: impl AsRef<std::path::Path>, source: std::io::Error) -> Self {
        Self::File { action, path: path.as_ref().display().to_string(), source }
    }

    /// The HTTP status that says the same.
    pub fn status(&self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.status(),
            _ => 500,
        }
    }
}
