//! What compilers and linkers say about themselves.

use std::ops::RangeInclusive;

/// The bpf-linker that is installed where none fits.
pub const LINKER_VERSION: &str = "0.13.0";
/// The oldest bpf-linker that is used where one is found.
const LINKER_MINIMUM: (u32, u32) = (0, 13);
/// The LLVM versions that this bpf-linker can be built against.
pub const LINKER_LLVM: RangeInclusive<u32> = 21..=23;
/// The oldest compiler that builds aya-ebpf.
pub const RUSTC_MINIMUM: (u32, u32) = (1, 87);

/// From `rustc --version --verbose`.
#[derive(Debug, PartialEq, Eq)]
pub struct RustcVersion {
    /// As printed: `1.96.0`, `1.97.0-nightly`.
    pub release: String,
    pub number: (u32, u32),
    pub llvm: u32,
}

pub fn parse_rustc(verbose: &str) -> Option<RustcVersion> {
    let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let release = field("release")?;
    Some(RustcVersion {
        release: release.to_owned(),
        number: major_minor(release)?,
        llvm: leading_number(field("LLVM version")?)?,
    })
}

/// Whether what `bpf-linker --version` prints is recent enough.
pub fn linker_is_recent(printed: &str) -> bool {
    printed.split_whitespace().nth(1).and_then(major_minor).is_some_and(|number| number >= LINKER_MINIMUM)
}

/// LLVM's major version from the libraries that `ldd` lists:
/// `libLLVM.so.22.1`, or `libLLVM-19.so` as it was called before.
pub fn llvm_of_libraries(ldd: &str) -> Option<u32> {
    ldd.split_whitespace().find_map(|word| {
        let rest = word.strip_prefix("libLLVM")?;
        leading_number(rest.strip_prefix(".so.").or(rest.strip_prefix('-'))?)
    })
}

/// LLVM's major version from a program that has it linked in: bitcode writers
/// sign with `LLVM22.1.8`.
pub fn llvm_of_bytes(program: &[u8]) -> Option<u32> {
    const SIGNATURE: &[u8] = b"LLVM";
    program.windows(SIGNATURE.len() + 3).filter_map(|window| window.strip_prefix(SIGNATURE)).find_map(|digits| {
        match digits {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', b'.'] => Some(u32::from(a - b'0') * 10 + u32::from(b - b'0')),
            _ => None,
        }
    })
}

/// `1.96.0+dfsg1-1` and `1.97.0-nightly` alike.
pub fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.splitn(3, '.');
    Some((parts.next()?.parse().ok()?, leading_number(parts.next()?)?))
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nightly_and_a_distribution_compiler_are_understood() {
        let nightly = "\
rustc 1.97.0-nightly (e50aa6fba 2026-05-19)
binary: rustc
host: x86_64-unknown-linux-gnu
release: 1.97.0-nightly
LLVM version: 22.1.4
";
        assert_eq!(
            parse_rustc(nightly),
            Some(RustcVersion { release: "1.97.0-nightly".into(), number: (1, 97), llvm: 22 })
        );
        let without_llvm = "rustc 1.96.0\nrelease: 1.96.0\n";
        assert_eq!(parse_rustc(without_llvm), None);
        assert_eq!(parse_rustc(""), None);
    }

    #[test]
    fn versions_are_compared_by_number() {
        for (text, number) in [
            ("1.96.0+dfsg1-1~deb12u2", Some((1, 96))),
            ("1.100.0", Some((1, 100))),
            ("22.1", Some((22, 1))),
            ("nightly", None),
            ("1", None),
            ("", None),
        ] {
            assert_eq!(major_minor(text), number, "{text}");
        }
        assert!(Some((1, 100)) > major_minor("1.96.0"));
    }

    #[test]
    fn an_old_linker_is_refused() {
        assert!(linker_is_recent("bpf-linker 0.13.0\n"));
        assert!(linker_is_recent("bpf-linker 1.0.0"));
        assert!(!linker_is_recent("bpf-linker 0.9.15"));
        assert!(!linker_is_recent("command not found"));
    }

    #[test]
    fn the_linkers_llvm_is_found_in_its_libraries_or_in_itself() {
        let new = "\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x7f)\n";
        let old = "\tlibLLVM-19.so.1 => /lib/libLLVM-19.so.1 (0x7f)\n";
        assert_eq!(llvm_of_libraries(new), Some(22));
        assert_eq!(llvm_of_libraries(old), Some(19));
        assert_eq!(llvm_of_libraries("\tstatically linked\n"), None);

        assert_eq!(llvm_of_bytes(b"\0LLVM ERROR\0LLVM23.0.0git\0"), Some(23));
        assert_eq!(llvm_of_bytes(b"LLVM_PREFIX LLVMContext"), None);
        assert_eq!(llvm_of_bytes(b""), None);
    }
}
