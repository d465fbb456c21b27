//! TC: the frame is an skb, with its offload metadata.

use core::mem;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_FIB_LKUP_RET_FRAG_NEEDED,
        BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
        bpf_fib_lookup, bpf_redir_neigh,
    },
    helpers::generated::{
        bpf_clone_redirect, bpf_fib_lookup as fib_lookup, bpf_get_prandom_u32, bpf_ktime_get_coarse_ns,
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room,
        bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use vnet_common::{Be16, DropReason, Ip, Mac, Seconds, fragment::HELD_BYTES};

use super::{Covers, Frame, Pod, Route, RouteQuery, Side, ZeroChecksum};
use crate::verifier;

/// `AF_INET` of the kernel.
const AF_INET: u8 = 2;

/// vnet's own mark on an skb: a frame that one of its programs handed to a device on whose other hook
/// another one runs. That program takes it off again.
const MARK: u32 = 0x766e_6574;

const NANOSECONDS: u64 = 1_000_000_000;

/// Seconds on the coarse monotonic clock.
#[inline(always)]
pub fn coarse_seconds() -> Seconds {
    // SAFETY: a helper without arguments.
    let nanoseconds = unsafe { bpf_ktime_get_coarse_ns() };
    nanoseconds.wrapping_div(NANOSECONDS) as Seconds
}

/// A frame at a TC hook, ingress or egress.
pub struct TcFrame<const AT_INGRESS: bool> {
    skb: *mut __sk_buff,
    /// Read once: the clock costs a call.
    now: Seconds,
    /// What the last helper that sends told the program to return.
    action: i32,
}

impl<const AT_INGRESS: bool> TcFrame<AT_INGRESS> {
    #[inline(always)]
    pub fn new(context: &TcContext) -> Self {
        Self { skb: context.as_ptr().cast(), now: coarse_seconds(), action: TC_ACT_SHOT }
    }

    /// The action that sends the frame as the datapath decided; before that, the one that drops it.
    #[inline(always)]
    pub fn action(&self) -> i32 {
        self.action
    }

    /// The readable range `[data, data_end)`.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the kernel hands the program a valid `__sk_buff`, and these are its packet pointers.
        unsafe {
            let data = verifier::packet_pointer::<{ mem::offset_of!(__sk_buff, data) }, _>(self.skb);
            let data_end = verifier::packet_pointer::<{ mem::offset_of!(__sk_buff, data_end) }, _>(self.skb);
            (data, data_end)
        }
    }

    /// The place of a `T` at `offset`, if it lies within the readable range.
    #[inline(always)]
    fn place<T>(&self, offset: u32) -> Option<*mut T> {
        verifier::place(self.bounds(), offset)
    }
}

impl<const AT_INGRESS: bool> Frame for TcFrame<AT_INGRESS> {
    const COMPLETE: bool = true;
    // bpf_redirect_peer() works from TC ingress only.
    const REACHES_PEERS: bool = AT_INGRESS;

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: see `bounds`.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: see `bounds`.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: see `bounds`.
        unsafe { (*self.skb).gso_size }
    }

    #[inline(always)]
    fn metadata_tag(&self) -> Option<Be16> {
        // SAFETY: see `bounds`.
        unsafe { if (*self.skb).vlan_present == 0 { None } else { Some(Be16::new((*self.skb).vlan_tci as u16)) } }
    }

    #[inline(always)]
    fn is_marked(&self) -> bool {
        // SAFETY: see `bounds`.
        unsafe { (*self.skb).mark == MARK }
    }

    #[inline(always)]
    fn set_marked(&mut self, marked: bool) {
        // SAFETY: `mark` is writable for TC programs.
        unsafe { (*self.skb).mark = if marked { MARK } else { 0 } }
    }

    #[inline(always)]
    fn pull(&mut self, length: u32) {
        let (data, data_end) = self.bounds();
        if data.wrapping_add(length as usize) > data_end {
            let length = length.min(self.len());
            // SAFETY: the skb is valid. A failure leaves the range as it was, and reads fail.
            let _ = unsafe { bpf_skb_pull_data(self.skb, length) };
        }
    }

    #[inline(always)]
    fn read<T: Pod>(&self, offset: u32) -> Option<T> {
        // SAFETY: `place` checked the bounds, any bytes are a `T`.
        self.place::<T>(offset).map(|place| unsafe { place.read_unaligned() })
    }

    #[inline(always)]
    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Result<(), DropReason> {
        let place = self.place::<T>(offset).ok_or(DropReason::RewriteFailed)?;
        // SAFETY: `place` checked the bounds; the verifier's prologue has made the data private.
        unsafe { place.write_unaligned(value) };
        Ok(())
    }

    #[inline(always)]
    fn update_l4_checksum(
        &mut self,
        offset: u32,
        diff: u32,
        covers: Covers,
        zero: ZeroChecksum,
    ) -> Result<(), DropReason> {
        // Size 0 in the low bits: `to` is a checksum difference (net/core/filter.c).
        let mut flags = 0u64;
        if covers == Covers::PseudoHeader {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if zero == ZeroChecksum::Absent {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        // SAFETY: the helper checks offset and skb.
        let result = unsafe { bpf_l4_csum_replace(self.skb, offset, 0, u64::from(diff), flags) };
        if result == 0 { Ok(()) } else { Err(DropReason::RewriteFailed) }
    }

    #[inline(always)]
    fn byte(&mut self, offset: u32) -> Option<u8> {
        let mut byte = 0u8;
        // SAFETY: the skb is valid, and `byte` has room for the one asked for.
        let result = unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, (&raw mut byte).cast(), 1) };
        if result == 0 { Some(byte) } else { None }
    }

    #[inline(always)]
    fn repeat(&mut self, turns: u32, mut step: impl FnMut(&mut Self, u32) -> bool) {
        verifier::repeat(turns, |turn| step(self, turn));
    }

    #[inline(always)]
    fn quote(&mut self, length: u32, room: u32) -> Result<(), DropReason> {
        // First the tail: it takes the segmentation off, which growing a UDP GSO frame would be refused for
        // (bpf_skb_net_grow(), net/core/filter.c). It makes the frame linear, too.
        // SAFETY: the skb is valid; the helpers check their arguments.
        let result = unsafe {
            match bpf_skb_change_tail(self.skb, length, 0) {
                0 => bpf_skb_adjust_room(self.skb, room as i32, BPF_ADJ_ROOM_MAC, 0),
                refused => refused,
            }
        };
        self.pull(length.wrapping_add(room));
        if result == 0 { Ok(()) } else { Err(DropReason::RewriteFailed) }
    }

    #[inline(always)]
    fn copy_out(&mut self, bytes: &mut [u8; HELD_BYTES]) -> u32 {
        let length = verifier::size::<HELD_BYTES>(self.len());
        if length == 0 {
            return 0;
        }
        // SAFETY: the skb is valid, and `bytes` has room for the length.
        let result = unsafe { bpf_skb_load_bytes(self.skb.cast(), 0, bytes.as_mut_ptr().cast(), length) };
        if result == 0 { length } else { 0 }
    }

    #[inline(always)]
    fn become_copy(&mut self, bytes: &[u8; HELD_BYTES], length: u32) -> bool {
        let length = verifier::size::<HELD_BYTES>(length);
        if length == 0 {
            return false;
        }
        // SAFETY: the skb is valid, and `bytes` holds the length.
        unsafe {
            bpf_skb_change_tail(self.skb, length, 0) == 0
                && bpf_skb_store_bytes(self.skb, 0, bytes.as_ptr().cast(), length, 0) == 0
        }
    }

    #[inline(always)]
    fn route(&mut self, query: &RouteQuery) -> Route {
        route(self.skb.cast(), query)
    }

    #[inline(always)]
    fn redirect(&mut self, ifindex: u32, side: Side) {
        // SAFETY: helpers with scalar arguments.
        self.action = unsafe {
            match side {
                Side::Peer => bpf_redirect_peer(ifindex, 0),
                side => bpf_redirect(ifindex, flags(side)),
            }
        } as i32;
    }

    #[inline(always)]
    fn resolve(&mut self, ifindex: u32, next_hop: Ip) {
        self.action = redirect_neigh(ifindex, next_hop.v4_raw());
    }

    #[inline(always)]
    fn clone_to(&mut self, ifindex: u32, side: Side) -> bool {
        // SAFETY: the skb is valid; the helper checks the index.
        unsafe { bpf_clone_redirect(self.skb, ifindex, flags(side)) == 0 }
    }

    #[inline(always)]
    fn now(&self) -> Seconds {
        self.now
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }
}

