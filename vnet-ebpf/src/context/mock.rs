//! Plain memory behind [`Frame`]: for tests, property tests and fuzzing.
//!
//! `MockFrame<true>` is a frame at TC ingress (`MockFrame<true, false>`: egress): offload metadata, a linear part, and checksum updates with the
//! semantics of `bpf_l4_csum_replace` (net/core/filter.c) for complete and for partial checksums.
//! `MockFrame<false>` is the same frame as XDP sees it: bare bytes. What the kernel would be asked for,
//! or told, is in [`MockKernel`] and in the frame's own records.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    rc::Rc,
};

use vnet_common::{Be16, DropReason, Ip, Seconds, fragment::HELD_BYTES};

use super::{Covers, Frame, Pod, Route, RouteQuery, Side, ZeroChecksum};
use crate::wire::checksum;

/// `bpf_l4_csum_replace` refuses offsets above it.
const MAX_CHECKSUM_OFFSET: u32 = 0xffff;

/// What the kernel knows and does, shared by all frames of a test.
#[derive(Clone, Default)]
pub struct MockKernel {
    /// The coarse monotonic clock.
    pub now: Cell<Seconds>,
    /// Devices that refuse copies.
    pub refuses_copies: RefCell<HashSet<u32>>,
    /// What the routing table was asked, in order.
    pub queries: RefCell<Vec<RouteQuery>>,
    routes: RefCell<Vec<MockRoute>>,
    random: Cell<u32>,
}

/// A line of the routing table.
#[derive(Clone, Copy, Debug)]
struct MockRoute {
    prefix: Ip,
    length: u8,
    route: Route,
}

impl MockKernel {
    /// A kernel without routes, whose random numbers follow from `seed`.
    pub fn new(seed: u32) -> Self {
        Self { random: Cell::new(seed), ..Self::default() }
    }

    /// Adds a route, or puts it in the place of the one with this very prefix (its length counts over
    /// the 128 bits of [`Ip`]).
    pub fn set_route(&self, prefix: Ip, length: u8, route: Route) {
        let mut routes = self.routes.borrow_mut();
        routes.retain(|other| (other.prefix, other.length) != (prefix, length));
        routes.push(MockRoute { prefix, length, route });
    }

    fn route(&self, query: &RouteQuery) -> Route {
        self.queries.borrow_mut().push(*query);
        let routes = self.routes.borrow();
        let holding = routes.iter().filter(|route| query.dst.in_prefix(&route.prefix, route.length));
        holding.max_by_key(|route| route.length).map_or(Route::None, |route| route.route)
    }

    /// A linear congruential generator (Knuth's constants): the same numbers in every run.
    fn random(&self) -> u32 {
        let next = self.random.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.random.set(next);
        next
    }
}

/// What a frame's L4 checksum holds (`skb->ip_summed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The sum of all (`CHECKSUM_NONE`, `CHECKSUM_UNNECESSARY`).
    Complete,
    /// The pseudo-header's only; the device adds the rest (`CHECKSUM_PARTIAL`).
    Partial,
}

/// What becomes of the frame itself when the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    Redirected { ifindex: u32, side: Side },
    Resolved { ifindex: u32, next_hop: Ip },
}

/// A copy that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentCopy {
    pub ifindex: u32,
    pub side: Side,
    pub bytes: Vec<u8>,
    pub marked: bool,
}

/// A frame in memory.
#[derive(Clone)]
pub struct MockFrame<const COMPLETE: bool, const AT_INGRESS: bool = true> {
    kernel: Rc<MockKernel>,
    pub bytes: Vec<u8>,
    pub ifindex: u32,
    /// The outer VLAN tag's control word, where it is not in `bytes`.
    pub tag: Option<Be16>,
    pub gso_size: u32,
    pub checksum: Checksum,
    /// Bytes that can be read without [`Frame::pull`].
    pub linear: usize,
    pub marked: bool,
    pub departure: Option<Departure>,
    pub copies: Vec<SentCopy>,
}

impl<const COMPLETE: bool, const AT_INGRESS: bool> MockFrame<COMPLETE, AT_INGRESS> {
    /// A linear frame with a complete checksum, on the ingress (or egress) of a device.
    pub fn new(kernel: &Rc<MockKernel>, ifindex: u32, bytes: Vec<u8>) -> Self {
        Self {
            kernel: Rc::clone(kernel),
            linear: bytes.len(),
            bytes,
            ifindex,
            tag: None,
            gso_size: 0,
            checksum: Checksum::Complete,
            marked: false,
            departure: None,
            copies: Vec::new(),
        }
    }

    /// Where a `T` at `offset` lies, if it can be read.
    fn place<T>(&self, offset: u32) -> Option<std::ops::Range<usize>> {
        let start = offset as usize;
        let end = start.checked_add(size_of::<T>())?;
        let readable = if COMPLETE { self.linear.min(self.bytes.len()) } else { self.bytes.len() };
        if end <= readable { Some(start..end) } else { None }
    }

    fn checksum_at(&mut self, offset: u32) -> Option<&mut [u8; 2]> {
        let start = offset as usize;
        self.bytes.get_mut(start..start.checked_add(2)?)?.try_into().ok()
    }
}

/// The kernel's `csum_add`.
const fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(carry as u32)
}

