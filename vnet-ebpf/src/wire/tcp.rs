//! TCP options (RFC 9293 section 3.1), as far as forwarding looks at them.

/// Kind of the option that ends the list, of the one that fills a byte, and of the maximum segment size.
pub const END_OF_LIST: u8 = 0;
pub const NO_OPERATION: u8 = 1;
pub const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// Bytes of the latter, kind and length included; the size is in the last two.
pub const MAXIMUM_SEGMENT_SIZE_LENGTH: u8 = 4;

/// Options in the longest header: forty of one byte.
pub const MAX_OPTIONS: u32 = 40;

/// Bytes of IPv4 and TCP headers without options: what an MTU leaves for a segment is without them.
pub const HEADERS_IPV4: u16 = 40;
