//! `cargo xtask tidy`: the conventions that a compiler cannot check, checked by reading the files.
//!
//! Each rule is a function from what was read to what is wrong, so that its tests can show it bad input.

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::{self, Metadata};

mod cases;
mod code;
mod crates;
mod documents;
mod drivers;
mod licences;
mod names;
mod tree;

use tree::Tree;

/// Check the conventions that a compiler cannot: names, places, documentation, dependencies, licences.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Relative to the workspace.
    file: String,
    /// Counted from 1; 0 where it is the file as a whole.
    line: usize,
    /// What is wrong, and what to do.
    message: String,
}

impl Finding {
    fn new(file: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// Checks all rules and prints what is wrong.
pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    let findings = check()?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} to mend", findings.len());
    Ok(ExitCode::FAILURE)
}

/// All that is wrong, by file.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let root = workspace::root();
    let tree = Tree::read(&root)?;
    let metadata = Metadata::load()?;
    let mut findings = Vec::new();
    findings.extend(names::check(&tree));
    findings.extend(code::check(&tree));
    findings.extend(cases::check(&tree));
    findings.extend(drivers::check(&tree));
    findings.extend(crates::check(&tree, &metadata, &root));
    findings.extend(documents::check(&tree, &metadata));
    findings.extend(licences::check(&metadata));
    findings.sort();
    findings.dedup();
    Ok(findings)
}
