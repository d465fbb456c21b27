//! One run from what is there to what is wanted.

use vnet_common::vport::VportRole;

use super::{
    Picture, Reconciler,
    apply::Applier,
    failures::Failures,
    gateway::gateways,
    plan::{Step, plan},
};
use crate::{
    Refusal,
    config::{Config, NetworkConfig, NetworkName},
    error::Result,
    host::{announce::announce_gateway, sysctl},
    netlink::Host,
};

impl Reconciler {
    /// Takes the steps that lead from what is there to what is wanted.
    pub(super) async fn run(&mut self, config: &Config, failures: &mut Failures) -> Result<()> {
        let host = self.bring_up_gateways(config, failures).await?;
        let wanted = Picture::wanted(config, &self.runtime, &host, sysctl::ephemeral_ports()?);
        let steps = plan(&self.present, &wanted);
        for step in &steps {
            failures.note(self.take(&host, step).await)?;
        }
        self.announce_gateways(config, &steps);
        failures.note(self.applier(&host).delete_gateways(config).await)?;
        self.journal.forget_devices(|ifindex| host.link_by_index(ifindex).is_none())
    }

    /// Makes gateway devices and sets them up. Returns the host with them, and without devices of other
    /// people that bear their names: those are never touched.
    async fn bring_up_gateways(&mut self, config: &Config, failures: &mut Failures) -> Result<Host> {
        let mut host = self.netlink.host().await?;
        let taken = self.applier(&host).taken_gateways(config);
        for device in &taken {
            failures.note::<()>(Err(Refusal::GatewayDeviceTaken(device.clone()).into()))?;
        }
        let is_free =
            |name: &NetworkName| !taken.contains(&name.gateway_device()) && !taken.contains(&name.gateway_peer());
        let ours: Vec<_> = gateways(config).filter(|(name, _)| is_free(name)).collect();
        let mut made = false;
        for (name, network) in &ours {
            made |= failures.note(self.applier(&host).make_gateway(name, network).await)?.unwrap_or(false);
        }
        if made {
            host = self.netlink.host().await?;
        }
        let mut changed = false;
        for (name, network) in &ours {
            changed |= failures.note(self.applier(&host).set_up_gateway(name, network).await)?.unwrap_or(true);
        }
        if changed {
            // Addresses of the gateways are addresses of the host.
            host = self.netlink.host().await?;
        }
        taken.iter().for_each(|device| host.hide(device.as_str()));
        Ok(host)
    }

    async fn take(&mut self, host: &Host, step: &Step) -> Result<()> {
        tracing::debug!(?step, "step");
        self.applier(host).take(step).await?;
        self.present.follow(step);
        Ok(())
    }

    /// Tells the guests behind newly bound ports where their gateways are.
    fn announce_gateways(&self, config: &Config, steps: &[Step]) {
        for step in steps {
            if let Step::Bind(ifindex, id) = step
                && let Some(entry) = self.present.vports.get(id)
                && entry.role() == Some(VportRole::Guest)
                && let Some(name) = self.runtime.network_name(entry.network)
                && let Some(network) = config.networks.get(name)
            {
                announce(*ifindex, network);
            }
        }
    }

    fn applier<'a>(&'a mut self, host: &'a Host) -> Applier<'a> {
        Applier { datapath: &mut self.datapath, netlink: &self.netlink, journal: &mut self.journal, host }
    }
}

fn announce(ifindex: u32, network: &NetworkConfig) {
    let Some(mac) = network.gateway_mac else { return };
    for (address, _) in network.gateway_addresses() {
        // A guest that is not there to hear it will ask when it comes.
        if let Err(error) = announce_gateway(ifindex, address, mac.mac()) {
            tracing::debug!(ifindex, "announcing the gateway: {error}");
        }
    }
}
