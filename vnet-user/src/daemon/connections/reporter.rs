//! Hands events of connections from the kernel to those who follow them. The datapath reports while there is
//! a follower, and not otherwise.

use std::time::Duration;

use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};
use vnet_common::event::ConnectionEvent;

use crate::{
    datapath::{EventReader, Tables},
    error::{Error, Result},
};

/// Events that a follower may lag behind.
const BACKLOG: usize = 4096;
/// How often it is looked whether events were lost.
const LOOK: Duration = Duration::from_secs(1);

/// What a follower is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Event(ConnectionEvent),
    /// So many events are missing here.
    Lost(u64),
}

enum Request {
    Follow(oneshot::Sender<Following>),
    /// A follower has gone.
    Left,
    /// The daemon ends.
    End,
}

/// The way to the task that reads events.
pub struct Reporter {
    requests: mpsc::UnboundedSender<Request>,
}

/// One follower's end.
pub(super) struct Following {
    events: broadcast::Receiver<Told>,
    // After the receiver: it must be gone by then.
    _leaving: Leaving,
}

struct Leaving(mpsc::UnboundedSender<Request>);

impl Drop for Leaving {
    fn drop(&mut self) {
        // Nobody hears it where the daemon ends.
        let _ = self.0.send(Request::Left);
    }
}

impl Following {
    /// The next event; `None`: the daemon ends.
    pub(super) async fn next(&mut self) -> Option<Told> {
        match self.events.recv().await {
            Ok(told) => Some(told),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Told::Lost(count)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Reporter {
    /// Starts the task that reads events; it must be the only one.
    pub fn start(tables: Tables) -> Result<Self> {
        let reader = tables.event_reader()?;
        let (requests, received) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(BACKLOG);
        let task = Task { tables, reader, events, requests: requests.downgrade(), is_on: false, lost: 0 };
        tokio::spawn(task.run(received));
        Ok(Self { requests })
    }

    /// From here on every event is told, until what is returned is dropped.
    pub(super) async fn follow(&self) -> Result<Following> {
        let (answer, answered) = oneshot::channel();
        let ended = || Error::Setup("the daemon is ending, or events cannot be read: see its log".into());
        self.requests.send(Request::Follow(answer)).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())
    }

    /// Ends every follower's stream.
    pub fn end(&self) {
        // The task may have ended by itself.
        let _ = self.requests.send(Request::End);
    }
}

struct Task {
    tables: Tables,
    reader: EventReader,
    events: broadcast::Sender<Told>,
    requests: mpsc::WeakUnboundedSender<Request>,
    /// Whether the datapath reports.
    is_on: bool,
    /// Lost events that followers know of, or have missed before they came.
    lost: u64,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Follow(answer)) => self.follow(answer),
                    Some(Request::Left) => self.leave(),
                    Some(Request::End) | None => break,
                },
                done = self.reader.take(|event| pass_on(&self.events, event)), if self.is_on => done.map_err(Into::into),
                _ = look.tick(), if self.is_on => self.tell_lost(),
            };
            if let Err(error) = done {
                tracing::error!("events of connections: {error}");
            }
        }
        if self.is_on
            && let Err(error) = self.tables.set_reporting(false)
        {
            tracing::warn!("events of connections: {error}");
        }
    }

    fn follow(&mut self, answer: oneshot::Sender<Following>) -> Result<()> {
        // None is left where the daemon ends just now.
        let Some(requests) = self.requests.upgrade() else { return Ok(()) };
        if !self.is_on {
            // What an earlier follower did not see is nobody's now.
            self.reader.discard();
            self.lost = self.tables.events_lost()?;
            self.tables.set_reporting(true)?;
            self.is_on = true;
        }
        // Where the asker has gone meanwhile, it leaves at once.
        drop(answer.send(Following { events: self.events.subscribe(), _leaving: Leaving(requests) }));
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        if self.is_on && self.events.receiver_count() == 0 {
            self.tables.set_reporting(false)?;
            self.is_on = false;
        }
        Ok(())
    }

    fn tell_lost(&mut self) -> Result<()> {
        let lost = self.tables.events_lost().map_err(Error::from)?;
        if lost != self.lost {
            // Nobody follows just now: nobody misses them.
            let _ = self.events.send(Told::Lost(lost.wrapping_sub(self.lost)));
            self.lost = lost;
        }
        Ok(())
    }
}

fn pass_on(events: &broadcast::Sender<Told>, event: ConnectionEvent) {
    // Nobody follows just now: nobody misses it.
    let _ = events.send(Told::Event(event));
}