#[inline(always)]
const fn flags(side: Side) -> u64 {
    match side {
        Side::Egress | Side::Peer => 0,
        Side::Host => BPF_F_INGRESS as u64,
    }
}

/// Notes the kernel's own way of addressing and sending the frame; it happens when the program returns
/// `TC_ACT_REDIRECT`.
#[inline(never)]
fn redirect_neigh(ifindex: u32, next_hop: u32) -> i32 {
    // SAFETY: all zero is a value of this C struct.
    let mut params: bpf_redir_neigh = unsafe { mem::zeroed() };
    params.nh_family = u32::from(AF_INET);
    params.__bindgen_anon_1.ipv4_nh = next_hop;
    let size = mem::size_of::<bpf_redir_neigh>() as i32;
    // SAFETY: params is valid for the length given.
    unsafe { bpf_redirect_neigh(ifindex, &raw mut params, size, 0) as i32 }
}

/// The length is left 0: MTU is judged by the datapath. The kernel then compares the skb's own with the device
/// (bpf_skb_fib_lookup() in net/core/filter.c), after it has found the way: what it says to that is no matter.
///
/// A function of its own: its 64-byte parameter block would not fit on the caller's stack.
#[inline(never)]
fn route(context: *mut core::ffi::c_void, query: &RouteQuery) -> Route {
    // SAFETY: all zero is a value of this C struct.
    let mut params: bpf_fib_lookup = unsafe { mem::zeroed() };
    params.family = AF_INET;
    params.l4_protocol = query.protocol;
    params.sport = query.src_port.raw();
    params.dport = query.dst_port.raw();
    params.ifindex = query.ifindex;
    params.__bindgen_anon_2.tos = query.tos;
    params.__bindgen_anon_3.ipv4_src = query.src.v4_raw();
    params.__bindgen_anon_4.ipv4_dst = query.dst.v4_raw();
    let size = mem::size_of::<bpf_fib_lookup>() as i32;
    // SAFETY: context and params are valid, the size is that of params.
    let result = unsafe { fib_lookup(context, &raw mut params, size, 0) };
    const SUCCESS: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
    const TOO_LONG: i64 = BPF_FIB_LKUP_RET_FRAG_NEEDED as i64;
    const NO_NEIGHBOUR: i64 = BPF_FIB_LKUP_RET_NO_NEIGH as i64;
    match result {
        SUCCESS | TOO_LONG => {
            Route::Via { ifindex: params.ifindex, src_mac: Mac(params.smac), dst_mac: Mac(params.dmac) }
        }
        NO_NEIGHBOUR => Route::Unresolved {
            ifindex: params.ifindex,
            // SAFETY: the kernel has put the next hop where the destination stood.
            next_hop: Ip::from_v4_raw(unsafe { params.__bindgen_anon_4.ipv4_dst }),
        },
        _ => Route::None,
    }
}
