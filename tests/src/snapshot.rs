//! The state of a namespace, to see that everything done to it has been undone.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Result;
use serde_json::Value;

use crate::{attachments::tc_programs, json, namespace::Namespace, wait};

/// Everything about a namespace that should not change, by a name of each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    facts: BTreeMap<String, String>,
}

impl Snapshot {
    pub fn take(inside: &Namespace) -> Result<Self> {
        // Link-local addresses settle by themselves (duplicate address detection).
        wait::until_true("IPv6 addresses settle", wait::SOON, || {
            Ok(inside.run(&["ip", "-6", "addr", "show", "tentative"])?.is_empty())
        })?;
        let mut facts = BTreeMap::new();
        let links: Value = serde_json::from_str(&inside.run(&["ip", "-j", "-d", "addr", "show"])?)?;
        for link in json::array(&links, "ip addr")? {
            let name = json::string(link, "ifname")?;
            flatten(&format!("link {name}"), link, &mut facts);
            let features = inside.output(&["ethtool", "-k", name], wait::SOON)?;
            add_lines(&mut facts, &format!("ethtool {name}"), &features.stdout);
            add_lines(&mut facts, &format!("qdisc {name}"), &inside.run(&["tc", "qdisc", "show", "dev", name])?);
            for hook in ["ingress", "egress"] {
                // Refused where there is no clsact: then there is no filter either.
                let filters = inside.output(&["tc", "filter", "show", "dev", name, hook], wait::SOON)?;
                add_lines(&mut facts, &format!("filter {name} {hook}"), &filters.stdout);
            }
            facts.insert(format!("tcx {name}"), format!("{:?}", tc_programs(inside, name)?));
        }
        for (what, words) in [
            ("route4", &["ip", "-4", "route", "show", "table", "all"][..]),
            ("route6", &["ip", "-6", "route", "show", "table", "all"]),
            ("rule", &["ip", "rule"]),
            ("neighbour", &["ip", "neigh", "show", "nud", "permanent"]),
            ("nft", &["nft", "list", "ruleset"]),
        ] {
            add_lines(&mut facts, what, &inside.run(words)?);
        }
        inside.enter(|| {
            for root in ["/proc/sys/net/ipv4", "/proc/sys/net/ipv6", "/proc/sys/net/core"] {
                add_sysctls(Path::new(root), &mut facts)?;
            }
            Ok(())
        })?;
        Ok(Self { facts })
    }

    /// What differs, one line each; empty when nothing does.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, value) in &self.facts {
            match after.facts.get(name) {
                None => lines.push(format!("gone: {name} = {value}")),
                Some(other) if other != value => lines.push(format!("changed: {name} = {value} → {other}")),
                Some(_) => {}
            }
        }
        let new = after.facts.iter().filter(|(name, _)| !self.facts.contains_key(*name));
        lines.extend(new.map(|(name, value)| format!("left behind: {name} = {value}")));
        lines
    }
}

/// Fields of `ip -j` that move by themselves.
const VOLATILE: [&str; 5] =
    ["valid_life_time", "preferred_life_time", "gc_timer", "forward_delay_timer", "hello_timer"];

fn flatten(prefix: &str, value: &Value, facts: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields.iter().filter(|(field, _)| !VOLATILE.contains(&field.as_str())) {
                flatten(&format!("{prefix}.{field}"), value, facts);
            }
        }
        // Their order says nothing.
        Value::Array(flags) if flags.iter().all(Value::is_string) => {
            for flag in flags {
                facts.insert(format!("{prefix}: {flag}"), String::new());
            }
        }
        Value::Array(items) => {
            for (number, value) in items.iter().enumerate() {
                flatten(&format!("{prefix}[{number}]"), value, facts);
            }
        }
        plain => {
            facts.insert(prefix.to_owned(), plain.to_string());
        }
    }
}

fn add_lines(facts: &mut BTreeMap<String, String>, what: &str, text: &str) {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        facts.insert(format!("{what}: {line}"), String::new());
    }
}

fn add_sysctls(directory: &Path, facts: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            add_sysctls(&path, facts)?;
        } else if let Ok(value) = fs::read_to_string(&path) {
            // Some can only be written (route/flush), some only be read when set (stable_secret).
            facts.insert(format!("sysctl {}", path.display()), value.trim().to_owned());
        }
    }
    Ok(())
}
