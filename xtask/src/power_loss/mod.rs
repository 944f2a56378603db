//! `cargo xtask power-loss`: what a power loss leaves of a root, tried over and over.
//!
//! A guest of User Mode Linux has a disk that outlives it. On it a victim, which is the suite's own binary on an errand,
//! makes and removes layers, and says what it promises. The guest is killed outright at a random moment; with it goes
//! whatever its kernel had not written to the disk yet. The next guest's victim judges what is left by what was
//! promised, and goes on.
//!
//! | module | subject |
//! |---|---|
//! | `disk` | the disk |
//! | `boot` | one guest, from its start to its end |
//! | `part` | what is started in the guest: mounts the disk and becomes the victim |
//! | `promises` | what the victims have said of their layers |
//! | `summary` | what is printed in the end |
//!
//! What the guest has written stays, though the disk was not told to flush: it is the memory of the host that is lost in
//! this, and not the cache of a disk.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};

use crate::conformance::{FileSystem, option, suite};
use crate::vm::{self, Machine};
use crate::workspace::{self, Metadata};

mod boot;
mod disk;
pub(crate) mod part;
mod promises;
mod summary;

use boot::{Boot, Ended, Plug};
use disk::Disk;
use promises::Promises;
use summary::Summary;

/// The longest time that a victim works before it is killed.
const LONGEST_WORK: Duration = Duration::from_secs(3);

/// The longest time that it opens and judges the root, in the rounds in which it is killed while it does so.
const LONGEST_JUDGING: Duration = Duration::from_millis(800);

/// Every so many rounds all layers are removed, to find what is left of none.
const CLEAR: u32 = 10;

/// Every so many rounds, at random, the victim is killed before it has judged the root.
const EARLY: u32 = 8;

/// A boot that takes longer is one that hangs, in seconds.
const PATIENCE: u64 = 300;

/// Kill a guest kernel again and again while a driver works in it, and judge what that leaves.
///
/// Each round boots a guest of User Mode Linux on the same disk. There the root is opened and held against what was
/// promised before: what was sealed is there, byte for byte; the rest is whole or absent; what was gone is not back;
/// nothing is left of what is no more. Then layers are made, written to and removed until the guest is killed. What went
/// wrong ends it: with the end of the guest's console, and a copy of the disk.
///
/// With `--option sync=none` nothing is flushed, and it must find that layers are lost.
///
/// A round takes about four seconds. Nothing is left behind, not even by a run that is killed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The driver.
    #[arg(long, value_name = "NAME")]
    driver: String,
    /// How often the guest is killed.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the random numbers begin: the same seed does the same things, but is not killed at the same instructions.
    #[arg(long)]
    seed: Option<u64>,
    /// The file system on the disk; by default the one that suits the driver.
    #[arg(long, value_enum)]
    store_fs: Option<FileSystem>,
    /// An option of the driver, such as dm.fs=xfs; can be given several times.
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = option)]
    options: Vec<String>,
    #[command(flatten)]
    guest: vm::Options,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let known = Metadata::load()?.drivers();
    ensure!(
        known.contains(&args.driver),
        "unknown driver \"{}\" (the workspace has: {})",
        args.driver,
        known.join(", ")
    );
    let seed = args.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()))
    });
    let suite = suite(&args.driver)?;
    let disk = Disk::new(args.store_fs.unwrap_or_else(|| FileSystem::of_driver(&args.driver)))?;
    let words = part::words(&suite.program)?;
    let keep = suite.program.parent().map(std::path::Path::to_owned).into_iter().chain([workspace::root()]);
    let mut order = args.guest.order(Some(Machine::Uml), words, keep.collect())?;
    order.disk = Some(disk.path());
    order.plug = true;
    // Seen only if something goes wrong.
    order.console = true;
    if order.timeout == 0 {
        order.timeout = PATIENCE;
    }
    println!("{} rounds on {}, seed {seed}", args.rounds, args.driver);
    let run = Run {
        boot: Boot { order, options: driver_options(args), chatty: args.guest.shows_console() },
        random: fastrand::Rng::with_seed(seed),
        promises: Promises::default(),
        summary: Summary::default(),
    };
    run.all(args.rounds).or_else(|trouble| {
        let kept = disk.keep().context("the disk could not be kept")?;
        bail!("{trouble:#}\nthe disk is kept: {}", kept.display())
    })
}

/// What a driver needs on a disk of a few gigabytes, and what was asked for.
fn driver_options(args: &Args) -> String {
    let mut options = args.options.clone();
    if args.driver == "devicemapper" && !options.iter().any(|option| option.starts_with("dm.basesize=")) {
        options.push("dm.basesize=200M".to_owned());
    }
    options.join(" ")
}

/// All rounds on one disk.
struct Run {
    boot: Boot,
    random: fastrand::Rng,
    promises: Promises,
    summary: Summary,
}

impl Run {
    fn all(mut self, rounds: u32) -> Result<ExitCode> {
        for round in 1..=rounds {
            let plug = self.plug(round);
            let ended = self.one(round, Some(plug)).with_context(|| format!("round {round}"))?;
            let at = ended.last.as_deref().unwrap_or("nothing");
            self.summary.killed_at(at);
            println!("round {round}: killed at \"{at}\"");
        }
        self.one(rounds + 1, None).context("after the last round")?;
        print!("{}", self.summary);
        Ok(ExitCode::SUCCESS)
    }

    /// When the guest of a round is killed.
    fn plug(&mut self, round: u32) -> Plug {
        // There is nothing to judge in the first.
        let early = round > 1 && self.random.u32(..EARLY) == 0;
        let (line, longest) =
            if early { (part::OPENING, LONGEST_JUDGING) } else { (promises::WORKING, LONGEST_WORK) };
        Plug { line, after: longest.mul_f64(self.random.f64()) }
    }

    fn one(&mut self, round: u32, plug: Option<Plug>) -> Result<Ended> {
        let orders = serde_json::json!({ "power-loss": {
            "root": part::root(),
            "round": round,
            "seed": self.random.u64(..),
            "promises": self.promises.layers(),
            "empty": self.promises.empty(),
            "clear": plug.is_none() || round.is_multiple_of(CLEAR),
            "endless": plug.is_some(),
        }});
        let (promises, summary) = (&mut self.promises, &mut self.summary);
        self.boot.run(&orders, plug, |line| {
            summary.hear(line);
            promises.hear(line)
        })
    }
}
