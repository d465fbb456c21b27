//! The settings of a network's translation.

use anyhow::Result;
use clap::{Args, CommandFactory, error::ErrorKind};

use super::{Cli, Done, network::path, output::table};
use crate::{
    api::client::Client,
    config::{Filtering, Mapping, Mode, NatChange, NatConfig, NetworkName},
};

/// What can be said when a network is added.
#[derive(Debug, Args)]
#[command(next_help_heading = "Translation (nat)")]
pub(super) struct NatArgs {
    /// What an outside port is kept for
    #[arg(long, value_enum)]
    mapping: Option<Mapping>,
    /// Who may send to an outside port in use
    #[arg(long, value_enum)]
    filtering: Option<Filtering>,
    /// Outside addresses to translate to, which the host need not carry; else the uplink's own
    #[arg(long, value_name = "ADDR[-ADDR]")]
    snat_address: Option<String>,
    /// Outside ports to translate with, else 49152-65535
    #[arg(long, value_name = "FIRST-LAST")]
    snat_ports: Option<String>,
}

impl NatArgs {
    pub(super) fn change(self) -> Result<NatChange> {
        let mut change = NatChange::default();
        let words = [
            ("mapping", self.mapping.map(|mapping| mapping.to_string())),
            ("filtering", self.filtering.map(|filtering| filtering.to_string())),
            ("snat-address", self.snat_address),
            ("snat-ports", self.snat_ports),
        ];
        for (key, word) in words {
            word.map_or(Ok(()), |word| change.add(key, &word))?;
        }
        Ok(change)
    }
}

#[derive(Debug, Args)]
#[command(after_help = SETTINGS)]
pub(super) struct SetArgs {
    name: String,
    /// Names of settings, each with its value
    #[arg(required = true, num_args = 2.., value_names = ["KEY", "VALUE"])]
    settings: Vec<String>,
}

const SETTINGS: &str = "\
Settings of nat networks:
  mapping                 endpoint-independent (the default) | endpoint-dependent
  filtering               endpoint-independent | address (the default) | address-port
  snat-address            ADDR[-ADDR], outside addresses; uplink (the default): the uplink's own
  snat-ports              FIRST-LAST, outside ports (49152-65535)
  port-cool-down          how long a freed outside port is given to nobody (2m)
  guest-ports             outside ports of one guest (8192)

Settings of nat and routed networks, where connections come in through forwards:
  inbound-refresh         on | off (the default): packets from outside keep UDP and ICMP alive too
  udp-timeout             idle UDP (5m)
  tcp-timeout             idle established TCP (2h4m)
  tcp-transitory-timeout  TCP that opens or closes (4m)
  icmp-timeout            ICMP queries (1m)
  fragment-timeout        fragments that wait for the rest of their datagram (30s)
  guest-connections       connections of one guest (32768)
  guest-rate              new connections of one guest in a second (off)

Durations are written 300s, 5m or 2h4m, a plain number is seconds. Limits are numbers; off: no limit.
The value 'default' puts the default back.

Examples:
  vnet network set default udp-timeout 30s
  vnet network set default filtering endpoint-independent snat-ports 20000-29999
  vnet network set default guest-connections 1000 guest-rate 100
  vnet network set default udp-timeout default";

impl SetArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let name: NetworkName = self.name.parse()?;
        let (pairs, rest) = self.settings.as_chunks::<2>();
        if let [key] = rest {
            // What clap cannot say: the values come in pairs.
            let message = format!("'{key}' has no value: KEY VALUE [KEY VALUE]...");
            Cli::command().error(ErrorKind::WrongNumberOfValues, message).exit();
        }
        let mut change = NatChange::default();
        for [key, value] in pairs {
            change.add(key, value)?;
        }
        client.patch::<Done>(&path(&name), &change).await.map(drop)
    }
}

/// Every setting, with the default where it is another.
pub(super) fn settings_table(mode: Mode, nat: &NatConfig) -> String {
    let standard = NatConfig::default().rows();
    let rows = nat.rows().into_iter().zip(standard).filter(|((key, _), _)| NatConfig::has_setting(mode, key));
    let rows = rows.map(|((key, value), (_, standard))| {
        let note = if value == standard { String::new() } else { standard };
        vec![key.into(), value, note]
    });
    table(&["SETTING", "VALUE", "DEFAULT"], &[], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_setting_and_its_default() {
        for (key, standard) in NatConfig::default().rows() {
            let line = SETTINGS.lines().find(|line| line.split_whitespace().next() == Some(key));
            let line = line.unwrap_or_else(|| panic!("{key} is missing"));
            let is_named =
                line.contains(&format!("({standard})")) || line.contains(&format!("{standard} (the default)"));
            assert!(is_named, "{standard}: {line}");
        }
    }

    #[test]
    fn the_table_says_what_the_default_would_be() {
        let nat = NatConfig { udp_timeout: "2s".parse().unwrap(), ..NatConfig::default() };
        let shown = settings_table(Mode::Nat, &nat);
        let row = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap().split_whitespace().skip(1);
        assert_eq!(row("udp-timeout").collect::<Vec<_>>(), ["2s", "5m"]);
        assert_eq!(row("tcp-timeout").collect::<Vec<_>>(), ["2h4m"]);
        assert_eq!(shown.lines().count(), 15);
        assert!(!settings_table(Mode::Routed, &nat).contains("snat"));
    }
}
