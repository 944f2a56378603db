//! The chores of the workspace: `cargo xtask COMMAND`. One module a command.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program talks to its user")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod conformance;
mod demo;
mod power_loss;
mod process;
mod setup;
mod test;
mod tidy;
mod vm;
mod workspace;

/// The chores of the Layerstack workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Args),
    Conformance(conformance::Args),
    #[command(hide = true)]
    ConformancePart(conformance::part::Args),
    Setup(setup::Args),
    Test(test::Args),
    Tidy(tidy::Args),
    Demo(demo::Args),
    PowerLoss(power_loss::Args),
    #[command(hide = true)]
    PowerLossPart(power_loss::part::Args),
    Vm(vm::Args),
    #[command(hide = true)]
    VmSession(vm::session::Args),
    #[command(hide = true)]
    VmGuest(vm::guest::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::ConformancePart(args) => conformance::part::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Tidy(args) => tidy::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::PowerLoss(args) => power_loss::run(&args),
        Command::PowerLossPart(args) => power_loss::part::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::VmSession(args) => vm::session::run(&args),
        Command::VmGuest(args) => vm::guest::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
