//! The benchmark's BPF object: a source of frames, the barest forwarder, and a sink that counts.
//!
//! Globals, maps and what they mean: [`vnet_common::bench`].
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        Global,
        bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
        helpers::generated::{bpf_ktime_get_ns, bpf_redirect, bpf_redirect_peer},
        macros::{classifier, map, xdp},
        maps::PerCpuArray,
        programs::{TcContext, XdpContext},
    };
    use vnet_common::bench::{FRAME_LENGTH, MAGIC, MAGIC_OFFSET, SinkCount, SourceCount};

    const IPV4_SOURCE: usize = 26;
    const UDP_SOURCE: usize = 34;
    const UDP_DESTINATION: usize = 36;
    const UDP_CHECKSUM: usize = 40;

    /// The clock is read once in so many frames, less one: the live-frames batch.
    const CLOCK_MASK: u64 = 63;

    #[unsafe(no_mangle)]
    static TO_IFINDEX: Global<u32> = Global::new(0);
    #[unsafe(no_mangle)]
    static FRAME: Global<[u64; 8]> = Global::new([0; 8]);
    #[unsafe(no_mangle)]
    static FRAME_SUM: Global<u32> = Global::new(0);
    #[unsafe(no_mangle)]
    static VARY_DESTINATION: Global<u32> = Global::new(0);
    #[unsafe(no_mangle)]
    static FIRST_PORT: Global<u32> = Global::new(0);
    #[unsafe(no_mangle)]
    static FLOWS: Global<u32> = Global::new(1);
    #[unsafe(no_mangle)]
    static EXPECTED_SOURCE: Global<[u16; 2]> = Global::new([0; 2]);

    #[map]
    static SOURCE_COUNTS: PerCpuArray<SourceCount> = PerCpuArray::with_max_entries(1, 0);
    #[map]
    static SINK_COUNTS: PerCpuArray<SinkCount> = PerCpuArray::with_max_entries(1, 0);

    /// Writes the whole header afresh: the kernel recycles a page as the last receiver left it.
    #[xdp]
    pub fn source(context: XdpContext) -> u32 {
        let start = context.data();
        if start + FRAME_LENGTH > context.data_end() {
            return xdp_action::XDP_ABORTED;
        }
        let Some(count) = SOURCE_COUNTS.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
        // SAFETY: this CPU's own, and the kernel does not run the program inside itself.
        let port = unsafe { next_port(&mut *count) };
        // One carry at most: both are 16 bits.
        let sum = FRAME_SUM.load() + u32::from(port);
        let checksum = match !((sum & 0xffff) + (sum >> 16)) as u16 {
            0 => 0xffff,
            checksum => checksum,
        };
        let [w0, w1, w2, w3, w4, w5, w6, rest] = FRAME.load();
        // SAFETY: the frame is long enough; live frames begin at a multiple of eight bytes.
        unsafe {
            (start as *mut [u64; 7]).write([w0, w1, w2, w3, w4, w5, w6]);
            ((start + size_of::<[u64; 7]>()) as *mut u32).write(rest as u32);
            if VARY_DESTINATION.load() == 0 {
                ((start + UDP_SOURCE) as *mut u16).write(port);
            } else {
                ((start + UDP_DESTINATION) as *mut u16).write(port);
            }
            ((start + UDP_CHECKSUM) as *mut u16).write(checksum);
            bpf_redirect(TO_IFINDEX.load(), 0) as u32
        }
    }

    /// Counts the frame; its port, raw.
    #[inline(always)]
    fn next_port(count: &mut SourceCount) -> u16 {
        if count.frames & CLOCK_MASK == 0 {
            // SAFETY: a helper without arguments.
            let now = unsafe { bpf_ktime_get_ns() };
            if count.first_ns == 0 {
                count.first_ns = now;
            }
            count.last_ns = now;
        }
        count.frames += 1;
        let flow = count.next_flow as u32;
        let next = flow + 1;
        count.next_flow = if next < FLOWS.load() { u64::from(next) } else { 0 };
        ((FIRST_PORT.load() + flow) as u16).to_be()
    }

    #[classifier]
    pub fn redirect(_context: TcContext) -> i32 {
        // SAFETY: a helper with scalar arguments.
        unsafe { bpf_redirect(TO_IFINDEX.load(), 0) as i32 }
    }

    #[classifier]
    pub fn redirect_peer(_context: TcContext) -> i32 {
        // SAFETY: a helper with scalar arguments.
        unsafe { bpf_redirect_peer(TO_IFINDEX.load(), 0) as i32 }
    }

    #[classifier]
    pub fn sink(context: TcContext) -> i32 {
        let start = context.data();
        if start + FRAME_LENGTH > context.data_end() {
            return TC_ACT_UNSPEC;
        }
        // SAFETY: the frame is long enough; IP headers lie aligned in an skb.
        let (magic, source) =
            unsafe { (*((start + MAGIC_OFFSET) as *const u32), *((start + IPV4_SOURCE) as *const [u16; 2])) };
        if magic != MAGIC {
            return TC_ACT_UNSPEC;
        }
        let Some(count) = SINK_COUNTS.get_ptr_mut(0) else { return TC_ACT_UNSPEC };
        // SAFETY: this CPU's own; bottom halves are off.
        let count = unsafe { &mut *count };
        let expected = EXPECTED_SOURCE.load();
        if expected == [0; 2] || expected == source {
            count.expected += 1;
        } else {
            count.unexpected += 1;
        }
        TC_ACT_SHOT
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
