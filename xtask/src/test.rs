//! `cargo xtask test`: lint, build, and the tests of every level.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::stages::Stages;
use crate::workspace::Workspace;
use crate::{build_ebpf, lint, process, setup};

/// Run the tests; without a level, everything that has to pass.
#[derive(clap::Args)]
pub struct Args {
    /// Which tests to run
    #[arg(value_enum, default_value_t = Level::All)]
    level: Level,
    /// Passed on to every test binary: a filter, --nocapture, …
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Lint, build, then every level below
    All,
    /// Tests of the crates on the host, the datapath on plain memory included
    Unit,
    /// The loaded BPF programs, run on single frames (root)
    Prog,
    /// The daemon between network namespaces with real peers (root)
    Netns,
}

/// Integration tests that need no kernel, next to the crates that they test.
const UNIT_TEST_DIRS: &[&str] = &["vnet-common/tests", "vnet-ebpf/tests", "vnet-user/tests", "xtask/tests"];
const KERNEL_TEST_DIR: &str = "tests/tests";

pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.level != Level::Unit && !process::is_root() {
        bail!("the kernel tests need root: run this as root, or `cargo xtask test unit` without them");
    }
    let tests = Tests { workspace, rest: &args.rest };
    let mut stages = Stages::new("test");
    let toolchain = stages.run("setup", || match args.level {
        Level::Unit => setup::for_building(workspace),
        _ => setup::for_running(workspace),
    })?;
    match args.level {
        Level::All => {
            lint::run_stages(workspace, &toolchain, &mut stages)?;
            stages.run("build", || tests.cargo("build", &words(&["--lib", "--bins", "--tests"])))?;
            stages.run("unit tests", || tests.unit())?;
            stages.run("documentation examples", || tests.documentation())?;
            stages.run("program tests", || tests.kernel(is_prog_test))?;
            stages.run("namespace tests", || tests.kernel(is_netns_test))?;
        }
        level => {
            stages.run("build BPF programs", || build_ebpf::build(workspace, &toolchain))?;
            match level {
                Level::Prog => stages.run("program tests", || tests.kernel(is_prog_test))?,
                Level::Netns => stages.run("namespace tests", || tests.kernel(is_netns_test))?,
                Level::Unit | Level::All => stages.run("unit tests", || tests.unit())?,
            }
        }
    }
    stages.finish();
    Ok(())
}

struct Tests<'a> {
    workspace: &'a Workspace,
    /// For every test binary.
    rest: &'a [String],
}

impl Tests<'_> {
    fn unit(&self) -> Result<()> {
        let mut targets = words(&["--lib", "--bins"]);
        for dir in UNIT_TEST_DIRS {
            let dir = self.workspace.root.join(dir);
            if dir.is_dir() {
                targets.extend(as_targets(&test_names(&dir)?));
            }
        }
        self.cargo("test", &targets)
    }

    fn documentation(&self) -> Result<()> {
        self.cargo("test", &words(&["--doc"]))
    }

    fn kernel(&self, wanted: fn(&str) -> bool) -> Result<()> {
        let mut names = test_names(&self.workspace.root.join(KERNEL_TEST_DIR))?;
        names.retain(|name| wanted(name));
        if names.is_empty() {
            bail!("{KERNEL_TEST_DIR} has no such tests");
        }
        let targets = as_targets(&names);
        // They run the binary, of which cargo does not know.
        let mut with_binary = words(&["--bins"]);
        with_binary.extend_from_slice(&targets);
        self.cargo("build", &with_binary)?;
        self.cargo("test", &targets)
    }

    /// Always selects the whole workspace: what is compiled depends on the
    /// selection, and one selection compiles everything once.
    fn cargo(&self, subcommand: &str, targets: &[String]) -> Result<()> {
        let mut command = self.workspace.cargo();
        command.args([subcommand, "--workspace"]).args(targets);
        if subcommand == "test" {
            command.env("VNET_BIN", self.workspace.vnet_binary(false)).args(["--no-fail-fast", "--"]).args(self.rest);
        }
        process::run(&mut command)
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn as_targets(names: &[String]) -> Vec<String> {
    names.iter().flat_map(|name| ["--test".to_owned(), name.clone()]).collect()
}

/// The integration tests of a directory, by name and in order.
fn test_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("{} cannot be read", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn is_prog_test(name: &str) -> bool {
    name.starts_with("prog_") || name == "parity"
}

/// All the others, so that no file is forgotten (but those that want a machine
/// of their own).
fn is_netns_test(name: &str) -> bool {
    !is_prog_test(name) && !name.starts_with("vm_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_test_belongs_to_one_level() {
        for (name, prog, netns) in [
            ("prog_nat", true, false),
            ("parity", true, false),
            ("netns_bridge", false, true),
            ("harness", false, true),
            ("vm_vlan", false, false),
        ] {
            assert_eq!(is_prog_test(name), prog, "{name}");
            assert_eq!(is_netns_test(name), netns, "{name}");
        }
    }

    #[test]
    fn tests_are_named_to_cargo_one_by_one() {
        let names = ["netns_nat".to_owned(), "parity".to_owned()];
        assert_eq!(as_targets(&names), ["--test", "netns_nat", "--test", "parity"]);
    }
}
