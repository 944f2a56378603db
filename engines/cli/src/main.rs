//! `layerstack`, the command-line engine: images and containers on any of the storage drivers.
//!
//! `arguments` says what a command line is, `commands` has one module a command. A command opens the store through
//! its [`Session`](session::Session), asks the store for one thing, and prints what it got.

use std::process::ExitCode;

use clap::Parser;

mod arguments;

mod session;

mod failure;

mod output;

mod progress;

mod table;

mod text;

mod units;

mod commands;

fn main() -> ExitCode {
    let arguments::Arguments { global, command } = arguments::Arguments::parse();
    match commands::run(command, &session::Session::new(global)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.exit_code())
        }
    }
}
