//! `cargo xtask conformance`: the suite on scratch file systems, and a matrix of what came out.

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};

use crate::vm;
use crate::workspace::Metadata;

mod build;
mod junit;
mod matrix;
mod outcome;
pub(crate) mod part;
mod place;
mod store;

pub(crate) use build::{suite, test as built_test};
use matrix::Column;
use outcome::{Outcome, Record};
pub(crate) use part::option;
use place::On;
pub(crate) use store::FileSystem;

/// Holds drivers to the contract.
///
/// Makes scratch file systems on loop devices, in a table of mounts of its own, so that nothing is left of them even
/// if this program is killed; builds the suite with just the driver's crate; runs it; and prints for each driver
/// and group what passed, what failed, and what did not run and why. Where this host's kernel lacks what a driver needs,
/// or who calls is not root, the suite runs in a guest kernel, as by `cargo xtask vm`.
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
    /// An option of the driver for every root that is opened, such as dm.fs=xfs; can be given several times.
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = part::option)]
    options: Vec<String>,
    /// Where to run; without it on this host if it has what the driver needs, else in a guest.
    #[arg(long, value_enum)]
    on: Option<On>,
    #[command(flatten)]
    guest: vm::Options,
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
    let (mut columns, mut records) = (Vec::new(), Vec::new());
    for driver in drivers {
        let ran = place::run(&build::suite(&driver)?, args)?;
        columns.push(Column { driver, place: ran.place });
        records.extend(ran.records);
    }
    report(args, &columns, &records)
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

fn report(args: &Args, columns: &[Column], records: &[Record]) -> Result<ExitCode> {
    let matrix = matrix::text(columns, records);
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
