//! Which programs hang on a device.

use anyhow::{Context, Result};
use aya::programs::{SchedClassifier, TcAttachType};

use crate::namespace::Namespace;

/// Names of the programs on a device's TC hooks (tcx), in order: ingress, then egress.
pub fn tc_programs(inside: &Namespace, device: &str) -> Result<(Vec<String>, Vec<String>)> {
    let query = |hook| -> Result<Vec<String>> {
        let (_, programs) =
            SchedClassifier::query_tcx(device, hook).with_context(|| format!("programs on {device}"))?;
        Ok(programs.iter().map(|program| program.name_as_str().unwrap_or("?").to_owned()).collect())
    };
    inside.enter(|| Ok((query(TcAttachType::Ingress)?, query(TcAttachType::Egress)?)))
}
