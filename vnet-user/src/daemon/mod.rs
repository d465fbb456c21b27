//! The daemon: holds what the user asked for, keeps the kernel to it, answers the API.

mod connections;
mod follow;
mod socket;
mod switch;
mod views;
mod warnings;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

pub use self::switch::Switch;
use crate::{
    api,
    config::MacAddress,
    datapath::{Datapath, DatapathError, Wishes},
    error::{Error, Result},
    netlink::Netlink,
    reconcile::Reconciler,
    state::{DirLock, Incarnation, Journal, Runtime, StateDir},
};

/// How often idle connections, bindings and MAC addresses are looked for.
const EXPIRY: Duration = Duration::from_secs(2);
/// The same while room is short.
const EXPIRY_IN_NEED: Duration = Duration::from_millis(500);
/// How long answers under way may take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// Where the daemon keeps things, and what the datapath is to be.
#[derive(Clone, Debug)]
pub struct Paths {
    pub socket: PathBuf,
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    pub pin_dir: PathBuf,
    pub wishes: Wishes,
}

/// Runs until SIGTERM or SIGINT. The datapath stays behind, pinned, and traffic goes on.
pub async fn run(paths: Paths) -> Result<()> {
    check_privileges()?;
    let state = StateDir::lock(&paths.state_dir)?;
    let _run_lock = DirLock::take(&paths.run_dir)?;
    socket::check_free(&paths.socket).await?;
    let switch = Arc::new(open(&paths, state).await?);
    let (listener, guard) = socket::bind(&paths.socket)?;
    tracing::info!("ready on {}", paths.socket.display());

    let following = tokio::spawn(follow::follow(switch.clone()));
    let expiring = tokio::spawn(expire(switch.clone()));
    let ended = serve(listener, switch).await;
    following.abort();
    expiring.abort();
    drop(guard);
    tracing::info!("ended; the datapath stays in place");
    ended
}

/// Takes over what an earlier daemon left, and brings it up to what is asked for.
async fn open(paths: &Paths, state: StateDir) -> Result<Switch> {
    let config = state.load(MacAddress::of_gateway)?;
    let incarnation = Incarnation::current()?;
    let runtime = Runtime::load(&paths.run_dir, &incarnation)?;
    let journal = Journal::load(&paths.run_dir, &incarnation)?;
    let netlink = Netlink::open()?;
    let datapath = tokio::task::block_in_place(|| Datapath::open(&paths.pin_dir, &paths.wishes))?;
    let reconciler = Reconciler::adopt(datapath, netlink.clone(), journal, runtime, &config).await?;
    let switch = Switch::new(config, state, reconciler, netlink)?;
    switch.settle().await;
    Ok(switch)
}

async fn serve(listener: tokio::net::UnixListener, switch: Arc<Switch>) -> Result<()> {
    let failed = |error: std::io::Error| Error::Setup(format!("cannot serve the API: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (ending, mut ended) = tokio::sync::watch::channel(false);
    let followed = switch.clone();
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        followed.reporter().end();
        // Nobody listens any more only where the server has failed.
        let _ = ending.send(true);
    };
    let server = axum::serve(listener, api::server::router(switch)).with_graceful_shutdown(shutdown);
    let deadline = async {
        let _ = ended.wait_for(|ended| *ended).await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        result = server => result.map_err(failed),
        () = deadline => Ok(()),
    }
}

async fn expire(switch: Arc<Switch>) {
    let mut pause = Duration::ZERO;
    loop {
        tokio::time::sleep(pause).await;
        pause = EXPIRY;
        let tables = switch.tables().clone();
        match tokio::task::spawn_blocking(move || tables.expire()).await {
            Ok(Ok(report)) => {
                tracing::debug!(?report, "expiry");
                if report.relief.is_any() {
                    pause = EXPIRY_IN_NEED;
                }
            }
            Ok(Err(error)) => tracing::warn!("expiry: {error}"),
            Err(error) => tracing::error!("expiry: {error}"),
        }
    }
}

/// Says so at once where a later step could only fail half-way.
fn check_privileges() -> Result<()> {
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_BPF: u32 = 39;
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).map_err(|error| Error::file("read", path, error))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |capability: u32| capabilities & 1 << capability != 0;
    if has(CAP_NET_ADMIN) && (has(CAP_BPF) || has(CAP_SYS_ADMIN)) {
        return Ok(());
    }
    Err(DatapathError::Unprivileged.into())
}
