//! Running the built suite of one driver.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::build::Suite;
use super::outcome::{self, Record};
use super::store::Store;
use super::{Args, Format};
use crate::process;

/// Runs the suite and gives what became of each case.
pub(crate) fn suite(suite: &Suite, store: &Store, args: &Args) -> Result<Vec<Record>> {
    let cases = suite.cases(args.filter.as_deref())?;
    let report = store.report();
    fs::write(&report, "")?;
    // The suite ends with this program, however this program ends.
    let mut command = match process::find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(&suite.program);
            command
        }
        None => Command::new(&suite.program),
    };
    command.args(args.filter.as_deref());
    if args.require {
        command.arg("--require");
    }
    command
        .env("LAYERSTACK_CONFORMANCE_STORE", store.large())
        .env("LAYERSTACK_CONFORMANCE_SMALL_STORE", store.small())
        .env("LAYERSTACK_CONFORMANCE_REPORT", &report);
    if args.format == Format::Pretty {
        println!("driver {}", suite.driver);
    } else {
        // Standard output is for what is asked for.
        command.stdout(Stdio::null());
    }
    let status = command.status().with_context(|| format!("failed to start {}", process::line(&command)))?;
    let records = outcome::complete(&suite.driver, &cases, &fs::read_to_string(&report)?)?;
    let explained = records.iter().any(|record| !matches!(record.outcome, super::Outcome::Passed));
    anyhow::ensure!(
        status.success() || explained,
        "{} ended with {status}, though every case passed",
        suite.program.display()
    );
    Ok(records)
}
