//! One driver's suite on scratch file systems, on whatever kernel this runs: what `cargo xtask conformance` starts on
//! the host in a table of mounts of its own, or in a guest.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::build::Suite;
use super::outcome::{self, Outcome, Report};
use super::store::{FileSystem, Store};
use crate::process;

/// The exit code of a suite that was asked whether its driver can work here, and says no.
const UNAVAILABLE: i32 = 3;

/// Runs a driver's built suite, and prints what came out as JSON; the suite's own words go to standard error.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The driver's name.
    #[arg(long)]
    pub(super) driver: String,
    /// The built suite.
    #[arg(long)]
    pub(super) program: PathBuf,
    /// Where the file systems are made.
    #[arg(long)]
    pub(super) folder: PathBuf,
    /// What kind they are.
    #[arg(long, value_enum)]
    pub(super) store_fs: FileSystem,
    /// Options of the driver for every root that is opened.
    #[arg(long = "option")]
    pub(super) options: Vec<String>,
    /// Which cases run.
    #[arg(long)]
    pub(super) filter: Option<String>,
    /// Whether what did not run has failed.
    #[arg(long)]
    pub(super) require: bool,
    /// Whether the suite's own words are left out.
    #[arg(long)]
    pub(super) quiet: bool,
    /// Whether to run nothing where the driver cannot work, and say why.
    #[arg(long)]
    pub(super) unless_unavailable: bool,
}

impl Args {
    /// The command line that gives these, of this program.
    pub(super) fn words(&self) -> Result<Vec<std::ffi::OsString>> {
        use clap::ValueEnum as _;
        let kind = self.store_fs.to_possible_value().context("a file system without a name")?;
        let mut words: Vec<std::ffi::OsString> =
            vec![std::env::current_exe().context("failed to find this program's own file")?.into()];
        words.extend(
            ["conformance-part", "--driver", &self.driver, "--store-fs", kind.get_name()].map(Into::into),
        );
        words.extend(["--program".into(), self.program.clone().into()]);
        words.extend(["--folder".into(), self.folder.clone().into()]);
        words.extend(self.options.iter().flat_map(|option| ["--option".into(), option.into()]));
        words.extend(self.filter.iter().flat_map(|filter| ["--filter".into(), filter.into()]));
        let switches = [
            ("--require", self.require),
            ("--quiet", self.quiet),
            ("--unless-unavailable", self.unless_unavailable),
        ];
        words.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| name.into()));
        Ok(words)
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let store = Store::new(&args.driver, args.store_fs, &args.folder)?;
    println!("{}", serde_json::to_string(&report(args, &store)?)?);
    Ok(ExitCode::SUCCESS)
}

fn report(args: &Args, store: &Store) -> Result<Report> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    if args.unless_unavailable
        && let Some(reason) = unavailable(args, store)?
    {
        return Ok(Report { kernel, unavailable: Some(reason), records: Vec::new() });
    }
    let suite = Suite { driver: args.driver.clone(), program: args.program.clone() };
    let cases = suite.cases(args.filter.as_deref())?;
    let file = store.report();
    fs::write(&file, "")?;
    let mut command = suite_on(args, store);
    command.args(args.filter.as_deref()).env("LAYERSTACK_CONFORMANCE_REPORT", &file);
    if args.require {
        command.arg("--require");
    }
    // Standard output is for the report.
    command.stdout(if args.quiet {
        Stdio::null()
    } else {
        io::stderr().as_fd().try_clone_to_owned()?.into()
    });
    let status = command.status().with_context(|| format!("failed to start {}", process::line(&command)))?;
    let records = outcome::complete(&args.driver, &cases, &fs::read_to_string(&file)?)?;
    let explained = records.iter().any(|record| record.outcome != Outcome::Passed);
    ensure!(
        status.success() || explained,
        "{} ended with {status}, though every case passed",
        args.program.display()
    );
    Ok(Report { kernel, unavailable: None, records })
}

/// Why the driver cannot work on this kernel; none where it can.
fn unavailable(args: &Args, store: &Store) -> Result<Option<String>> {
    let mut command = suite_on(args, store);
    let output = command.arg("--probe").stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("failed to start {}", process::line(&command)))?;
    match output.status.code() {
        Some(0) => Ok(None),
        Some(UNAVAILABLE) => Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
        _ => anyhow::bail!("{} ended with {}", process::line(&command), output.status),
    }
}

/// The suite with its stores, which ends with this program, however this program ends.
fn suite_on(args: &Args, store: &Store) -> Command {
    let mut command = match process::find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(&args.program);
            command
        }
        None => Command::new(&args.program),
    };
    command
        .stdin(Stdio::null())
        .env("LAYERSTACK_CONFORMANCE_STORE", store.large())
        .env("LAYERSTACK_CONFORMANCE_SMALL_STORE", store.small())
        .env("LAYERSTACK_CONFORMANCE_OPTIONS", args.options.join(" "));
    command
}

/// An option as the command line has it. The suite takes several in one variable, separated by spaces.
pub(crate) fn option(text: &str) -> Result<String> {
    ensure!(
        text.split_once('=').is_some_and(|(key, _)| !key.is_empty()) && !text.contains(char::is_whitespace),
        "an option is KEY=VALUE without spaces, such as dm.fs=xfs"
    );
    Ok(text.to_owned())
}
