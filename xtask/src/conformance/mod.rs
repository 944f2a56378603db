//! `cargo xtask conformance`: the suite on scratch file systems, and a matrix of what came out.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process;
use crate::workspace::Metadata;

mod build;
mod junit;
mod matrix;
mod outcome;
mod run;
mod store;

use outcome::{Outcome, Record};
use store::FileSystem;

/// Set in the environment of the process that has its own table of mounts.
const INSIDE: &str = "LAYERSTACK_XTASK_OWN_MOUNTS";

/// Holds drivers to the contract.
///
/// Makes scratch file systems on loop devices, in a table of mounts of its own, so that nothing is left of them even
/// if this program is killed; builds the suite with just the driver's crate; runs it; and prints for each driver
/// and group what passed, what failed, and what did not run and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A driver to test; can be given several times.
    #[arg(long = "driver", value_name = "NAME", required_unless_present_any = ["all", "list"])]
    drivers: Vec<String>,
    /// Test every driver of the workspace.
    #[arg(long, conflicts_with = "drivers")]
    all: bool,
    /// Run only the cases whose group or name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Count a case that could not be run as failed.
    #[arg(long)]
    require: bool,
    /// How to print what came out.
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    format: Format,
    /// List the cases and run none.
    #[arg(long)]
    list: bool,
    /// The file system that the layers are kept on; by default the one that suits the driver.
    #[arg(long, value_enum)]
    store_fs: Option<FileSystem>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Each case as it ends, and the matrix.
    Pretty,
    /// A line of JSON for each case, the matrix on standard error.
    Json,
    /// A document as JUnit writes it, the matrix on standard error.
    Junit,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let drivers = selected(args)?;
    if args.list {
        let suite = build::suite(&drivers[0])?;
        for case in suite.cases(args.filter.as_deref())? {
            println!("{case}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if std::env::var_os(INSIDE).is_none() {
        return Err(enter_own_mounts());
    }
    let mut records = Vec::new();
    for driver in &drivers {
        let suite = build::suite(driver)?;
        let store_fs = args.store_fs.unwrap_or_else(|| FileSystem::of_driver(driver));
        let store = store::Store::new(driver, store_fs)?;
        records.extend(run::suite(&suite, &store, args)?);
    }
    report(args, &drivers, &records)
}

/// The drivers asked for, each of which the workspace has.
fn selected(args: &Args) -> Result<Vec<String>> {
    let known = Metadata::load()?.drivers();
    for driver in &args.drivers {
        ensure!(
            known.contains(driver),
            "unknown driver \"{driver}\" (the workspace has: {})",
            known.join(", ")
        );
    }
    let chosen = if args.all || args.drivers.is_empty() { known } else { args.drivers.clone() };
    ensure!(!chosen.is_empty(), "the workspace has no driver");
    Ok(chosen)
}

/// Becomes this program again, in a table of mounts that goes with the last process in it.
fn enter_own_mounts() -> anyhow::Error {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let typed = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    if !process::is_root() {
        return anyhow::anyhow!(
            "the suite mounts file systems, which takes root; run: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {typed}"
        );
    }
    let program = match std::env::current_exe().context("failed to find this program's own file") {
        Ok(program) => program,
        Err(error) => return error,
    };
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(program).args(words).env(INSIDE, "1");
    let line = process::line(&command);
    // Comes back only where it failed.
    anyhow::Error::new(command.exec()).context(format!("failed to start {line}"))
}

fn report(args: &Args, drivers: &[String], records: &[Record]) -> Result<ExitCode> {
    let matrix = matrix::text(drivers, records);
    match args.format {
        Format::Pretty => print!("\n{matrix}"),
        Format::Json => {
            for record in records {
                println!("{}", serde_json::to_string(record)?);
            }
            eprint!("{matrix}");
        }
        Format::Junit => {
            print!("{}", junit::document(records));
            eprint!("{matrix}");
        }
    }
    if records.is_empty() {
        bail!("no case has \"{}\" in its name", args.filter.as_deref().unwrap_or_default());
    }
    let bad = |record: &&Record| match record.outcome {
        Outcome::Failed => true,
        Outcome::NotRun => args.require,
        Outcome::Passed | Outcome::NotOffered => false,
    };
    let good = !records.iter().any(|record| bad(&record));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
