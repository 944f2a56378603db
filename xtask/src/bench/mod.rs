//! `cargo xtask bench`: Layerstack, its peers and the limits, side by side in one run.
//!
//! | module | subject |
//! |---|---|
//! | `data`, `debian` | the inputs: layer tars, made once and kept in the user's cache |
//! | `store` | the file systems that everything works on, in files in memory |
//! | `contestant` | Layerstack and its peers as programs that unpack layers |
//! | `libraries` | the peers as libraries, for what is too short to be timed as a process |
//! | `oci` | the inputs as an image, for the peers that want one |
//! | `apply`, `cycle`, `deep`, `open`, `changes` | what is measured |
//! | `btrfs` | the same for the driver btrfs, on a store of its own |
//! | `report` | medians, ratios, tables |
//! | `runner` | Layerstack, as a program of its own that is built with the release profile |
//!
//! All that is compared runs in turns, round after round, so that what else the machine does hits all alike.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, ensure};

use crate::{process, workspace};

mod apply;
mod btrfs;
mod changes;
mod contestant;
mod cycle;
mod data;
mod debian;
mod deep;
mod libraries;
mod oci;
mod open;
mod report;
mod store;

use report::Report;
use store::{FileSystem, Store};

/// Measure Layerstack against its peers and against bare system calls.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The parts to run.
    #[arg(value_enum, default_values_t = [Part::Apply, Part::Cycle, Part::Deep, Part::Open, Part::Changes])]
    parts: Vec<Part>,
    /// How many rounds; the tables show the medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The data sets of the part `apply`: A, B, C.
    #[arg(long, value_delimiter = ',', default_values_t = ["A", "B", "C"].map(str::to_owned))]
    sets: Vec<String>,
    /// How the results are printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Unpacking layers.
    Apply,
    /// Creating, mounting, unmounting, removing layers.
    Cycle,
    /// Mounting a chain of 400 layers.
    Deep,
    /// Opening a root of 10,000 layers.
    Open,
    /// Finding 10 changes among 100,000 files.
    Changes,
    /// The life of a layer and finding changes on the driver btrfs, which needs libbtrfsutil; not a part by default.
    Btrfs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What every part needs.
#[derive(Debug)]
struct Bench {
    rounds: u32,
    runner: PathBuf,
    data: data::Directory,
    store: Store,
}

impl Bench {
    /// Runs the release program, and gives the numbers that it printed as JSON.
    fn runner<T: serde::de::DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = process::output(Command::new(&self.runner).args(arguments))?;
        serde_json::from_str(&text).with_context(|| format!("the runner printed \"{}\"", text.trim()))
    }
}

/// Runs the parts and prints their tables.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(process::is_root(), "loop devices and overlay mounts need root; run it with sudo");
    if std::env::var_os(PRIVATE).is_none() {
        return Err(enter_private_namespaces());
    }
    end_on_signals()?;
    let bench = Bench {
        rounds: args.rounds,
        runner: build_runner(args.parts.contains(&Part::Btrfs))?,
        data: data::Directory::open()?,
        store: Store::new(FileSystem::Ext4)?,
    };
    let mut report = Report::default();
    for part in &args.parts {
        match part {
            Part::Apply => apply::run(&bench, &args.sets, &mut report)?,
            Part::Cycle => cycle::run(&bench, &mut report)?,
            Part::Deep => deep::run(&bench, &mut report)?,
            Part::Open => open::run(&bench, &mut report)?,
            Part::Changes => changes::run(&bench, &mut report)?,
            Part::Btrfs => btrfs::run(&bench, &mut report)?,
        }
    }
    report.machine = report::machine();
    match args.format {
        Format::Text => print!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Set in the environment of a process that has namespaces of its own.
const PRIVATE: &str = "LAYERSTACK_BENCH_PRIVATE";

/// Starts this program again where its mounts and the daemons that it starts are its own: they end with it, whatever
/// ends it. Returns only if that fails.
fn enter_private_namespaces() -> anyhow::Error {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    unshare.arg(program).args(std::env::args_os().skip(1)).env(PRIVATE, "1");
    anyhow::Error::new(unshare.exec()).context(format!("failed to start {}", process::line(&unshare)))
}

/// Lets the signals that end a program end this one. It is the first process of its namespace, which the kernel spares
/// those that it does not ask for.
fn end_on_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        let always = Arc::new(AtomicBool::new(true));
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, always)?;
    }
    Ok(())
}

/// Builds Layerstack's part with the release profile; gives the program.
fn build_runner(with_btrfs: bool) -> Result<PathBuf> {
    const NAME: &str = "layerstack-bench";
    let mut build = workspace::cargo();
    let features = if with_btrfs { "bench-runner,bench-runner-btrfs" } else { "bench-runner" };
    build.args(["build", "--quiet", "--release", "--package", "xtask", "--features", features]);
    process::run(build.args(["--bin", NAME]))?;
    Ok(workspace::Metadata::load()?.target_directory.join("release").join(NAME))
}
