//! Building a driver's `tests/conformance.rs`, with no other driver.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::{process, workspace};

/// The built suite of one driver.
#[derive(Debug)]
pub(crate) struct Suite {
    /// The driver's name.
    pub(crate) driver: String,
    /// The program to run.
    pub(crate) program: PathBuf,
}

/// Builds the suite of a driver.
pub(crate) fn suite(driver: &str) -> Result<Suite> {
    let program = test(&format!("layerstack-{driver}"), "conformance")?;
    Ok(Suite { driver: driver.to_owned(), program })
}

/// Builds a test of a package and gives its program; cargo's own words go to standard error.
pub(crate) fn test(package: &str, name: &str) -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command
        .args(["test", "--package", package, "--test", name, "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let line = process::line(&command);
    let output = command.output().with_context(|| format!("failed to start {line}"))?;
    anyhow::ensure!(output.status.success(), "{line} ended with {}", output.status);
    executable(&String::from_utf8_lossy(&output.stdout), name)
        .with_context(|| format!("{line} built no program: has {package} no tests/{name}.rs?"))
}

/// The program of a test that the messages of cargo name, a JSON object a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let built = messages.filter(|message| message["target"]["name"] == name);
    built.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back()
}

impl Suite {
    /// The names of the cases that a filter leaves, in their order.
    pub(crate) fn cases(&self, filter: Option<&str>) -> Result<Vec<String>> {
        let list = process::output(Command::new(&self.program).arg("--list").args(filter))?;
        Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_one_of_the_target() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/x/other"}
not json
{"reason":"compiler-artifact","target":{"name":"conformance"},"executable":"/x/conformance-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "conformance"), Some(PathBuf::from("/x/conformance-1")));
        assert_eq!(executable("{}", "conformance"), None);
    }
}
