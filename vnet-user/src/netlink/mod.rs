//! The kernel's links, addresses and routes: asked for, changed, and followed.

mod change;
mod host;
mod monitor;

use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::{AddressFamily, neighbour::NeighbourMessage};

pub use self::{
    change::LinkChange,
    host::{Address, Host, Link, Route},
    monitor::{Change, Monitor},
};
use crate::error::{Error, Result};

/// A handle on the namespace's routing netlink.
#[derive(Clone)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Opens a socket; must be called within a runtime, which then serves it.
    pub fn open() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| failed("open a netlink socket", error))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Everything that decisions are made from, as it is now.
    pub async fn host(&self) -> Result<Host> {
        let mut host = Host::default();
        let mut links = self.handle.link().get().execute();
        while let Some(message) = links.try_next().await.map_err(|error| failed("list devices", error))? {
            host.add_link(message);
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(|error| failed("list addresses", error))? {
            host.add_address(&message);
        }
        let routes = rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let mut routes = self.handle.route().get(routes).execute();
        while let Some(message) = routes.try_next().await.map_err(|error| failed("list routes", error))? {
            host.add_route(&message);
        }
        Ok(host)
    }

    /// The neighbour table, to tell real changes from refreshed timers.
    async fn neighbours(&self) -> Vec<NeighbourMessage> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Unspec);
        // A neighbour missed here only costs one generation more.
        request.execute().filter_map(|message| async { message.ok() }).collect().await
    }
}

fn failed(action: impl Into<String>, reason: impl ToString) -> Error {
    Error::Netlink { action: action.into(), reason: reason.to_string() }
}
