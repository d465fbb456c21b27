//! The virtio-net header (virtio 1.2, 5.1.6) in front of frames of a tap: parsed, and judged.

use anyhow::{Context, Result, ensure};

use crate::checksum::{self, L4};

pub const NEEDS_CSUM: u8 = 1;
pub const GSO_NONE: u8 = 0;
pub const GSO_TCPV4: u8 = 1;

/// Header of 10 bytes, or of 12 with the buffer count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
    /// Only in the header of 12 bytes.
    pub num_buffers: u16,
}

impl VnetHeader {
    /// Reads it; fields are little-endian here, as on the machines that run this.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let word = |offset: usize| -> Result<u16> {
            let two = bytes.get(offset..offset + 2).with_context(|| format!("a header of {} bytes", bytes.len()))?;
            Ok(u16::from_ne_bytes([two[0], two[1]]))
        };
        let [flags, gso_type] = word(0)?.to_ne_bytes();
        let num_buffers = if bytes.len() >= 12 { word(10)? } else { 0 };
        Ok(Self {
            flags,
            gso_type,
            hdr_len: word(2)?,
            gso_size: word(4)?,
            csum_start: word(6)?,
            csum_offset: word(8)?,
            num_buffers,
        })
    }

    /// The first `length` (10 or 12) bytes.
    pub fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![self.flags, self.gso_type];
        for word in [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    pub fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// Segments that the receiver must cut the frame into; without the ECN bit.
    pub fn is_gso(&self) -> bool {
        self.gso_type & 0x7f != GSO_NONE
    }

    /// Judges header and frame together, as a guest's driver relies on them. Length is the longest
    /// frame, Ethernet header included, that may come without GSO.
    pub fn judge(&self, frame: &[u8], longest: usize) -> Result<()> {
        let l4 = checksum::judge(frame).map_err(anyhow::Error::msg)?;
        if self.needs_checksum() {
            let field = usize::from(self.csum_start) + usize::from(self.csum_offset);
            ensure!(field + 2 <= frame.len(), "checksum field at {field} of {} bytes", frame.len());
            ensure!(matches!(l4, L4::Partial | L4::Either | L4::None), "NEEDS_CSUM, but the checksum is {l4:?}");
        } else {
            ensure!(
                matches!(l4, L4::Full | L4::Either | L4::Absent | L4::None),
                "complete, but the checksum is {l4:?}"
            );
        }
        if self.is_gso() {
            ensure!(self.needs_checksum(), "GSO without NEEDS_CSUM");
            ensure!(self.gso_size > 0, "GSO with size 0");
            ensure!(usize::from(self.hdr_len) <= frame.len(), "header length {} > {}", self.hdr_len, frame.len());
        } else {
            ensure!(frame.len() <= longest, "{} bytes in one frame that is no GSO frame", frame.len());
        }
        Ok(())
    }
}

/// Completes a NEEDS_CSUM frame, as a guest's driver or a NIC would.
pub fn complete(header: &VnetHeader, frame: &mut [u8]) -> Result<()> {
    if !header.needs_checksum() {
        return Ok(());
    }
    let start = usize::from(header.csum_start);
    let field = start + usize::from(header.csum_offset);
    let covered = frame.get(start..).context("csum_start is behind the frame's end")?;
    // The field holds the pseudo-header's sum, so that summing over all of it includes that.
    let sum = match checksum::checksum(&[covered]) {
        0 if header.csum_offset == 6 => 0xffff,
        sum => sum,
    };
    frame
        .get_mut(field..field + 2)
        .context("the checksum field is behind the end")?
        .copy_from_slice(&sum.to_be_bytes());
    Ok(())
}
