//! Sockets made inside a namespace, and a packet socket on one of its devices.

use std::{
    ffi::CString,
    io,
    mem::{size_of, zeroed},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket,
            sockopt::{ReceiveTimeout, ReuseAddr, SendTimeout},
        },
        time::{TimeVal, TimeValLike},
    },
};

use crate::namespace::Namespace;

/// Longest silence in any conversation of the tests.
pub const SILENCE: Duration = Duration::from_secs(15);

/// Connects from a given local port (0: any). Neither connecting nor reading waits longer than `within`.
pub fn connect_from(inside: &Namespace, port: u16, to: SocketAddrV4, within: Duration) -> Result<TcpStream> {
    inside.enter(|| {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let limit = TimeVal::milliseconds(i64::try_from(within.as_millis())?);
        setsockopt(&fd, SendTimeout, &limit)?;
        setsockopt(&fd, ReceiveTimeout, &limit)?;
        setsockopt(&fd, ReuseAddr, &true)?;
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
        connect(fd.as_raw_fd(), &SockaddrIn::from(to)).with_context(|| format!("connecting to {to}"))?;
        Ok(TcpStream::from(fd))
    })
}

/// True when `fd` can be read before the time is over.
pub fn readable(fd: &impl AsFd, within: Duration) -> Result<bool> {
    let timeout = PollTimeout::try_from(within)?;
    Ok(poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout)? > 0)
}

/// A frame as a packet socket hands it over, and what the kernel says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From the Ethernet header on; a tag kept in the metadata is put back.
    pub bytes: Vec<u8>,
    /// On its way out of the device.
    pub outgoing: bool,
    /// Its checksum is still to be completed (CHECKSUM_PARTIAL).
    pub partial: bool,
}

/// An AF_PACKET socket bound to one device, for every protocol.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    pub fn open(inside: &Namespace, device: &str) -> Result<Self> {
        inside.enter(|| Self::open_here(device).with_context(|| format!("packet socket on {device}")))
    }

    fn open_here(device: &str) -> Result<Self> {
        let every_protocol = (libc::ETH_P_ALL as u16).to_be();
        let name = CString::new(device)?;
        // SAFETY: a system call on integers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        check(fd)?;
        // SAFETY: the descriptor was just made and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let on: libc::c_int = 1;
        let room: libc::c_int = 32 << 20;
        for (level, option, value) in
            [(libc::SOL_PACKET, libc::PACKET_AUXDATA, on), (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, room)]
        {
            // SAFETY: `value` lives through the call and the length is its own.
            check(unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    level,
                    option,
                    ptr::from_ref(&value).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            })?;
        }
        // SAFETY: `name` is a C string that lives through the call.
        let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
        anyhow::ensure!(ifindex != 0, "no such device");
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = every_protocol;
        address.sll_ifindex = i32::try_from(ifindex)?;
        // SAFETY: `address` is a sockaddr_ll of the length given.
        check(unsafe {
            libc::bind(
                fd.as_raw_fd(),
                ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        })?;
        Ok(Self { fd })
    }

    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = nix::sys::socket::send(self.fd.as_raw_fd(), frame, nix::sys::socket::MsgFlags::empty())?;
        anyhow::ensure!(sent == frame.len(), "sent {sent} of {} bytes", frame.len());
        Ok(())
    }

    /// The next frame, or none before the time is over.
    pub fn receive(&self, within: Duration) -> Result<Option<Packet>> {
        if !readable(&self.fd, within)? {
            return Ok(None);
        }
        let mut bytes = vec![0_u8; 70_000];
        let mut control = [0_u64; 16];
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut from: libc::sockaddr_ll = unsafe { zeroed() };
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: all-zero bytes are a valid msghdr.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_name = ptr::from_mut(&mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: every pointer in `message` is to a local that lives through the call, with its length.
        let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        check(i32::try_from(length)?)?;
        bytes.truncate(usize::try_from(length)?);
        let auxiliary = auxiliary_data(&message);
        if auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
            let tag = [0x8100_u16.to_be_bytes(), auxiliary.tp_vlan_tci.to_be_bytes()].concat();
            bytes.splice(12..12, tag);
        }
        Ok(Some(Packet {
            bytes,
            outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
            partial: auxiliary.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0,
        }))
    }
}

fn auxiliary_data(message: &libc::msghdr) -> libc::tpacket_auxdata {
    // SAFETY: all-zero bytes are a valid tpacket_auxdata.
    let mut data: libc::tpacket_auxdata = unsafe { zeroed() };
    // SAFETY: the kernel filled the control buffer that `message` points to; it is still alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers that lie within the buffer, or null.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if level == libc::SOL_PACKET && kind == libc::PACKET_AUXDATA {
            // SAFETY: the payload of this message is a tpacket_auxdata, at any alignment.
            data = unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast()) };
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    data
}

/// The error of a system call that gave a negative number.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
