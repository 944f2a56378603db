//! `cargo xtask setup`: installs what the host lacks.

use std::io::IsTerminal as _;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::process;

mod packages;

pub(crate) use packages::Part;
use packages::{NEEDS, Need};

/// Install what building, testing and the demo need: Debian packages, and Rust's formatter and linter.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// Installs what is missing for all parts.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    for need in &NEEDS {
        let state = if need.is_met() { "present" } else { "missing" };
        println!("{state}  {:12} {}", need.package, need.purpose);
    }
    for component in COMPONENTS {
        let state = if component.is_met() { "present" } else { "missing" };
        println!("{state}  {:12} {}", component.name, component.purpose);
    }
    let mut missing = Vec::new();
    for part in [Part::Test, Part::Demo] {
        missing.extend(if args.dry_run { plan(part) } else { provide(part) });
    }
    if missing.is_empty() {
        println!("everything is there");
        return Ok(ExitCode::SUCCESS);
    }
    for missing in &missing {
        println!("{missing}");
    }
    Ok(if args.dry_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A component of the Rust tool chain.
struct Component {
    name: &'static str,
    program: &'static str,
    purpose: &'static str,
}

const COMPONENTS: [Component; 2] = [
    Component { name: "rustfmt", program: "fmt", purpose: "checks the formatting" },
    Component { name: "clippy", program: "clippy", purpose: "checks the code" },
];

impl Component {
    fn is_met(&self) -> bool {
        process::succeeds(process::cargo().args([self.program, "--version"]))
    }
}

/// Installs what `part` lacks as far as that is permitted, and gives a sentence for each thing that is still
/// missing. Quick where nothing is.
pub(crate) fn provide(part: Part) -> Vec<String> {
    let packages = missing_packages(part);
    let refusal = if packages.is_empty() { None } else { install(&packages).err() };
    let mut left: Vec<String> = NEEDS
        .iter()
        .filter(|need| need.part == part && !need.is_met())
        .map(|need| {
            let why = refusal
                .as_ref()
                .map_or_else(|| "the package did not bring it".to_owned(), ToString::to_string);
            format!(
                "{} is missing ({}): {why}; install it with: {}",
                need.package,
                need.purpose,
                by_hand(&[need.package])
            )
        })
        .collect();
    if part == Part::Test {
        for component in COMPONENTS.iter().filter(|component| !component.is_met()) {
            let command = format!("rustup component add {}", component.name);
            if !process::succeeds(Command::new("rustup").args(["component", "add", component.name])) {
                left.push(format!(
                    "{} is missing ({}): install it with: {command}",
                    component.name, component.purpose
                ));
            }
        }
    }
    left
}

/// What [`provide`] would do.
fn plan(part: Part) -> Vec<String> {
    let packages = missing_packages(part);
    let mut steps = Vec::new();
    if !packages.is_empty() {
        steps.push(format!("would run: {}", by_hand(&packages)));
    }
    if part == Part::Test {
        let absent = COMPONENTS.iter().filter(|component| !component.is_met());
        steps.extend(absent.map(|component| format!("would run: rustup component add {}", component.name)));
    }
    steps
}

fn missing_packages(part: Part) -> Vec<&'static str> {
    let wanted = |need: &&Need| need.part == part && !need.is_met();
    NEEDS.iter().filter(wanted).map(|need| need.package).collect()
}

fn by_hand(packages: &[&str]) -> String {
    format!("sudo apt-get install --no-install-recommends {}", packages.join(" "))
}

/// Installs Debian packages as root or through sudo.
fn install(packages: &[&str]) -> Result<()> {
    anyhow::ensure!(process::find("apt-get").is_some(), "this host has no apt-get");
    println!("installing {}; this can take minutes", packages.join(" "));
    // A fresh machine has no lists of packages at all, and old lists name files that are gone.
    process::output(apt_get()?.arg("update"))?;
    process::output(apt_get()?.args(["install", "--yes", "--no-install-recommends"]).args(packages))?;
    Ok(())
}

fn apt_get() -> Result<Command> {
    let mut command = if process::is_root() {
        Command::new("apt-get")
    } else {
        anyhow::ensure!(process::find("sudo").is_some(), "this user is not root and there is no sudo");
        let mut sudo = Command::new("sudo");
        // Without a terminal nobody could type a password, and sudo would wait for one.
        if !std::io::stdin().is_terminal() {
            sudo.arg("--non-interactive");
        }
        sudo.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        sudo
    };
    // Another package manager may be at work; wait for it, in seconds.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet=2", "--option=DPkg::Lock::Timeout=300"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_need_says_what_for_and_stands_once() {
        for (index, need) in NEEDS.iter().enumerate() {
            assert!(!need.purpose.is_empty(), "{need:?}");
            assert!(NEEDS[..index].iter().all(|other| other.package != need.package), "{need:?}");
        }
    }

    #[test]
    fn the_hint_is_a_command() {
        assert_eq!(by_hand(&["acl", "attr"]), "sudo apt-get install --no-install-recommends acl attr");
    }
}
