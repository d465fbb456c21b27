//! Running other programs: with their output shown, or captured under a time
//! limit; and looking for them without running anything.

use std::env;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::interrupt;

const POLL: Duration = Duration::from_millis(5);
/// How long the pipes of a program that has ended may stay open.
const DRAIN: Duration = Duration::from_secs(1);

/// What a finished program left.
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The output of a program that had to succeed.
    pub fn success(self, what: &str) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let words = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        match telling_line(words) {
            Some(line) => Err(anyhow!("{what}: {line}")),
            None => Err(anyhow!("{what}: {}", self.status)),
        }
    }
}

/// The line that says what went wrong: the first that calls itself an error
/// (apt says `E:`), else the last.
fn telling_line(words: &str) -> Option<&str> {
    let mut lines = words.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .clone()
        .find_map(|line| ["error: ", "Error: ", "E: "].iter().find_map(|prefix| line.strip_prefix(prefix)))
        .or_else(|| lines.next_back())
}

/// Runs `command` with its output shown.
pub fn run(command: &mut Command) -> Result<()> {
    let line = display(command);
    let status = command.status().with_context(|| format!("`{line}` cannot be started"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs `command` and collects its output; ends it when `limit` is over.
pub fn capture(command: &mut Command, limit: Duration) -> Result<Outcome> {
    let line = display(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C is for us: we end our programs ourselves, in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("`{line}` cannot be started"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = match wait(&mut child, limit) {
        Ok(Some(status)) => status,
        Ok(None) => {
            end(&mut child);
            bail!("`{line}` did not end within {} s", limit.as_secs());
        }
        Err(error) => {
            end(&mut child);
            return Err(error);
        }
    };
    Ok(Outcome {
        status,
        stdout: stdout.recv_timeout(DRAIN).unwrap_or_default(),
        stderr: stderr.recv_timeout(DRAIN).unwrap_or_default(),
    })
}

/// Waits for `child`; `None` when `limit` is over first.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("a program cannot be waited for")? {
            return Ok(Some(status));
        }
        interrupt::check()?;
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Waits until `condition` holds; `what` completes "… did not happen".
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        interrupt::check()?;
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Ends `child` for good. One that is gone already is as good.
pub fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Asks `child` to end, and ends it for good when `limit` is over.
pub fn stop(child: &mut Child, limit: Duration) {
    signal(child.id(), libc::SIGTERM);
    let deadline = Instant::now() + limit;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            end(child);
            return;
        }
        thread::sleep(POLL);
    }
}

/// A process that is gone already needs no signal.
pub fn signal(pid: u32, signal: libc::c_int) {
    // Zero and negative numbers would mean whole groups.
    let Some(pid) = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 1) else {
        return;
    };
    // SAFETY: kill takes two integers and touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut pipe) = pipe {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // A broken pipe ends the text as its end would.
            let _ = pipe.read_to_end(&mut bytes);
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        });
    }
    receiver
}

/// The command as typed: the program's own name and its arguments.
pub fn display(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    for argument in command.get_args() {
        // Writing to a String cannot fail.
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    line
}

/// The first executable of that name in `PATH`, or where an administrator's
/// `PATH` has it.
pub fn which(name: &str) -> Option<PathBuf> {
    which_all(name).into_iter().next()
}

pub fn which_all(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let always = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(always).map(|dir| dir.join(name)).filter(|file| is_executable(file)).collect()
}

pub fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Whether the effective user is root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn output_and_status_are_collected() {
        let outcome =
            capture(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), LONG).expect("sh runs");
        assert_eq!(outcome.stdout, "out\n");
        assert_eq!(outcome.stderr, "err\n");
        assert_eq!(outcome.status.code(), Some(3));
        let error = outcome.success("the shell").expect_err("it failed");
        assert_eq!(error.to_string(), "the shell: err");
    }

    #[test]
    fn the_line_that_names_the_error_is_quoted() {
        for (words, line) in [
            ("info: trying\nerror: no network\n\n  15: <unknown>\n", Some("no network")),
            ("Reading lists...\nE: Unable to locate package x\n", Some("Unable to locate package x")),
            ("first\nlast\n", Some("last")),
            ("\n \n", None),
        ] {
            assert_eq!(telling_line(words), line, "{words:?}");
        }
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let start = Instant::now();
        let error =
            capture(Command::new("sleep").arg("60"), Duration::from_millis(20)).err().expect("the limit is over first");
        assert!(error.to_string().contains("did not end"), "{error}");
        assert!(start.elapsed() < LONG);
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = capture(&mut Command::new("no-such-program-here"), LONG).err().expect("it cannot start");
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
    }

    #[test]
    fn a_command_is_shown_as_typed() {
        let mut command = Command::new("/opt/tools/vnet");
        command.args(["port", "list"]);
        assert_eq!(display(&command), "vnet port list");
    }

    #[test]
    fn programs_are_found_in_the_path_only_if_executable() {
        assert!(which("sh").is_some());
        assert!(which("no-such-program-here").is_none());
        assert!(!is_executable(Path::new("/etc/passwd")));
    }
}
