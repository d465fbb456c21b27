//! A UDP server that says whom it sees, as a STUN server does.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    namespace::Namespace,
    socket::readable,
    wait::{SOON, until},
};

/// Answers every datagram with `ADDRESS:PORT\n` of its sender and the datagram itself.
#[derive(Debug)]
pub struct Reflector {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reflector {
    /// On one address: answers must come from where the question went.
    pub fn start(inside: &Namespace, address: Ipv4Addr, port: u16) -> Result<Self> {
        let socket = udp(inside, address, port)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Relaxed) {
                if !readable(&socket, Duration::from_millis(50)).unwrap_or(false) {
                    continue;
                }
                // An ICMP error shows as an error here; the next question is answered all the same.
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let answer = [format!("{from}\n").as_bytes(), &buffer[..length]].concat();
                let _ = socket.send_to(&answer, from);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A UDP socket inside a namespace.
pub fn udp(inside: &Namespace, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    inside.enter(|| {
        // As for listeners: a child just forked by another thread may hold the last one for a moment.
        until(&format!("UDP socket on {address}:{port}"), SOON, || match UdpSocket::bind((address, port)) {
            Ok(socket) => Ok(Ok(socket)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        })
    })
}

/// Asks a reflector over an open socket: the address and port that it saw.
pub fn ask(socket: &UdpSocket, reflector: (Ipv4Addr, u16), payload: &[u8]) -> Result<SocketAddrV4> {
    let to = SocketAddr::V4(SocketAddrV4::new(reflector.0, reflector.1));
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(payload, to)?;
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).with_context(|| format!("no answer from {to}"))?;
    ensure!(from == to, "asked {to}, answered by {from}");
    let answer = &buffer[..length];
    let end = answer.iter().position(|byte| *byte == b'\n').context("no line in the answer")?;
    ensure!(&answer[end + 1..] == payload, "the datagram came back changed");
    Ok(std::str::from_utf8(&answer[..end])?.parse()?)
}
