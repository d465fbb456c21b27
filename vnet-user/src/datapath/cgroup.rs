//! The cgroup whose processes are the host's: where the programs on socket calls go.

use std::{
    convert::Infallible,
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::DatapathError;

/// What the user says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CgroupChoice {
    /// The root of the cgroup v2 tree, where one is mounted.
    #[default]
    Auto,
    /// Forwards are not reached from the host itself.
    Off,
    At(PathBuf),
}

impl FromStr for CgroupChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::Off,
            path => Self::At(path.into()),
        })
    }
}

/// A directory of a cgroup v2 tree.
#[derive(Debug)]
pub(super) struct Cgroup {
    pub(super) path: PathBuf,
    pub(super) directory: File,
    /// As links name it: the directory's inode number (`cgroup_id()`).
    pub(super) id: u64,
}

impl Cgroup {
    pub(super) fn open(path: &Path) -> Result<Self, DatapathError> {
        let failed = |error: io::Error| unusable(path, &error.to_string());
        let statistics = statfs(path).map_err(|error| failed(error.into()))?;
        if statistics.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(unusable(path, "not a directory of a cgroup v2 tree"));
        }
        let directory = File::open(path).map_err(failed)?;
        let id = directory.metadata().map_err(failed)?.ino();
        Ok(Self { path: path.to_owned(), directory, id })
    }

    /// The root of the tree; `None` where no cgroup v2 is mounted.
    pub(super) fn root() -> Result<Option<Self>, DatapathError> {
        let mounts = Path::new("/proc/self/mounts");
        let text = fs::read(mounts).map_err(|error| unusable(mounts, &error.to_string()))?;
        mount_point(&text).map(|path| Self::open(&path)).transpose()
    }
}

fn unusable(path: &Path, reason: &str) -> DatapathError {
    DatapathError::Cgroup { path: path.to_owned(), reason: reason.to_owned() }
}

/// The first mount of type cgroup2 in a mount table (proc(5), fstab(5)).
fn mount_point(mounts: &[u8]) -> Option<PathBuf> {
    mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == b"cgroup2").then(|| OsString::from_vec(unescaped(path)).into())
    })
}

/// Blanks and backslashes stand as `\040` and the like.
fn unescaped(mut field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let Some((first, rest)) = field.split_first() {
        let digits = rest.get(..3).filter(|_| *first == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        let (byte, after) = match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => (byte, rest.get(3..).unwrap_or_default()),
            None => (*first, rest),
        };
        plain.push(byte);
        field = after;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_cgroup_v2_is_found() {
        let cases = [
            ("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n", Some("/sys/fs/cgroup")),
            (
                "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
                Some("/sys/fs/cgroup/unified"),
            ),
            ("none /my\\040cg\\134 cgroup2 rw 0 0", Some("/my cg\\")),
            ("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /x tmpfs rw 0 0\n\n", None),
            ("", None),
        ];
        for (mounts, expected) in cases {
            assert_eq!(mount_point(mounts.as_bytes()), expected.map(PathBuf::from), "{mounts}");
        }
    }

    #[test]
    fn a_directory_elsewhere_is_no_cgroup() {
        let error = Cgroup::open(Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("/proc") && error.contains("not a directory of a cgroup v2 tree"), "{error}");
    }
}
