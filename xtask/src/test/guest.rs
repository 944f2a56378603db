//! The parts that run in a guest kernel: an older one than most hosts have, with quota for single directories, and with
//! quota groups that do not go by themselves.

use anyhow::Result;

use super::parts::xtask;
use super::report::{Outcome, Part};
use crate::conformance::built_test;
use crate::workspace;
use crate::{process, vm};

/// Tests of quota: package, test, and which of it. Project quota most hosts lack, and quota groups differ by kernel.
const QUOTA_TESTS: [(&str, &str, &[&str]); 3] = [
    ("layerstack-core", "quota", &["--ignored"]),
    ("layerstack-overlay2", "overlay2", &["--ignored"]),
    ("layerstack-btrfs", "btrfs", &["quota::", "killed::"]),
];

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
        for (package, test, which) in QUOTA_TESTS {
            let program = built_test(package, test)?;
            let program = program.to_string_lossy();
            xtask(&[&["vm", "--", &program], which].concat())?;
        }
        Ok(Outcome::Passed)
    }));
    for kind in ["ext4", "xfs"] {
        // All of it: mounts, chains and crashes meet another kernel too. It takes about two minutes.
        parts.push(conformance("overlay2", (kind, "project quota"), None));
        // Plain directories are the same on every kernel, so only what the host could not try.
        parts.push(conformance("vfs", (kind, "project quota"), Some("quota")));
    }
    // All of it as well: nearly every step of this driver is the file system's. It takes three to four minutes.
    parts.push(conformance("btrfs", ("btrfs-quota", "quota groups"), None));
    parts.push(part("pools of devicemapper in a guest kernel", || {
        let program = built_test("layerstack-devicemapper", "pools")?;
        xtask(&["vm", "--", &program.to_string_lossy(), "--ignored"])
    }));
    // What its suite, which is among the others, does not try: limits as small as the cases', and the other file system.
    parts.push(devicemapper("small limits", "dm.basesize=64M", "quota"));
    parts.push(devicemapper("xfs", "dm.fs=xfs", "diff"));
    parts
}

/// A driver's suite on a file system with a quota, all of it or one group.
fn conformance(
    driver: &'static str,
    (kind, quota): (&'static str, &'static str),
    group: Option<&'static str>,
) -> Part {
    let which = group.map_or_else(String::new, |group| format!(", the cases of {group} only"));
    part(format!("conformance in a guest kernel, {driver} on {kind} with {quota}{which}"), move || {
        let mut words =
            vec!["conformance", "--require", "--on", "uml", "--driver", driver, "--store-fs", kind];
        words.extend(group.iter().flat_map(|group| ["--filter", group]));
        xtask(&words)
    })
}

/// A group of the suite on thin pools with an option.
fn devicemapper(with: &str, option: &'static str, group: &'static str) -> Part {
    part(format!("conformance, devicemapper with {with}, the cases of {group} only"), move || {
        xtask(&[
            "conformance",
            "--require",
            "--driver",
            "devicemapper",
            "--option",
            option,
            "--filter",
            group,
        ])
    })
}

fn part(name: impl Into<String>, run: impl Fn() -> Result<Outcome> + 'static) -> Part {
    Part::new(name, move || match vm::unavailable() {
        Some(reason) => Ok(Outcome::NotRun(reason)),
        None => run(),
    })
}
