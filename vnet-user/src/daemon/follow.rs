//! Follows the host: what changes there is followed in the tables.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::Switch;
use crate::netlink::{Change, Monitor};

/// Changes come in flocks (one `ip link del` is a dozen messages): wait for the rest of it.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// What could not be done is tried again after this, and then ever more seldom.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// Runs for as long as the daemon does.
pub async fn follow(switch: Arc<Switch>) {
    loop {
        match Monitor::open(switch.netlink()).await {
            Ok(monitor) => {
                // Whatever happened while nobody looked.
                let flock = Flock { host: true, routes: true, neighbours: BTreeSet::new() };
                follow_until_lost(&switch, monitor, flock).await;
                tracing::warn!("lost track of the network's changes; looking at everything anew");
            }
            Err(error) => {
                tracing::error!("{error}; trying again");
                sleep(RETRY).await;
            }
        }
        // News that come faster than they can be followed are not followed one by one.
        sleep(DEBOUNCE * 10).await;
    }
}

/// Changes that came close together.
#[derive(Debug, Default)]
struct Flock {
    host: bool,
    routes: bool,
    neighbours: BTreeSet<u32>,
}

impl Flock {
    fn add(&mut self, change: Change) {
        match change {
            Change::Host => self.host = true,
            Change::Routes => self.routes = true,
            Change::Neighbour { ifindex } => drop(self.neighbours.insert(ifindex)),
        }
    }
}

async fn follow_until_lost(switch: &Switch, mut monitor: Monitor, first: Flock) {
    let mut retry = RETRY;
    let mut is_settled = act(switch, &first).await;
    loop {
        let change = if is_settled {
            monitor.next().await
        } else {
            match tokio::time::timeout(retry, monitor.next()).await {
                Ok(change) => change,
                Err(_) => {
                    retry = (retry * 2).min(RETRY_MOST);
                    Some(Change::Host)
                }
            }
        };
        let Some(change) = change else { return };
        let Some(flock) = gather(&mut monitor, change).await else { return };
        is_settled = act(switch, &flock).await && (is_settled || flock.host);
        if is_settled {
            retry = RETRY;
        }
    }
}

/// The change and those on its heels; `None` when track was lost.
async fn gather(monitor: &mut Monitor, first: Change) -> Option<Flock> {
    let mut flock = Flock::default();
    flock.add(first);
    let deadline = Instant::now() + DEBOUNCE;
    while let Ok(change) = timeout_at(deadline, monitor.next()).await {
        flock.add(change?);
    }
    Some(flock)
}

/// True where everything could be done.
async fn act(switch: &Switch, flock: &Flock) -> bool {
    tracing::debug!(?flock, "following");
    let is_settled = !flock.host || switch.settle().await;
    if flock.routes {
        switch.decide_all_again().await;
    } else if !flock.neighbours.is_empty() {
        switch.decide_again_over(&flock.neighbours.iter().copied().collect::<Vec<_>>()).await;
    }
    is_settled
}
