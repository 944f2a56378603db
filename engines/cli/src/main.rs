//! `layerstack`, the command-line engine: images and containers on any of the storage drivers.
//!
//! `arguments` says what a command line is, `commands` has one module a command. A command opens the store through
//! its [`Session`](session::Session), asks the store for one thing, and prints what it got.

use std::process::ExitCode;

mod arguments;

mod session;

mod failure;

mod input;

mod output;

mod interrupt;

mod progress;

mod table;

mod text;

mod units;

mod commands;

use arguments::Arguments;
use session::Session;

fn main() -> ExitCode {
    let Arguments { global, command } = match Arguments::read(std::env::args_os()) {
        Ok(arguments) => arguments,
        // Prints the message, or the help that was asked for, and exits with 2, or 0.
        Err(error) => error.exit(),
    };
    match commands::run(command, &Session::new(global)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.exit_code())
        }
    }
}
