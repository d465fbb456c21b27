//! Tells a guest where its gateway is.
//!
//! Before its device was a port, the host's kernel may have answered the guest's ARP requests for the
//! gateway itself, with that device's own address: Linux answers on any device for any address of the
//! host. A gratuitous ARP (RFC 5227 section 3) corrects at once what would take the guest a minute.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use vnet_common::Mac;

const ETHERTYPE_ARP: u16 = 0x0806;

/// Sends the gateway's address out of the guest's device, past the switch: nobody else hears it.
pub fn announce_gateway(ifindex: u32, address: Ipv4Addr, mac: Mac) -> io::Result<()> {
    send(ifindex, &gratuitous_arp(address, mac))
}

/// A broadcast request for the sender's own address.
fn gratuitous_arp(address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend(Mac::BROADCAST.0);
    frame.extend(mac.0);
    frame.extend(ETHERTYPE_ARP.to_be_bytes());
    // Ethernet, IPv4, address lengths, request (RFC 826).
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend(Mac::ZERO.0);
    frame.extend(address.octets());
    // The shortest frame that Ethernet knows, without its checksum.
    frame.resize(60, 0);
    frame
}

fn send(ifindex: u32, frame: &[u8]) -> io::Result<()> {
    // Protocol 0: it receives nothing.
    // SAFETY: no pointers; the result is checked before it is used.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just opened and that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zeroes is a valid value of this structure of integers.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = ETHERTYPE_ARP.to_be();
    to.sll_ifindex = ifindex as i32;
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&Mac::BROADCAST.0);
    // SAFETY: both pointers are to live values of the lengths given, and the kernel only reads them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gratuitous_arp_asks_for_its_own_address() {
        let frame = gratuitous_arp(Ipv4Addr::new(10, 0, 0, 1), Mac([2, 0, 0, 0, 0, 1]));
        let expected = [
            &[0xff; 6][..],
            &[2, 0, 0, 0, 0, 1, 0x08, 0x06],
            &[0, 1, 8, 0, 6, 4, 0, 1],
            &[2, 0, 0, 0, 0, 1, 10, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 10, 0, 0, 1],
            &[0; 18],
        ];
        assert_eq!(frame, expected.concat());
    }
}
