//! What is started in the guest.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::process;

/// The line that says that the disk is mounted.
pub(super) const OPENING: &str = "opening";

/// The first disk of User Mode Linux.
const DISK: &str = "/dev/ubda";

/// Where it is mounted, in the guest's own memory.
const PLACE: &str = "/tmp/disk";

/// Mounts the disk and becomes the victim. Runs in a guest.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The built suite.
    program: PathBuf,
}

/// The command line for it, of this program.
pub(super) fn words(program: &Path) -> Result<Vec<OsString>> {
    let this = std::env::current_exe().context("failed to find this program's own file")?;
    Ok(vec![this.into(), "power-loss-part".into(), program.into()])
}

/// The root of the layers, in the guest.
pub(super) fn root() -> PathBuf {
    Path::new(PLACE).join("root")
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    fs::create_dir_all(PLACE).with_context(|| format!("failed to make {PLACE}"))?;
    process::output(Command::new("mount").args([DISK, PLACE]))?;
    println!("{OPENING}");
    std::io::stdout().flush()?;
    // Returns only if that fails.
    Err(Command::new(&args.program).exec())
        .with_context(|| format!("failed to start {}", args.program.display()))
}
