//! `cargo xtask test`: every check there is, and a plain summary of what passed, failed or did not run.

use std::process::ExitCode;

use anyhow::Result;

use crate::setup::{self, Part};

mod guest;
mod link;
mod parts;
mod report;

use report::Report;

/// Run every check: formatting, lints, documentation, tests, conventions, conformance, linking.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only the parts whose name contains this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,

    /// Name the parts and run none.
    #[arg(long)]
    list: bool,
}

/// Runs the parts in order and sums them up.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let parts = parts::all()?;
    if args.list {
        for part in &parts {
            println!("{}", part.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = Report::new(std::env::var_os("CI").is_some_and(|value| value == "true"));
    report.set_up(&setup::provide(Part::Test));
    for part in &parts {
        if args.only.is_empty() || args.only.iter().any(|text| part.name.contains(text.as_str())) {
            report.run(part);
        }
    }
    Ok(report.finish())
}
