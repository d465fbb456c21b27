//! `vnet forward`.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::{
    Done,
    output::{Output, table},
};
use crate::{
    api::{
        client::{Client, escape},
        types::{Forward, ForwardRequest},
    },
    config::{ForwardConfig, Listen, NetworkName, Protocol},
};

#[derive(Debug, Subcommand)]
pub(super) enum ForwardCommand {
    /// Lead an outside port, or a range, to a guest
    Add(AddArgs),
    /// Delete a forward and end the connections that came through it
    Del {
        network: String,
        #[arg(value_enum)]
        protocol: Protocol,
        /// [ADDRESS:]PORT[-PORT], as it was added
        listen: String,
    },
    /// List forwards, of one network or of all
    #[command(visible_alias = "ls")]
    List { network: Option<String> },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet forward add default tcp 8080 192.168.122.10:80
  vnet forward add default udp 192.0.2.1:5000-5010 192.168.122.10
  vnet forward add default tcp 8000-8010 192.168.122.10:9000-9010
  vnet forward add default tcp 5432 192.168.122.10 --loopback")]
pub(super) struct AddArgs {
    network: String,
    #[arg(value_enum)]
    protocol: Protocol,
    /// [ADDRESS:]PORT[-PORT]; without an address, all addresses of the host
    listen: String,
    /// GUESTADDRESS[:PORT[-PORT]]; without ports, those that are listened on
    target: String,
    /// Processes of this host reach the guest by 127.0.0.1, too, and not by the host's other addresses only
    #[arg(long)]
    loopback: bool,
}

impl ForwardCommand {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::Add(args) => args.run(client).await,
            Self::Del { network, protocol, listen } => {
                let (network, listen): (NetworkName, Listen) = (network.parse()?, listen.parse()?);
                let path = format!("{}/{protocol}/{}", forwards_of(&network), escape(&listen.to_string()));
                client.delete::<Done>(&path).await.map(drop)
            }
            Self::List { network } => {
                let path = match network {
                    Some(name) => format!("/v1/forwards?network={}", escape(name.parse::<NetworkName>()?.as_str())),
                    None => "/v1/forwards".into(),
                };
                let forwards: Vec<Forward> = client.get(&path).await?;
                output.print(&forwards, |forwards| forward_table(forwards))
            }
        }
    }
}

impl AddArgs {
    async fn run(self, client: &Client) -> Result<()> {
        let network: NetworkName = self.network.parse()?;
        let (protocol, listen, target) = (self.protocol, self.listen.parse()?, self.target.parse()?);
        // What needs no daemon to be refused is refused without one.
        ForwardConfig::new(protocol, listen, target)?.with_loopback(self.loopback)?;
        let request = ForwardRequest { protocol, listen, target, loopback: self.loopback };
        client.post::<Done>(&forwards_of(&network), &request).await.map(drop)
    }
}

fn forwards_of(network: &NetworkName) -> String {
    format!("/v1/networks/{}/forwards", escape(network.as_str()))
}

fn forward_table(forwards: &[Forward]) -> String {
    let row = |forward: &Forward| {
        vec![
            forward.network.to_string(),
            forward.protocol.to_string(),
            forward.listen.to_string(),
            forward.target.to_string(),
            if forward.loopback { "yes".into() } else { "-".into() },
        ]
    };
    table(&["NETWORK", "PROTOCOL", "LISTEN", "TARGET", "LOOPBACK"], &[], forwards.iter().map(row))
}
