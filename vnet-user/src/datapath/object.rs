//! The BPF object inside this binary.

use super::DatapathError;

/// Empty where the object was not built when this crate was (see `build.rs`).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vnet.bpf.o"));

/// The object, or an error that says how to get one.
pub(super) fn embedded() -> Result<&'static [u8], DatapathError> {
    if OBJECT.is_empty() { Err(DatapathError::NotBuilt) } else { Ok(OBJECT) }
}

/// True where this binary carries its datapath.
pub fn is_built() -> bool {
    !OBJECT.is_empty()
}
