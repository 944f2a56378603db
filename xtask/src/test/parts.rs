//! The parts, cheapest first, then in an order in which cargo has the least to build again.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::guest;
use super::link;
use super::report::{Outcome, Part};
use crate::workspace::{self, FACADE, Metadata};
use crate::{process, tidy, vm};

/// All parts in the order in which they run.
pub(crate) fn all() -> Result<Vec<Part>> {
    let drivers = Metadata::load()?.drivers();
    let mut parts = vec![cargo("format", &["fmt", "--all", "--check"]), tidy()];
    parts.push(clippy("clippy, default features", &["--workspace"]));
    parts.push(clippy("clippy, all features", &["--workspace", "--all-features"]));
    parts.push(clippy("clippy, no driver", &["-p", FACADE, "--no-default-features"]));
    for driver in &drivers {
        let selection = ["-p", FACADE, "--no-default-features", "--features", driver];
        parts.push(clippy(format!("clippy, {driver} alone"), &selection));
    }
    parts.push(documentation());
    parts.push(oldest_rust());
    parts.push(cargo("unit and integration tests", &["test", "--workspace", "--no-fail-fast", "--quiet"]));
    parts.extend(drivers.iter().map(|driver| conformance(driver)));
    parts.push(btrfs_without_quota());
    parts.extend(guest::all());
    parts.push(third_party());
    parts.push(link::part());
    parts.push(demo());
    Ok(parts)
}

/// A part that is one cargo command in the workspace.
fn cargo(name: impl Into<String>, arguments: &[&str]) -> Part {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Part::new(name, move || {
        process::run(workspace::cargo().args(&arguments))?;
        Ok(Outcome::Passed)
    })
}

fn clippy(name: impl Into<String>, selection: &[&str]) -> Part {
    let tail = ["--all-targets", "--quiet", "--", "-D", "warnings"];
    cargo(name, &[&["clippy"], selection, &tail].concat())
}

fn documentation() -> Part {
    Part::new("documentation", || {
        // Libraries only: the binary `layerstack` and the facade's library have one name, and so one page.
        let mut command = workspace::cargo();
        command
            .args(["doc", "--workspace", "--lib", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings");
        process::run(&mut command)?;
        Ok(Outcome::Passed)
    })
}

/// Builds with the oldest Rust that the workspace claims to build with, where this host has it.
fn oldest_rust() -> Part {
    Part::new("build with the oldest Rust", || {
        let version = env!("CARGO_PKG_RUST_VERSION");
        let chain = format!("+{version}");
        // A cargo that does not come from rustup takes no `+version`; one that does must not download it unasked.
        let mut probe = Command::new("cargo");
        probe.args([&chain, "--version"]).env("RUSTUP_AUTO_INSTALL", "0");
        if !process::succeeds(&mut probe) {
            return Ok(Outcome::Optional(format!("get it with: rustup toolchain install {version}")));
        }
        let mut command = Command::new("cargo");
        command.current_dir(workspace::root()).args([&chain, "check", "--workspace", "--quiet"]);
        // cargo tells its children which tool chain they belong to; this one is to be another.
        command.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC").env_remove("CARGO");
        process::run(&mut command)?;
        Ok(Outcome::Passed)
    })
}

fn tidy() -> Part {
    Part::new("tidy", || {
        let findings = tidy::check()?;
        for finding in &findings {
            println!("{finding}");
        }
        ensure!(findings.is_empty(), "{} conventions broken, listed above", findings.len());
        Ok(Outcome::Passed)
    })
}

/// The suite on scratch stores of its own, through this program's own command: on this host, or in a guest where the
/// host lacks what the driver needs.
fn conformance(driver: &str) -> Part {
    let driver = driver.to_owned();
    Part::new(format!("conformance, {driver}"), move || {
        let not_here = if process::is_root() { unavailable(&driver)? } else { Some(ROOT.to_owned()) };
        if let Some(reason) = not_here
            && let Some(no_guest) = vm::unavailable()
        {
            let reason = format!("{reason}; {no_guest}");
            // Every host that counts as one for testing has what the default drivers need.
            let is_default = Metadata::load()?.default_drivers().contains(&driver);
            return Ok(if is_default { Outcome::NotRun(reason) } else { Outcome::Optional(reason) });
        }
        xtask(&["conformance", "--require", "--driver", &driver])
    })
}

/// The one driver for which it matters what an administrator has turned on.
fn btrfs_without_quota() -> Part {
    Part::new("conformance, btrfs without quota", || {
        if !process::is_root() {
            return Ok(needs_root());
        }
        if let Some(reason) = unavailable("btrfs")? {
            return Ok(Outcome::Optional(reason));
        }
        xtask(&["conformance", "--require", "--driver", "btrfs", "--store-fs", "btrfs"])
    })
}

/// Why this host cannot use a driver, in the engine's words; none where it can.
fn unavailable(driver: &str) -> Result<Option<String>> {
    // The suite brings the file system, so only the kernel's side can be missing.
    if driver == "btrfs" {
        let _ = Command::new("modprobe").arg("--quiet").arg(driver).status();
        let known = fs::read_to_string("/proc/filesystems").context("failed to ask for file systems")?;
        let missing = !known.split_whitespace().any(|name| name == driver);
        return Ok(missing.then(|| "this kernel has no btrfs; boot one of Debian's".to_owned()));
    }
    let root = tempfile::tempdir().context("failed to make a temporary folder")?;
    let mut engine = workspace::cargo();
    // With the drivers that are not built by default too.
    engine.args(["run", "--quiet", "--package", "layerstack-cli", "--all-features", "--"]);
    engine.args(["drivers", "--format", "json"]);
    let listing = process::output(engine.arg("--root").arg(root.path()))?;
    let listing: Vec<Availability> =
        serde_json::from_str(&listing).context("failed to read the list of drivers")?;
    let found = listing.into_iter().find(|entry| entry.name == driver);
    let found = found.with_context(|| format!("the engine has no driver {driver}"))?;
    Ok((found.available != "yes").then_some(found.reason))
}

/// An entry of `layerstack drivers --format json`.
#[derive(serde::Deserialize)]
struct Availability {
    name: String,
    available: String,
    #[serde(default)]
    reason: String,
}

/// A driver outside the workspace runs the suite.
fn third_party() -> Part {
    Part::new("conformance, a driver outside the workspace", || {
        if !process::is_root() {
            return Ok(needs_root());
        }
        let root = workspace::root();
        let folder = root.join("conformance/examples/third-party");
        // The versions of the workspace, which are there already.
        fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).context("failed to copy Cargo.lock")?;
        let mut command = process::cargo();
        command.current_dir(folder).args(["test", "--quiet"]);
        command.env("CARGO_TARGET_DIR", Metadata::load()?.target_directory);
        process::run(&mut command)?;
        Ok(Outcome::Passed)
    })
}

/// The demo on a small image: the large one needs a mirror of Debian.
fn demo() -> Part {
    Part::new("demo on a small image", || {
        if !process::is_root() {
            return Ok(needs_root());
        }
        xtask(&["demo", "--small"])
    })
}

/// Another command of this program, through cargo: a part before may have built the program's file anew.
pub(super) fn xtask(arguments: &[&str]) -> Result<Outcome> {
    process::run(workspace::cargo().args(["run", "--quiet", "--package", "xtask", "--"]).args(arguments))?;
    Ok(Outcome::Passed)
}

/// What takes root says so.
const ROOT: &str = "needs root; run: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask test";

fn needs_root() -> Outcome {
    Outcome::NotRun(ROOT.to_owned())
}
