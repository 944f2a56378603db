//! Where a suite runs: on this host, or in a guest where the host's kernel lacks what the driver needs.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::build::Suite;
use super::outcome::{Record, Report};
use super::store::FileSystem;
use super::{Args, Format, part};
use crate::process;
use crate::vm::{self, Machine};
use crate::workspace::{self, Metadata};

/// Where the file systems are made in a guest, which has memory there.
const IN_GUEST: &str = "/tmp";

/// A place for suites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum On {
    /// This host.
    Host,
    /// A guest of User Mode Linux.
    Uml,
    /// A guest on an emulated machine.
    Qemu,
}

impl On {
    fn machine(self) -> Option<Machine> {
        match self {
            Self::Host => None,
            Self::Uml => Some(Machine::Uml),
            Self::Qemu => Some(Machine::Qemu),
        }
    }
}

/// The outcome of each case of a driver, and where they ran.
#[derive(Debug)]
pub(super) struct Ran {
    /// The host or the kind of guest, and the kernel.
    pub(super) place: String,
    pub(super) records: Vec<Record>,
}

/// Runs a suite where the arguments say, or where it can run.
pub(super) fn run(suite: &Suite, args: &Args) -> Result<Ran> {
    match args.on {
        Some(On::Host) => on_host(suite, args, false).map(|report| ran("host", report)),
        Some(on) => in_guest(suite, args, on.machine()),
        None if args.guest.names_kernel() => in_guest(suite, args, None),
        None if !process::is_root() => {
            println!(
                "{}: in a guest, since the suite mounts file systems and this user is not root",
                suite.driver
            );
            in_guest(suite, args, None)
        }
        None => {
            let report = on_host(suite, args, true)?;
            let Some(reason) = report.unavailable else { return Ok(ran("host", report)) };
            eprintln!("{}: in a guest, since this host lacks what it needs: {reason}", suite.driver);
            match order(suite, args, None) {
                Ok(order) => run_order(&order, args),
                Err(error) => nowhere(suite, args, &format!("{reason}; and there is no guest: {error:#}")),
            }
        }
    }
}

fn ran(place: &str, report: Report) -> Ran {
    let place = format!("{place}, kernel {}", report.kernel);
    let records = report.records.into_iter().map(|record| Record { on: place.clone(), ..record }).collect();
    Ran { place, records }
}

/// Each case as one that could not be run.
fn nowhere(suite: &Suite, args: &Args, reason: &str) -> Result<Ran> {
    let cases = suite.cases(args.filter.as_deref())?;
    let records = cases.iter().map(|name| Record::not_run(&suite.driver, name, reason)).collect();
    Ok(Ran { place: "nowhere".to_owned(), records })
}

fn part(suite: &Suite, args: &Args, folder: &Path) -> part::Args {
    part::Args {
        driver: suite.driver.clone(),
        program: suite.program.clone(),
        folder: folder.to_owned(),
        store_fs: args.store_fs.unwrap_or_else(|| FileSystem::of_driver(&suite.driver)),
        options: args.options.clone(),
        filter: args.filter.clone(),
        require: args.require,
        quiet: args.format != Format::Pretty,
        unless_unavailable: false,
    }
}

/// On this host, in a table of mounts that goes with the last process in it.
fn on_host(suite: &Suite, args: &Args, unless_unavailable: bool) -> Result<Report> {
    if !process::is_root() {
        let words: Vec<_> = std::env::args_os().skip(1).collect();
        let typed = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        bail!(
            "the suite mounts file systems, which takes root; run: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask \
             {typed}"
        );
    }
    let part = part::Args { unless_unavailable, ..part(suite, args, &Metadata::load()?.target_directory) };
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private", "--"]);
    command.args(part.words()?);
    carried_back(&mut command, args)
}

/// In a guest.
fn in_guest(suite: &Suite, args: &Args, machine: Option<Machine>) -> Result<Ran> {
    run_order(&order(suite, args, machine)?, args)
}

fn order(suite: &Suite, args: &Args, machine: Option<Machine>) -> Result<vm::Order> {
    let words = part(suite, args, Path::new(IN_GUEST)).words()?;
    let keep: Vec<PathBuf> =
        suite.program.parent().map(Path::to_owned).into_iter().chain([workspace::root()]).collect();
    args.guest.order(machine, words, keep)
}

fn run_order(order: &vm::Order, args: &Args) -> Result<Ran> {
    let report = carried_back(&mut vm::command(order)?, args)?;
    Ok(ran(order.machine().name(), report))
}

/// Runs a part and reads its report.
fn carried_back(command: &mut Command, args: &Args) -> Result<Report> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(match args.format {
        Format::Pretty => io::stdout().as_fd().try_clone_to_owned()?.into(),
        // Standard output is for what is asked for.
        Format::Json | Format::Junit => Stdio::inherit(),
    });
    let output = command.output().with_context(|| format!("failed to start {}", process::line(command)))?;
    if !output.status.success() {
        bail!("the suite could not be run ({}); the reason is above", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the suite's report is none")
}
