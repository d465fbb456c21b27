//! The API's socket.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::error::{Error, Result};

/// Owner and group may speak to the daemon.
const MODE: u32 = 0o660;

/// Removes the socket when the daemon ends.
pub struct SocketGuard(PathBuf);

impl Drop for SocketGuard {
    fn drop(&mut self) {
        // A socket left behind is taken for stale by the next daemon.
        let _ = fs::remove_file(&self.0);
    }
}

/// Refuses a socket on which somebody answers, and clears away one on which nobody does.
pub async fn check_free(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("look at", path, error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::Setup(format!("{} is no socket: move it away, or give another --socket", path.display())));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(Error::Setup(format!(
            "another vnet daemon answers on {}: stop it first, or give this one its own --socket",
            path.display()
        ))),
        Err(_) => fs::remove_file(path).map_err(|error| Error::file("remove", path, error)),
    }
}

pub fn bind(path: &Path) -> Result<(UnixListener, SocketGuard)> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|error| Error::file("create", directory, error))?;
    }
    let listener = UnixListener::bind(path).map_err(|error| Error::file("listen on", path, error))?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .map_err(|error| Error::file("set the mode of", path, error))?;
    Ok((listener, SocketGuard(path.to_owned())))
}
