//! Socket calls at a cgroup (`struct bpf_sock_addr`).

use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_get_netns_cookie,
    programs::SockAddrContext,
};
use vnet_common::{
    Be16, Ip,
    socket::{Detours, Endpoint},
};

use super::socket::SocketCall;
use crate::maps;

/// See [`vnet_common::names::global`]. Constant when the verifier looks.
#[unsafe(no_mangle)]
pub static HOST_NETNS: u64 = 0;

/// State of a connected socket, UDP's too (`BPF_TCP_ESTABLISHED`).
const ESTABLISHED: u32 = 1;

/// A call with an IPv4 address in it, or (`V6`) one with an IPv6 address.
///
/// Every access is volatile: LLVM would join neighbouring fields, and the kernel wants each alone ("invalid
/// bpf_context access").
pub struct SockAddr<'a, const V6: bool> {
    context: &'a SockAddrContext,
}

impl<'a, const V6: bool> SockAddr<'a, V6> {
    #[inline(always)]
    pub fn new(context: &'a SockAddrContext) -> Self {
        Self { context }
    }

    #[inline(always)]
    fn fields(&self) -> *mut bpf_sock_addr {
        self.context.sock_addr
    }

    /// Never null at these hooks.
    #[inline(always)]
    fn socket(&self) -> *mut bpf_sock {
        // SAFETY: a field of this program's context.
        unsafe { read_volatile(addr_of!((*self.fields()).__bindgen_anon_1.sk)) }
    }
}

impl<const V6: bool> SocketCall for SockAddr<'_, V6> {
    #[inline(always)]
    fn is_here(&self) -> bool {
        // SAFETY: the helper takes this program's context; the word is the object's own, read as the daemon
        // set it and not as it stands here.
        unsafe { bpf_get_netns_cookie(self.fields().cast()) == read_volatile(&raw const HOST_NETNS) }
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        // SAFETY: a field of this program's context.
        unsafe { read_volatile(addr_of!((*self.fields()).protocol)) as u8 }
    }

    #[inline(always)]
    fn local_address(&self) -> Ip {
        // SAFETY: a field of the context's socket.
        Ip::from_v4_raw(unsafe { read_volatile(addr_of!((*self.socket()).src_ip4)) })
    }

    #[inline(always)]
    fn is_connected(&self) -> bool {
        // SAFETY: a field of the context's socket.
        unsafe { read_volatile(addr_of!((*self.socket()).state)) == ESTABLISHED }
    }

    #[inline(always)]
    fn peer(&self) -> Endpoint {
        let fields = self.fields();
        // SAFETY: fields of this program's context; the port is a word whose first two bytes count.
        unsafe {
            let address = if V6 {
                let words = addr_of!((*fields).user_ip6).cast::<u32>();
                Ip::from_v6_raw([0, 1, 2, 3].map(|index| read_volatile(words.add(index))))
            } else {
                Ip::from_v4_raw(read_volatile(addr_of!((*fields).user_ip4)))
            };
            let port = read_volatile(addr_of!((*fields).user_port)) as u16;
            Endpoint::new(address, Be16::from_bytes(port.to_ne_bytes()))
        }
    }

    #[inline(always)]
    fn set_peer(&mut self, peer: Endpoint) {
        let fields = self.fields();
        // SAFETY: fields of this program's context.
        unsafe {
            if V6 {
                // The words before it say "IPv4-mapped", and so they did.
                write_volatile(addr_of_mut!((*fields).user_ip6[3]), peer.address.v4_raw());
            } else {
                write_volatile(addr_of_mut!((*fields).user_ip4), peer.address.v4_raw());
            }
            write_volatile(addr_of_mut!((*fields).user_port), u32::from(peer.port.raw()));
        }
    }

    #[inline(always)]
    fn detours(&mut self, begin: bool) -> Option<&mut Detours> {
        // SAFETY: the context's socket; what is kept with it lives until the program's end (RCU), and these
        // hooks run under the socket's lock.
        unsafe {
            let kept = if begin {
                maps::DETOURS.get_or_insert_ptr_mut(self.context, None)
            } else {
                maps::DETOURS.get_ptr_mut(self.context)
            };
            kept.as_mut()
        }
    }
}
