//! Files that are either wholly old or wholly new.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::error::{Error, Result};

/// What a file must outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// A crash of the machine.
    Forever,
    /// A crash of the daemon: what is of this boot is worth nothing after it, and need not wait for a disk.
    Boot,
}

/// New content, complete beside the file whose place it will take. A crash or a full disk at any point
/// leaves the old content; what is not committed goes away.
#[must_use]
pub struct Staged {
    path: PathBuf,
    beside: PathBuf,
    lifetime: Lifetime,
}

impl Staged {
    pub fn new(path: &Path, content: &str, lifetime: Lifetime) -> Result<Self> {
        let staged = Self { path: path.to_owned(), beside: path.with_extension("toml.new"), lifetime };
        staged.fill(content).map_err(|error| Error::file("write", path, error))?;
        Ok(staged)
    }

    fn fill(&self, content: &str) -> std::io::Result<()> {
        let mut file = File::create(&self.beside)?;
        file.write_all(content.as_bytes())?;
        if self.lifetime == Lifetime::Forever { file.sync_all() } else { Ok(()) }
    }

    pub fn commit(self) -> Result<()> {
        let put = || {
            fs::rename(&self.beside, &self.path)?;
            match self.path.parent() {
                Some(directory) if self.lifetime == Lifetime::Forever => File::open(directory)?.sync_all(),
                _ => Ok(()),
            }
        };
        put().map_err(|error| Error::file("write", &self.path, error))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already where it was committed; else what is left over is overwritten next time.
        let _ = fs::remove_file(&self.beside);
    }
}

/// Puts new content in place at once, for this boot.
pub fn write(path: &Path, content: &str) -> Result<()> {
    Staged::new(path, content, Lifetime::Boot)?.commit()
}

/// The file's text; `None` where there is no file.
pub fn read(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Error::BadFile {
                path: path.display().to_string(),
                reason: "is broken (not text): mend it, or move the file away".into(),
            }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path, error)),
    }
}

pub fn to_toml(value: &impl Serialize) -> Result<String> {
    toml::to_string(value).map_err(|error| Error::Setup(format!("cannot write TOML: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_content_stands_until_the_new_one_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        write(&path, "old").unwrap();
        drop(Staged::new(&path, "new", Lifetime::Forever).unwrap());
        assert_eq!(read(&path).unwrap().as_deref(), Some("old"));
        let staged = Staged::new(&path, "new", Lifetime::Forever).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("old"));
        staged.commit().unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("new"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
