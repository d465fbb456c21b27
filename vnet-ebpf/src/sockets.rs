//! The BPF object's entry points at a cgroup: calls of the host's own sockets.
//!
//! IPv6 sockets are here for the IPv4-mapped addresses that they name. There is no sendmsg6: the kernel hands
//! a datagram for a mapped address to sendmsg4 (`udpv6_sendmsg()`).

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use vnet_ebpf::{context::sock_addr::SockAddr, datapath::socket, tables::bpf::BpfTables};

/// Let the call go on (the only answer that recvmsg and getpeername may give).
const GO_ON: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn host_connect4(context: SockAddrContext) -> i32 {
    socket::connect(&mut SockAddr::<false>::new(&context), &BpfTables);
    GO_ON
}

#[cgroup_sock_addr(connect6)]
pub fn host_connect6(context: SockAddrContext) -> i32 {
    socket::connect(&mut SockAddr::<true>::new(&context), &BpfTables);
    GO_ON
}

#[cgroup_sock_addr(sendmsg4)]
pub fn host_sendmsg4(context: SockAddrContext) -> i32 {
    socket::send(&mut SockAddr::<false>::new(&context), &BpfTables);
    GO_ON
}

#[cgroup_sock_addr(recvmsg4)]
pub fn host_recvmsg4(context: SockAddrContext) -> i32 {
    socket::show_asked(&mut SockAddr::<false>::new(&context));
    GO_ON
}

#[cgroup_sock_addr(recvmsg6)]
pub fn host_recvmsg6(context: SockAddrContext) -> i32 {
    socket::show_asked(&mut SockAddr::<true>::new(&context));
    GO_ON
}

#[cgroup_sock_addr(getpeername4)]
pub fn host_peername4(context: SockAddrContext) -> i32 {
    socket::show_asked(&mut SockAddr::<false>::new(&context));
    GO_ON
}

#[cgroup_sock_addr(getpeername6)]
pub fn host_peername6(context: SockAddrContext) -> i32 {
    socket::show_asked(&mut SockAddr::<true>::new(&context));
    GO_ON
}
