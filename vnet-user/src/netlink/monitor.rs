//! Follows what changes on the host.

use std::{collections::HashMap, net::IpAddr};

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    },
    sys::SocketAddr,
};

use super::{Netlink, failed};
use crate::error::Result;

/// Something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A link or an address: the tables may have to follow.
    Host,
    /// A route: any path may lead elsewhere.
    Routes,
    /// A neighbour on this device has another MAC address, or none any more.
    Neighbour { ifindex: u32 },
}

/// A stream of changes; after it has ended (the kernel had more news than the socket could hold) open
/// another one and look at everything anew.
pub struct Monitor {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    neighbours: Neighbours,
}

impl Monitor {
    pub async fn open(netlink: &Netlink) -> Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(|error| failed("follow the network", error))?;
        tokio::spawn(connection);
        let mut neighbours = Neighbours::default();
        for message in netlink.neighbours().await {
            neighbours.note(&message);
        }
        Ok(Self { messages, neighbours })
    }

    /// The next change; `None` when news were lost.
    pub async fn next(&mut self) -> Option<Change> {
        while let Some((message, _)) = self.messages.next().await {
            let change = match message.payload {
                NetlinkPayload::InnerMessage(message) => self.change(message),
                NetlinkPayload::Overrun(_) => return None,
                _ => None,
            };
            if change.is_some() {
                return change;
            }
        }
        None
    }

    fn change(&mut self, message: RouteNetlinkMessage) -> Option<Change> {
        use RouteNetlinkMessage::*;
        match message {
            NewLink(_) | DelLink(_) | NewAddress(_) | DelAddress(_) => Some(Change::Host),
            NewRoute(_) | DelRoute(_) => Some(Change::Routes),
            NewNeighbour(message) => self.neighbours.note(&message),
            DelNeighbour(message) => self.neighbours.forget(&message),
            _ => None,
        }
    }
}

/// The last known link-layer address of every neighbour.
#[derive(Default)]
struct Neighbours {
    known: HashMap<NeighbourKey, Vec<u8>>,
}

impl Neighbours {
    /// Takes in a neighbour; a change if paths may lead to its old address.
    fn note(&mut self, message: &NeighbourMessage) -> Option<Change> {
        if matches!(message.header.state, NeighbourState::Failed) {
            return self.forget(message);
        }
        let (key, mac) = parts(message)?;
        let mac = mac?;
        let ifindex = key.0;
        match self.known.insert(key, mac.clone()) {
            Some(old) if old != mac => Some(Change::Neighbour { ifindex }),
            _ => None,
        }
    }

    fn forget(&mut self, message: &NeighbourMessage) -> Option<Change> {
        let (key, _) = parts(message)?;
        let ifindex = key.0;
        self.known.remove(&key).map(|_| Change::Neighbour { ifindex })
    }
}

type NeighbourKey = (u32, IpAddr);

fn parts(message: &NeighbourMessage) -> Option<(NeighbourKey, Option<Vec<u8>>)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Some(bytes.clone()),
            _ => {}
        }
    }
    Some(((message.header.ifindex, address?), mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(state: NeighbourState, mac: Option<u8>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 7;
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 2].into())));
        message.attributes.extend(mac.map(|last| NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, last])));
        message
    }

    #[test]
    fn a_refreshed_timer_is_no_change_and_a_new_address_is_one() {
        use NeighbourState as State;
        let changed = Some(Change::Neighbour { ifindex: 7 });
        let cases = [
            ("first seen, unresolved", neighbour(State::Incomplete, None), None),
            ("resolved", neighbour(State::Reachable, Some(1)), None),
            ("grown stale", neighbour(State::Stale, Some(1)), None),
            ("probed", neighbour(State::Probe, Some(1)), None),
            ("another address", neighbour(State::Reachable, Some(2)), changed),
            ("failed", neighbour(State::Failed, None), changed),
            ("still failed", neighbour(State::Failed, None), None),
            ("back again", neighbour(State::Reachable, Some(2)), None),
        ];
        let mut neighbours = Neighbours::default();
        for (name, message, change) in cases {
            assert_eq!(neighbours.note(&message), change, "{name}");
        }
        assert_eq!(neighbours.forget(&neighbour(State::Stale, Some(2))), changed);
    }
}
