//! Running the engine as its user does.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process;

/// The program `layerstack` on a root of its own.
#[derive(Debug)]
pub(super) struct Engine {
    program: PathBuf,
    root: PathBuf,
    driver: Option<String>,
}

impl Engine {
    pub(super) fn new(program: PathBuf, root: PathBuf, driver: Option<&str>) -> Self {
        Self { program, root, driver: driver.map(str::to_owned) }
    }

    /// Runs a command, showing it and what it prints, and gives what it printed.
    pub(super) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        let shown = self.quietly(arguments)?;
        for line in shown.lines() {
            println!("    {line}");
        }
        Ok(shown)
    }

    /// Runs a command, showing only the command, and gives what it printed.
    pub(super) fn quietly<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        let mut command = Command::new(&self.program);
        // What the user's environment says is about the user's store.
        command.env_remove("LAYERSTACK_DRIVER").env_remove("LAYERSTACK_CONFIG").arg("--root").arg(&self.root);
        if let Some(driver) = &self.driver {
            command.args(["--driver", driver]);
        }
        command.args(arguments);
        let mut short = Command::new("layerstack");
        short.args(arguments);
        println!("    $ {}", process::line(&short));
        process::output(&mut command)
    }
}

/// Runs a foreign tool, showing the command.
pub(super) fn foreign(command: &mut Command) -> Result<String> {
    println!("    $ {}", process::line(command));
    process::output(command)
}
