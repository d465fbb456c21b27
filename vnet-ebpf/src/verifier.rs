//! What the kernel's verifier must be shown, against what LLVM would make of it.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_loop;

/// A packet pointer out of a hook's context: the word at `OFFSET`.
///
/// In assembly, so that it comes as a 64-bit register, anew each time: LLVM would spill the word as 32
/// bits ("invalid size of register spill") or carry it across calls that move the packet.
///
/// # Safety
/// `context` is the program's context, and the word at `OFFSET` is `data` or `data_end`.
#[inline(always)]
pub unsafe fn packet_pointer<const OFFSET: usize, C>(context: *const C) -> usize {
    let pointer: u64;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("{pointer} = *(u32 *)({context} + {offset})", pointer = out(reg) pointer, context = in(reg) context,
            offset = const OFFSET, options(readonly, nostack));
    }
    pointer as usize
}

/// Offsets into a packet stay below this power of two, so that the verifier follows them
/// (`MAX_PACKET_OFF` in kernel/bpf/verifier.c); headers end far before.
const MAX_OFFSET: usize = 1 << 15;

/// The place of a `T` at `offset` within `data..data_end`, if it fits.
#[inline(always)]
pub fn place<T>((data, data_end): (usize, usize), offset: u32) -> Option<*mut T> {
    let start = data.wrapping_add(offset as usize & (MAX_OFFSET - 1));
    if start.wrapping_add(size_of::<T>()) > data_end {
        return None;
    }
    // SAFETY: packets begin at even addresses (NET_IP_ALIGN and XDP_PACKET_HEADROOM are even), and so does
    // each of their headers. It spares every second load.
    unsafe { core::hint::assert_unchecked(start.is_multiple_of(2)) };
    Some(start as *mut T)
}

/// The same number, about which LLVM knows nothing: a bounds check on it stays in the program.
#[inline(always)]
pub fn unknown(number: usize) -> usize {
    let copy: u64;
    // SAFETY: a move. (Without any instruction, aya would get two source lines for the next one, which
    // the kernel refuses: "Invalid line_info".)
    unsafe { asm!("{copy} = {number}", copy = out(reg) copy, number = in(reg) number as u64, options(nomem, nostack)) };
    copy as usize
}

/// A length that helpers take for a buffer of `MOST` bytes (a power of two): below it, and no runt; 0 for
/// any other.
#[inline(always)]
pub fn size<const MOST: usize>(length: u32) -> u32 {
    let size = unknown(length as usize) & const { MOST - 1 };
    // Compared by order: kernels before 6.8 learn nothing of a comparison with zero ("invalid zero-sized read").
    if size < 14 || size != length as usize { 0 } else { size as u32 }
}

/// Calls `body` with 0, 1, … below `count`, until it returns false.
///
/// `bpf_loop` (kernel ≥ 5.17): an unrolled walk over a thousand ports costs the verifier its patience
/// ("The sequence of 8193 jumps is too complex").
#[inline(always)]
pub fn repeat<B: FnMut(u32) -> bool>(count: u32, mut body: B) {
    // SAFETY: the callback gets the address of `body`, which outlives the call.
    unsafe { bpf_loop(count, step::<B> as *mut _, (&raw mut body).cast(), 0) };
}

/// One turn; 1 ends the loop.
unsafe extern "C" fn step<B: FnMut(u32) -> bool>(index: u32, body: *mut B) -> i64 {
    // SAFETY: `repeat` passes the address of a live `B`, and nothing else refers to it meanwhile.
    let body = unsafe { &mut *body };
    i64::from(!body(index))
}
