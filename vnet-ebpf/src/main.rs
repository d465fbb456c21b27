//! The BPF object: entry points only.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod sockets;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use vnet_common::{
        fdb::FdbKey,
        fragment::{FragmentKey, HeldKey},
        names::expiry,
    };
    use vnet_ebpf::{
        context::{tc, tc::TcFrame, xdp::XdpFrame},
        datapath::{self, Outcome, Verdict, expire},
        tables::bpf::BpfTables,
        verifier::repeat,
    };

    #[classifier]
    pub fn port_ingress(context: TcContext) -> i32 {
        let mut frame = TcFrame::<true>::new(&context);
        let outcome = datapath::port_ingress(&mut frame, &BpfTables);
        tc_action(&frame, outcome)
    }

    #[classifier]
    pub fn gateway_egress(context: TcContext) -> i32 {
        let mut frame = TcFrame::<false>::new(&context);
        let outcome = datapath::gateway_egress(&mut frame, &BpfTables);
        tc_action(&frame, outcome)
    }

    #[classifier]
    pub fn uplink_egress(context: TcContext) -> i32 {
        let mut frame = TcFrame::<false>::new(&context);
        let outcome = datapath::uplink_egress(&mut frame, &BpfTables);
        tc_action(&frame, outcome)
    }

    #[xdp]
    pub fn port_xdp(context: XdpContext) -> u32 {
        let mut frame = XdpFrame::new(&context);
        match datapath::port_ingress(&mut frame, &BpfTables) {
            Ok(Verdict::Sent) => frame.action(),
            // Whatever TC would count or answer is TC's.
            _ => xdp_action::XDP_PASS,
        }
    }

    #[classifier]
    pub fn expire_flows(context: TcContext) -> i32 {
        for_each_key(&context, |index: &u32, mode, now| expire::expire_connection(&BpfTables, *index, mode, now))
    }

    #[classifier]
    pub fn expire_bindings(context: TcContext) -> i32 {
        for_each_key(&context, |index: &u32, mode, now| expire::expire_binding(&BpfTables, *index, mode, now))
    }

    #[classifier]
    pub fn expire_frags(context: TcContext) -> i32 {
        for_each_key(&context, |key: &FragmentKey, mode, now| expire::expire_fragment(&BpfTables, key, mode, now))
    }

    #[classifier]
    pub fn expire_held(context: TcContext) -> i32 {
        for_each_key(&context, |key: &HeldKey, mode, now| expire::expire_held(&BpfTables, key, mode, now))
    }

    #[classifier]
    pub fn expire_fdb(context: TcContext) -> i32 {
        for_each_key(&context, |key: &FdbKey, mode, now| expire::expire_fdb(&BpfTables, key, mode, now))
    }

    /// Runs over the keys behind the header; the action is how many were deleted.
    #[inline(always)]
    fn for_each_key<K: Copy>(context: &TcContext, expire: impl Fn(&K, expiry::Mode, u32) -> bool) -> i32 {
        let Ok(header) = context.load::<expiry::Header>(0) else { return 0 };
        let now = tc::coarse_seconds();
        let mut deleted = 0;
        repeat(header.count.min(const { expiry::most::<K>() }), |slot| {
            let offset = size_of::<expiry::Header>() + slot as usize * size_of::<K>();
            match context.load::<K>(offset) {
                Ok(key) => deleted += i32::from(expire(&key, expiry::Mode::from_u32(header.mode), now)),
                Err(_) => return false,
            }
            true
        });
        deleted
    }

    /// Turns an outcome into what the kernel does. tcx and clsact have the same numbers: "unspecified" is
    /// tcx's NEXT, other programs on the hook still run.
    #[inline(always)]
    fn tc_action<const AT_INGRESS: bool>(frame: &TcFrame<AT_INGRESS>, outcome: Outcome) -> i32 {
        match outcome {
            Ok(Verdict::NotOurs | Verdict::PassUp | Verdict::ToHost) => TC_ACT_UNSPEC,
            // What was dropped may have become an ICMP error, on its way back.
            Ok(Verdict::Sent) | Err(_) => frame.action(),
            Ok(Verdict::Flooded | Verdict::Kept) => TC_ACT_SHOT,
        }
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    /// Helpers such as `bpf_redirect_neigh` are for GPL programs.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
