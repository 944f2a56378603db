//! This program as process 1 of the guest: makes a tree of files that can be written to, runs the command, tells how it
//! ended, and switches the guest off.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, WaitOptions};
use rustix::system::RebootCommand;

use super::task::{self, Share, Task};

mod modules;
mod tree;

/// A run of this program as a guest's process 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The type of the share's file system.
    file_system: String,
    /// What to mount as the share.
    source: String,
    /// A directory of the host that is free for the guest to work in: that of the share.
    stage: PathBuf,
    /// What the kernel adds by itself: User Mode Linux names its console.
    #[arg(hide = true)]
    added: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(std::process::id() == 1, "this is the first process of a guest; to start one: cargo xtask vm");
    let share = tree::share(&args.file_system, &args.source, &args.stage)?;
    let task = share.task();
    let inside = task.and_then(|task| {
        tree::enter(&task, &share, &args.stage)?;
        Ok((task, Share::at(tree::SHARE)))
    });
    match inside {
        Ok((task, share)) => share.finish(&serve(&task, &share))?,
        Err(error) => share.finish(&Err(error))?,
    }
    rustix::system::reboot(RebootCommand::PowerOff).context("failed to switch the guest off")?;
    // Nobody comes here; the kernel would panic over the loss of this process, which the host sees.
    Ok(ExitCode::SUCCESS)
}

/// Runs the command and gives its exit code.
fn serve(task: &Task, share: &Share) -> Result<u8> {
    beat(share)?;
    modules::provide(task)?;
    let mut command = command(task, share)?;
    match command.spawn() {
        Ok(child) => wait_for(Pid::from_child(&child)),
        Err(error) => {
            let mut stderr = append(&share.file(task::STDERR))?;
            writeln!(stderr, "error: failed to start {}: {error}", task.command[0].display())?;
            // As shells have it.
            Ok(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

/// Gives signs of life from now on.
fn beat(share: &Share) -> Result<()> {
    let mut pulse = append(&share.file(task::PULSE))?;
    std::thread::spawn(move || {
        while pulse.write_all(b".").is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    Ok(())
}

fn append(file: &Path) -> Result<File> {
    let opened = OpenOptions::new().append(true).open(file);
    opened.with_context(|| format!("failed to open {}", file.display()))
}

fn command(task: &Task, share: &Share) -> Result<Command> {
    ensure!(!task.command.is_empty(), "there is no command to run");
    let mut command = match &task.terminal {
        None => {
            let mut command = Command::new(&task.command[0]);
            command.args(&task.command[1..]).stdin(Stdio::null()).process_group(0);
            command.stdout(append(&share.file(task::STDOUT))?).stderr(append(&share.file(task::STDERR))?);
            command
        }
        Some(device) => {
            let terminal = OpenOptions::new().read(true).write(true).open(device);
            let terminal = terminal.with_context(|| format!("failed to open {}", device.display()))?;
            // A session of its own whose terminal this is, so that keys such as Ctrl-C reach it.
            let mut command = Command::new("setsid");
            command.args(["--ctty", "--wait"]).args(&task.command);
            command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
            command
        }
    };
    command
        .current_dir(&task.folder)
        .env_clear()
        .envs(task.environment.iter().map(|(name, value)| (name, value)));
    // There is no udev in the guest that libdevmapper could wait for.
    command.env("DM_DISABLE_UDEV", "1");
    Ok(command)
}

/// Waits for the command, and for whatever else loses its parent meanwhile.
fn wait_for(command: Pid) -> Result<u8> {
    loop {
        let ended = match rustix::process::wait(WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => continue,
            ended => ended.context("failed to wait for the command")?,
        };
        if let Some((pid, status)) = ended
            && pid == command
        {
            let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
            return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
        }
    }
}

/// A file's content, empty where there is none.
fn text(path: impl Into<PathBuf>) -> String {
    fs::read_to_string(path.into()).unwrap_or_default()
}
