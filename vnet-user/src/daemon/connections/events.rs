//! `conntrack events`: what happens to connections, while it happens.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::stream::{Stream, unfold};
use vnet_common::{
    config::{NetworkId, OUTSIDE, Timeouts},
    event::{ConnectionEvent, EventKind},
};

use super::{
    filter::{Filter, is_filter, refuse_others},
    reporter::{Following, Told},
    rows,
};
use crate::{
    api::types::{ConnectionQuery, Event},
    daemon::Switch,
    datapath::Connection,
    error::Result,
    state::Runtime,
};

/// Names and idle times are not looked up again more often than this.
const REFRESH: Duration = Duration::from_secs(1);

impl Switch {
    /// What happens from now on to connections that the query names.
    pub async fn follow_connections(
        self: Arc<Self>,
        query: &ConnectionQuery,
    ) -> Result<impl Stream<Item = Event> + Send + use<>> {
        refuse_others(query, is_filter, "events")?;
        let (filter, runtime) = self.filter(query).await?;
        let timeouts = self.tables().timeouts()?;
        let following = self.reporter().follow().await?;
        let names = Names { runtime, timeouts, read: Instant::now() };
        let follower = Follower { switch: self, following, filter, names };
        Ok(unfold(follower, |mut follower| async move { follower.next().await.map(|event| (event, follower)) }))
    }
}

struct Follower {
    switch: Arc<Switch>,
    following: Following,
    filter: Filter,
    names: Names,
}

/// What numbers stand for.
struct Names {
    runtime: Runtime,
    timeouts: HashMap<NetworkId, Timeouts>,
    read: Instant,
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        loop {
            match self.following.next().await? {
                Told::Lost(count) => return Some(Event::Lost { count }),
                Told::Event(event) => {
                    if let Some(event) = self.event(&event).await {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// The event as it is told; `None`: the filter does not want it.
    async fn event(&mut self, event: &ConnectionEvent) -> Option<Event> {
        let kind = EventKind::from_u32(event.kind)?;
        let home = if event.original_network == OUTSIDE { event.reply_network } else { event.original_network };
        let mut row = Connection::of_event(event, self.names.timeouts.get(&home));
        if !self.filter.matches(&row) {
            return None;
        }
        if !self.names.knows(&row) && self.names.read.elapsed() > REFRESH {
            self.refresh().await;
            row = Connection::of_event(event, self.names.timeouts.get(&home));
        }
        let connection = rows::connection(&row, &self.names.runtime);
        let end = |reason: &str, mut connection: crate::api::types::Connection| {
            connection.expiry = 0;
            Event::End { reason: reason.into(), connection }
        };
        Some(match kind {
            EventKind::Begun => Event::New(connection),
            EventKind::Changed => Event::Update(connection),
            EventKind::Expired => end("expired", connection),
            EventKind::Flushed => end("flushed", connection),
            EventKind::Spared => end("spared", connection),
        })
    }

    /// Networks and ports may have come, and timers may have changed.
    async fn refresh(&mut self) {
        self.names.runtime = self.switch.asked().await.runtime;
        if let Ok(timeouts) = self.switch.tables().timeouts() {
            self.names.timeouts = timeouts;
        }
        self.names.read = Instant::now();
    }
}

impl Names {
    fn knows(&self, row: &Connection) -> bool {
        self.runtime.network_name(row.network).is_some()
            && self.runtime.vport_device(row.guest_vport).is_some()
            && self.timeouts.contains_key(&row.network)
    }
}
