//! Changes to links and addresses.

use std::net::Ipv4Addr;

use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, packet_route::link::LinkAttribute};
use vnet_common::Mac;

use super::{Netlink, failed};
use crate::error::Result;

/// One property of a link to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    Up(bool),
    Promiscuous(bool),
    Arp(bool),
    Mtu(u32),
    Mac(Mac),
}

impl Netlink {
    pub async fn create_veth(&self, name: &str, peer: &str, mac: Mac) -> Result<()> {
        let message = LinkVeth::new(name, peer).address(mac.0.to_vec()).build();
        let request = self.handle.link().add(message);
        request.execute().await.map_err(|error| failed(format!("create {name}"), reason(&error)))
    }

    pub async fn delete_link(&self, ifindex: u32, name: &str) -> Result<()> {
        let request = self.handle.link().del(ifindex);
        request.execute().await.map_err(|error| failed(format!("delete {name}"), reason(&error)))
    }

    pub async fn change_link(&self, ifindex: u32, name: &str, change: LinkChange) -> Result<()> {
        let builder = LinkUnspec::new_with_index(ifindex);
        let builder: LinkMessageBuilder<LinkUnspec> = match change {
            LinkChange::Up(true) => builder.up(),
            LinkChange::Up(false) => builder.down(),
            LinkChange::Promiscuous(on) => builder.promiscuous(on),
            LinkChange::Arp(on) => builder.arp(on),
            LinkChange::Mtu(mtu) => builder.mtu(mtu),
            LinkChange::Mac(mac) => builder.append_extra_attribute(LinkAttribute::Address(mac.0.to_vec())),
        };
        let request = self.handle.link().change(builder.build());
        request.execute().await.map_err(|error| failed(format!("set {change:?} on {name}"), reason(&error)))
    }

    pub async fn add_address(&self, ifindex: u32, name: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let request = self.handle.address().add(ifindex, address.into(), prefix);
        request.execute().await.map_err(|error| failed(format!("add {address}/{prefix} to {name}"), reason(&error)))
    }
}

/// The kernel's own words, without the library's around them.
fn reason(error: &rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    }
}
