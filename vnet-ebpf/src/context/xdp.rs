//! XDP: the frame is bare bytes. Offload metadata does not exist here, nor do routes and copies: what
//! needs them is passed up to TC.

use core::mem;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{bpf_get_prandom_u32, bpf_redirect},
    programs::XdpContext,
};
use vnet_common::{Be16, DropReason, Ip, Seconds, fragment::HELD_BYTES};

use super::{Covers, Frame, Pod, Route, RouteQuery, Side, ZeroChecksum, tc::coarse_seconds};
use crate::{verifier, wire::checksum};

/// A frame at the XDP hook.
pub struct XdpFrame {
    md: *mut xdp_md,
    now: Seconds,
    action: u32,
}

impl XdpFrame {
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self { md: context.ctx, now: coarse_seconds(), action: xdp_action::XDP_PASS }
    }

    /// The action that sends the frame as the datapath decided.
    #[inline(always)]
    pub fn action(&self) -> u32 {
        self.action
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the kernel hands the program a valid `xdp_md`, and these are its packet pointers.
        unsafe {
            let data = verifier::packet_pointer::<{ mem::offset_of!(xdp_md, data) }, _>(self.md);
            let data_end = verifier::packet_pointer::<{ mem::offset_of!(xdp_md, data_end) }, _>(self.md);
            (data, data_end)
        }
    }

    #[inline(always)]
    fn place<T>(&self, offset: u32) -> Option<*mut T> {
        verifier::place(self.bounds(), offset)
    }
}

impl Frame for XdpFrame {
    const COMPLETE: bool = false;
    const REACHES_PEERS: bool = false;

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: see `bounds`.
        unsafe { (*self.md).ingress_ifindex }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        let (data, data_end) = self.bounds();
        data_end.wrapping_sub(data) as u32
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn metadata_tag(&self) -> Option<Be16> {
        None
    }

    #[inline(always)]
    fn is_marked(&self) -> bool {
        false
    }

    #[inline(always)]
    fn set_marked(&mut self, _marked: bool) {}

    #[inline(always)]
    fn pull(&mut self, _length: u32) {}

    #[inline(always)]
    fn read<T: Pod>(&self, offset: u32) -> Option<T> {
        // SAFETY: `place` checked the bounds, any bytes are a `T`.
        self.place::<T>(offset).map(|place| unsafe { place.read_unaligned() })
    }

    #[inline(always)]
    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Result<(), DropReason> {
        let place = self.place::<T>(offset).ok_or(DropReason::RewriteFailed)?;
        // SAFETY: `place` checked the bounds; XDP owns the packet's memory.
        unsafe { place.write_unaligned(value) };
        Ok(())
    }

    #[inline(always)]
    fn update_l4_checksum(
        &mut self,
        offset: u32,
        diff: u32,
        _covers: Covers,
        zero: ZeroChecksum,
    ) -> Result<(), DropReason> {
        let old: [u8; 2] = self.read(offset).ok_or(DropReason::RewriteFailed)?;
        let new = checksum::updated(u16::from_ne_bytes(old), diff, zero);
        self.write(offset, new.to_ne_bytes())
    }

    #[inline(always)]
    fn byte(&mut self, _offset: u32) -> Option<u8> {
        None
    }

    #[inline(always)]
    fn repeat(&mut self, turns: u32, mut step: impl FnMut(&mut Self, u32) -> bool) {
        verifier::repeat(turns, |turn| step(self, turn));
    }

    #[inline(always)]
    fn quote(&mut self, _length: u32, _room: u32) -> Result<(), DropReason> {
        Err(DropReason::RewriteFailed)
    }

    #[inline(always)]
    fn copy_out(&mut self, _bytes: &mut [u8; HELD_BYTES]) -> u32 {
        0
    }

    #[inline(always)]
    fn become_copy(&mut self, _bytes: &[u8; HELD_BYTES], _length: u32) -> bool {
        false
    }

    #[inline(always)]
    fn route(&mut self, _query: &RouteQuery) -> Route {
        Route::None
    }

    #[inline(always)]
    fn redirect(&mut self, ifindex: u32, side: Side) {
        if side == Side::Egress {
            // SAFETY: a helper with scalar arguments.
            self.action = unsafe { bpf_redirect(ifindex, 0) as u32 };
        }
    }

    #[inline(always)]
    fn resolve(&mut self, _ifindex: u32, _next_hop: Ip) {}

    #[inline(always)]
    fn clone_to(&mut self, _ifindex: u32, _side: Side) -> bool {
        false
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