/// `inet_proto_csum_replace_by_diff` (net/core/utils.c), without `CHECKSUM_COMPLETE`'s second book.
fn replaced_by_diff(old: u16, diff: u32, checksum: Checksum, covers: Covers) -> u16 {
    match (checksum, covers) {
        (Checksum::Complete, _) => !checksum::fold(add(diff, !u32::from(old))),
        (Checksum::Partial, Covers::PseudoHeader) => checksum::fold(add(diff, u32::from(old))),
        (Checksum::Partial, Covers::Segment) => old,
    }
}

impl<const COMPLETE: bool, const AT_INGRESS: bool> Frame for MockFrame<COMPLETE, AT_INGRESS> {
    const COMPLETE: bool = COMPLETE;
    const REACHES_PEERS: bool = COMPLETE && AT_INGRESS;

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn len(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn gso_size(&self) -> u32 {
        if COMPLETE { self.gso_size } else { 0 }
    }

    fn metadata_tag(&self) -> Option<Be16> {
        if COMPLETE { self.tag } else { None }
    }

    fn is_marked(&self) -> bool {
        COMPLETE && self.marked
    }

    fn set_marked(&mut self, marked: bool) {
        self.marked = COMPLETE && marked;
    }

    fn pull(&mut self, length: u32) {
        self.linear = self.linear.max(self.bytes.len().min(length as usize));
    }

    fn read<T: Pod>(&self, offset: u32) -> Option<T> {
        let bytes = self.bytes.get(self.place::<T>(offset)?)?;
        // SAFETY: the slice has the size of a `T`, and any bytes are a `T`.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Result<(), DropReason> {
        let place = self.place::<T>(offset).ok_or(DropReason::RewriteFailed)?;
        let bytes = self.bytes.get_mut(place).ok_or(DropReason::RewriteFailed)?;
        // SAFETY: the slice has the size of a `T`, and a `T` has no padding.
        unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) };
        Ok(())
    }

    fn update_l4_checksum(
        &mut self,
        offset: u32,
        diff: u32,
        covers: Covers,
        zero: ZeroChecksum,
    ) -> Result<(), DropReason> {
        let kind = self.checksum;
        if COMPLETE && (offset > MAX_CHECKSUM_OFFSET || offset & 1 != 0) {
            return Err(DropReason::RewriteFailed);
        }
        let field = self.checksum_at(offset).ok_or(DropReason::RewriteFailed)?;
        let old = u16::from_ne_bytes(*field);
        let new = match (COMPLETE, zero) {
            (false, _) => checksum::updated(old, diff, zero),
            (true, ZeroChecksum::Absent) if old == 0 => 0,
            (true, ZeroChecksum::Absent) => match replaced_by_diff(old, diff, kind, covers) {
                0 => 0xffff,
                sum => sum,
            },
            (true, ZeroChecksum::Ordinary) => replaced_by_diff(old, diff, kind, covers),
        };
        *field = new.to_ne_bytes();
        Ok(())
    }

    fn byte(&mut self, offset: u32) -> Option<u8> {
        if COMPLETE { self.bytes.get(offset as usize).copied() } else { None }
    }

    fn repeat(&mut self, turns: u32, mut step: impl FnMut(&mut Self, u32) -> bool) {
        (0..turns).all(|turn| step(self, turn));
    }

    fn quote(&mut self, length: u32, room: u32) -> Result<(), DropReason> {
        let length = length as usize;
        if !COMPLETE || self.tag.is_some() || length > self.bytes.len() {
            return Err(DropReason::RewriteFailed);
        }
        self.bytes.truncate(length);
        let behind_ethernet = 14;
        self.bytes.splice(behind_ethernet..behind_ethernet, vec![0; room as usize]);
        self.linear = self.bytes.len();
        self.gso_size = 0;
        Ok(())
    }

    fn copy_out(&mut self, bytes: &mut [u8; HELD_BYTES]) -> u32 {
        match bytes.get_mut(..self.bytes.len()) {
            Some(place) if COMPLETE => {
                place.copy_from_slice(&self.bytes);
                self.len()
            }
            _ => 0,
        }
    }

    fn become_copy(&mut self, bytes: &[u8; HELD_BYTES], length: u32) -> bool {
        let Some(copy) = bytes.get(..length as usize) else { return false };
        self.bytes = copy.to_vec();
        self.linear = self.bytes.len();
        COMPLETE
    }

    fn route(&mut self, query: &RouteQuery) -> Route {
        if COMPLETE { self.kernel.route(query) } else { Route::None }
    }

    fn redirect(&mut self, ifindex: u32, side: Side) {
        if COMPLETE || side == Side::Egress {
            self.departure = Some(Departure::Redirected { ifindex, side });
        }
    }

    fn resolve(&mut self, ifindex: u32, next_hop: Ip) {
        if COMPLETE {
            self.departure = Some(Departure::Resolved { ifindex, next_hop });
        }
    }

    fn clone_to(&mut self, ifindex: u32, side: Side) -> bool {
        if !COMPLETE || self.kernel.refuses_copies.borrow().contains(&ifindex) {
            return false;
        }
        self.copies.push(SentCopy { ifindex, side, bytes: self.bytes.clone(), marked: self.marked });
        true
    }

    fn now(&self) -> Seconds {
        self.kernel.now.get()
    }

    fn random(&self) -> u32 {
        self.kernel.random()
    }
}
