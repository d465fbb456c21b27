//! IPv4 packets cut into fragments (RFC 791).

use crate::frame::Ipv4;

/// "More fragments" in the header's word of flags and offset.
pub const MORE: u16 = 0x2000;

impl Ipv4 {
    /// The bytes of the payload from `start` to `end` as a fragment. `start` is a multiple of eight.
    pub fn piece(&self, start: usize, end: usize) -> Self {
        let more = if end < self.payload.len() { MORE } else { 0 };
        let fragment = more | (start / 8) as u16;
        Self { payload: self.payload[start..end].to_vec(), fragment, ..self.clone() }
    }

    /// All of it, in fragments of at most `size` bytes of payload, a multiple of eight.
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        let length = self.payload.len();
        (0..length).step_by(size).map(|start| self.piece(start, length.min(start + size))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_the_whole_and_only_the_last_ends_it() {
        let [a, b] = ["192.0.2.1:1000", "192.0.2.2:2000"].map(|text| text.parse().expect("an address"));
        let whole = Ipv4::udp(a, b, &(0..100).collect::<Vec<u8>>());
        let pieces = whole.fragments(40);
        assert_eq!(pieces.iter().map(|piece| piece.fragment).collect::<Vec<_>>(), [MORE, MORE | 5, 10]);
        assert_eq!(pieces.iter().flat_map(|piece| piece.payload.clone()).collect::<Vec<_>>(), whole.payload);
    }
}
