//! The network namespace as BPF programs name it.

use std::{
    io, mem,
    os::{fd::AsRawFd, unix::net::UnixDatagram},
};

/// Cookie of the calling thread's network namespace (`SO_NETNS_COOKIE`, kernel ≥ 5.14); never 0.
pub(crate) fn netns_cookie() -> io::Result<u64> {
    // Any socket knows its namespace, and this one needs no network.
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0_u64;
    let mut length = mem::size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is a 64-bit word; word and length outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_keeps_its_cookie() {
        let cookie = netns_cookie().unwrap();
        assert_ne!(cookie, 0);
        assert_eq!(netns_cookie().unwrap(), cookie);
    }
}
