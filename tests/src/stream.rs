//! A TCP connection that talks all the time, for what happens meanwhile.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{
    namespace::Namespace,
    socket::{SILENCE, connect_from},
    transfer::{BLOCK, accept, fill, listen},
    wait::{SOON, until},
};

/// The client sends block after block; the server compares each and answers with its number.
#[derive(Debug)]
pub struct Stream {
    blocks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Stream {
    pub fn start(client: &Namespace, server: &Namespace, to: (Ipv4Addr, u16), listen_on: u16) -> Result<Self> {
        let listener = listen(server, listen_on)?;
        let outgoing = connect_from(client, 0, SocketAddrV4::new(to.0, to.1), SILENCE)?;
        let (incoming, _) = accept(&listener, SOON)?;
        let (blocks, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&blocks), Arc::clone(&stop));
        let threads =
            vec![thread::spawn(move || ask(outgoing, &stopped, &counted)), thread::spawn(move || answer(incoming))];
        Ok(Self { blocks, stop, threads })
    }

    /// Blocks that went through and were confirmed.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Relaxed)
    }

    /// Waits until `more` blocks have gone through.
    pub fn advance(&self, more: u64) -> Result<()> {
        let goal = self.blocks() + more;
        until(&format!("{more} more blocks of the stream"), SILENCE * 2, || {
            let now = self.blocks();
            ensure!(!self.threads.iter().any(JoinHandle::is_finished), "the stream broke after {now} blocks");
            Ok(if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) })
        })
    }

    /// True when the connection has been torn down by someone.
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends it; every byte must have been right.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a stream thread panicked"))??;
        }
        Ok(self.blocks())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn ask(mut stream: TcpStream, stop: &AtomicBool, blocks: &AtomicU64) -> Result<()> {
    let (mut block, mut answer) = (vec![0; BLOCK], [0; 8]);
    let mut number = 0;
    while !stop.load(Relaxed) {
        fill(&mut block, number);
        stream.write_all(&block).context("asking")?;
        stream.read_exact(&mut answer).context("waiting for the answer")?;
        ensure!(u64::from_be_bytes(answer) == number, "block {number} was answered as {answer:?}");
        number += 1;
        blocks.store(number, Relaxed);
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let (mut block, mut expected) = (vec![0; BLOCK], vec![0; BLOCK]);
    for number in 0_u64.. {
        let mut head = [0; 1];
        if stream.read(&mut head).context("waiting for a block")? == 0 {
            break;
        }
        block[0] = head[0];
        stream.read_exact(&mut block[1..])?;
        fill(&mut expected, number);
        ensure!(block == expected, "block {number} differs");
        stream.write_all(&number.to_be_bytes())?;
    }
    Ok(())
}
