//! TCP transfers whose every byte is compared.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    sync::OnceLock,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{
    namespace::Namespace,
    socket::{SILENCE, connect_from, readable},
    wait::{SOON, until},
};

/// Bytes of a block; transfers are whole blocks.
pub const BLOCK: usize = 64 << 10;
/// Sixty-four mebibytes.
pub const BULK: usize = 64 << 20;

/// Fills a block with bytes that tell its number: a block lost, doubled or moved is seen.
pub fn fill(block: &mut [u8], number: u64) {
    static BASE: OnceLock<Vec<u64>> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word
        };
        (0..BLOCK / 8).map(|_| next()).collect()
    });
    let key = (number + 1).wrapping_mul(0xd134_2543_de82_ef95);
    for (bytes, word) in block.as_chunks_mut::<8>().0.iter_mut().zip(base) {
        *bytes = (word ^ key).to_le_bytes();
    }
}

/// Sends `total` bytes.
pub fn send(stream: &mut TcpStream, total: usize) -> Result<()> {
    let mut block = vec![0; BLOCK];
    for number in 0..total / BLOCK {
        fill(&mut block, number as u64);
        stream.write_all(&block).with_context(|| format!("sending block {number}"))?;
    }
    Ok(())
}

/// Receives `total` bytes and compares each.
pub fn receive(stream: &mut TcpStream, total: usize) -> Result<()> {
    let (mut block, mut expected) = (vec![0; BLOCK], vec![0; BLOCK]);
    for number in 0..total / BLOCK {
        stream.read_exact(&mut block).with_context(|| format!("receiving block {number} of {}", total / BLOCK))?;
        fill(&mut expected, number as u64);
        if let Some(at) = (0..BLOCK).find(|at| block[*at] != expected[*at]).filter(|_| block != expected) {
            return Err(anyhow!("block {number} differs from byte {at} on"));
        }
    }
    Ok(())
}

/// A listener inside a namespace, on every address.
///
/// The last one may still be held, for a moment, by a child that another thread has just forked.
pub fn listen(inside: &Namespace, port: u16) -> Result<TcpListener> {
    inside.enter(|| {
        until(&format!("listening on port {port}"), SOON, || match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Ok(listener) => Ok(Ok(listener)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        })
    })
}

/// Accepts within a time; the connection then never waits longer than [`SILENCE`].
pub fn accept(listener: &TcpListener, within: Duration) -> Result<(TcpStream, SocketAddr)> {
    ensure!(readable(listener, within)?, "no connection came in within {within:?}");
    let (stream, peer) = listener.accept()?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok((stream, peer))
}

/// One connection between two namespaces.
#[derive(Clone, Copy, Debug)]
pub struct Talk<'n> {
    client: &'n Namespace,
    server: &'n Namespace,
    to: SocketAddrV4,
    listen: u16,
    from_port: u16,
}

impl<'n> Talk<'n> {
    /// From `client` to `to`, where `server` is expected to answer.
    pub fn new(client: &'n Namespace, server: &'n Namespace, address: Ipv4Addr, port: u16) -> Self {
        Self { client, server, to: SocketAddrV4::new(address, port), listen: port, from_port: 0 }
    }

    /// The server listens on another port than the client names.
    pub fn listen(self, listen: u16) -> Self {
        Self { listen, ..self }
    }

    /// The client's own port.
    pub fn from_port(self, from_port: u16) -> Self {
        Self { from_port, ..self }
    }

    /// The client sends; gives the client's address as the server sees it.
    pub fn upload(&self, total: usize) -> Result<SocketAddrV4> {
        self.converse(|stream| send(stream, total), |stream| receive(stream, total))
    }

    /// The server sends.
    pub fn download(&self, total: usize) -> Result<SocketAddrV4> {
        self.converse(|stream| receive(stream, total), |stream| send(stream, total))
    }

    /// A few bytes each way.
    pub fn greet(&self) -> Result<SocketAddrV4> {
        self.converse(
            |stream| {
                stream.write_all(b"hello")?;
                let mut answer = [0; 5];
                stream.read_exact(&mut answer).context("no answer")?;
                ensure!(&answer == b"world", "answer {answer:?}");
                Ok(())
            },
            |stream| {
                let mut question = [0; 5];
                stream.read_exact(&mut question).context("no question")?;
                ensure!(&question == b"hello", "question {question:?}");
                stream.write_all(b"world")?;
                Ok(())
            },
        )
    }

    fn converse(
        &self,
        client: impl FnOnce(&mut TcpStream) -> Result<()> + Send,
        server: impl FnOnce(&mut TcpStream) -> Result<()> + Send,
    ) -> Result<SocketAddrV4> {
        let listener = listen(self.server, self.listen)?;
        thread::scope(|scope| {
            let serving = scope.spawn(move || -> Result<SocketAddrV4> {
                let (mut stream, peer) = accept(&listener, SOON)?;
                server(&mut stream).context("at the server")?;
                finish(&mut stream)?;
                match peer {
                    SocketAddr::V4(peer) => Ok(peer),
                    SocketAddr::V6(peer) => Err(anyhow!("IPv6 peer {peer}")),
                }
            });
            let asked = connect_from(self.client, self.from_port, self.to, SILENCE).and_then(|mut stream| {
                client(&mut stream).context("at the client")?;
                finish(&mut stream)
            });
            let served = serving.join().map_err(|_| anyhow!("the server panicked"))?;
            match (asked, served) {
                (Ok(()), served) => served,
                (Err(asked), Ok(_)) => Err(asked),
                (Err(asked), Err(served)) => Err(asked.context(format!("the server says: {served:#}"))),
            }
        })
    }
}

/// Closes, and waits until the other side has closed, too.
fn finish(stream: &mut TcpStream) -> Result<()> {
    // Refused only where the other side has ended first.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).context("waiting for the other side to close")?;
    ensure!(rest.is_empty(), "{} bytes too many", rest.len());
    Ok(())
}
