//! The link checks: a Rust program and a C program outside the workspace see exactly the drivers that were chosen.
//!
//! A linker drops a crate that nobody names, without a word; in a static library also one that is only imported.
//! So the count is taken in programs that name nothing but the facade, in debug builds, where it went wrong.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::report::{Outcome, Part};
use crate::process;
use crate::workspace::{self, Metadata};

/// A choice of the facade's features.
#[derive(Debug)]
struct Choice {
    features: Vec<String>,
    /// The drivers that must be linked in, sorted by name.
    drivers: Vec<String>,
}

pub(super) fn part() -> Part {
    Part::new("link checks", || {
        if process::find("cc").is_none() {
            return Ok(Outcome::NotRun("there is no C compiler: apt-get install gcc libc6-dev".to_owned()));
        }
        let metadata = Metadata::load()?;
        let engine = Engine::outside(&metadata)?;
        for choice in choices(&metadata) {
            engine.check(&choice)?;
            println!("features {:?} link drivers {:?}", choice.features, choice.drivers);
        }
        Ok(Outcome::Passed)
    })
}

/// The default, each driver alone, none, and all.
fn choices(metadata: &Metadata) -> Vec<Choice> {
    let drivers = metadata.drivers();
    let choice = |drivers: Vec<String>| Choice { features: drivers.clone(), drivers };
    let mut choices = vec![choice(drivers.clone()), choice(Vec::new())];
    choices.push(Choice { features: vec!["default".to_owned()], drivers: metadata.default_drivers() });
    if drivers.len() > 1 {
        choices.extend(drivers.into_iter().map(|driver| choice(vec![driver])));
    }
    choices
}

/// The programs of `fixtures/link`, copied to a place outside the workspace.
struct Engine {
    folder: TempDir,
    built: PathBuf,
}

impl Engine {
    fn outside(metadata: &Metadata) -> Result<Self> {
        let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
        let root = workspace::root();
        let fixture = root.join("xtask/fixtures/link");
        fs::create_dir(folder.path().join("src"))?;
        for file in ["src/lib.rs", "src/main.rs", "main.c"] {
            fs::copy(fixture.join(file), folder.path().join(file))
                .with_context(|| format!("failed to copy {file}"))?;
        }
        let manifest = fs::read_to_string(fixture.join("Cargo.toml"))?;
        let facade = root.join("drivers").display().to_string();
        fs::write(folder.path().join("Cargo.toml"), manifest.replace("../../../drivers", &facade))?;
        // The same versions as in the workspace: they are there already, and what is built of them too.
        fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock"))?;
        Ok(Self { folder, built: metadata.target_directory.join("debug") })
    }

    fn check(&self, choice: &Choice) -> Result<()> {
        let libraries = self.folder.path().join("libraries");
        let mut library = self.cargo("rustc", choice);
        library.args(["--lib", "--", "--print"]).arg(format!("native-static-libs={}", libraries.display()));
        process::output(&mut library)?;
        let native = fs::read_to_string(&libraries).context("rustc named no native libraries")?;

        let rust = process::output(self.cargo("run", choice).args(["--bin", "layerstack-link-check"]))?;
        let names: Vec<&str> = rust.lines().collect();
        ensure!(
            names == choice.drivers,
            "a Rust program with features {:?} has drivers {names:?}",
            choice.features
        );

        let archive = self.built.join("liblayerstack_link_check.a");
        self.check_c(choice, Command::new("cc").arg("main.c").arg(archive).args(native.split_whitespace()))?;
        let shared = self.built.join("liblayerstack_link_check.so");
        let search = format!("-Wl,-rpath,{}", self.built.display());
        self.check_c(choice, Command::new("cc").arg("main.c").arg(shared).arg(search))
    }

    fn cargo(&self, subcommand: &str, choice: &Choice) -> Command {
        let features: Vec<String> =
            choice.features.iter().map(|feature| format!("{}/{feature}", workspace::FACADE)).collect();
        let mut command = process::cargo();
        command.current_dir(&self.folder).args([subcommand, "--quiet", "--features", &features.join(",")]);
        if let Some(target) = self.built.parent() {
            command.env("CARGO_TARGET_DIR", target);
        }
        command
    }

    fn check_c(&self, choice: &Choice, compiler: &mut Command) -> Result<()> {
        let program = self.folder.path().join("program");
        process::run(compiler.current_dir(&self.folder).arg("-o").arg(&program))?;
        let count = process::output(&mut Command::new(&program))?;
        ensure!(
            count.trim() == choice.drivers.len().to_string(),
            "{} has {} drivers, not {:?}",
            process::line(compiler),
            count.trim(),
            choice.drivers
        );
        Ok(())
    }
}
