//! The parts that run in a guest kernel: an older one than most hosts have, with quota for single directories.

use anyhow::Result;

use super::parts::xtask;
use super::report::{Outcome, Part};
use crate::conformance::built_test;
use crate::workspace;
use crate::{process, vm};

/// Tests that need project quota, which most hosts lack: package and test.
const QUOTA_TESTS: [(&str, &str); 2] = [("layerstack-core", "quota"), ("layerstack-overlay2", "overlay2")];

/// The file systems that have project quota.
const QUOTA_FILE_SYSTEMS: [&str; 2] = ["ext4", "xfs"];

pub(super) fn all() -> Vec<Part> {
    let mut parts = vec![part("guest kernel", || {
        process::run(workspace::cargo().args([
            "test",
            "--quiet",
            "--package",
            "xtask",
            "--test",
            "vm",
            "--",
            "--ignored",
            "--test-threads=2",
        ]))?;
        Ok(Outcome::Passed)
    })];
    parts.push(part("quota tests in a guest kernel", || {
        for (package, test) in QUOTA_TESTS {
            let program = built_test(package, test)?;
            let program = program.to_string_lossy();
            xtask(&["vm", "--", &program, "--ignored"])?;
        }
        Ok(Outcome::Passed)
    }));
    parts.extend(QUOTA_FILE_SYSTEMS.map(|kind| {
        part(format!("conformance in a guest kernel, {kind} with project quota"), move || {
            let drivers = ["--driver", "overlay2", "--driver", "vfs"];
            let words = ["conformance", "--require", "--on", "uml", "--store-fs", kind];
            xtask(&[&words[..], &drivers].concat())
        })
    }));
    parts
}

fn part(name: impl Into<String>, run: impl Fn() -> Result<Outcome> + 'static) -> Part {
    Part::new(name, move || match vm::unavailable() {
        Some(reason) => Ok(Outcome::NotRun(reason)),
        None => run(),
    })
}
