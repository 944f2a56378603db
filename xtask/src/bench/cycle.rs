//! The life of a layer: create, mount, unmount, remove.
//!
//! Inside one process it takes microseconds, which the peers' programs cannot be timed at. So there are two tables: the
//! operations in a loop, beside the peers as libraries in the same loop; and a process an operation, for all alike.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::Bench;
use super::contestant::containers_storage;
use super::contestant::daemons::Containerd;
use super::libraries::{Libraries, NAMES, Peers};
use super::report::{Report, Table};
use super::store::Store;
use crate::process;

/// Layers in a loop of the runner.
const COUNT: &str = "200";

/// Layers made a round by a process each.
const PROCESSES: u32 = 10;

#[derive(Debug, serde::Deserialize)]
struct Cycle {
    create: f64,
    mount: f64,
    unmount: f64,
    remove: f64,
}

/// One operation: its name, and its value in a cycle.
type Operation = (&'static str, fn(&Cycle) -> f64);

const OPERATIONS: [Operation; 4] = [
    ("create", |cycle| cycle.create),
    ("mount", |cycle| cycle.mount),
    ("unmount", |cycle| cycle.unmount),
    ("remove", |cycle| cycle.remove),
];

/// What a reader must know of the loops.
const NOTES: [&str; 2] = [
    "layerstack notes each mount where other processes see it, containers/storage in memory, containerd not at all",
    "an unmount flushes the store: what of the layer, and of the notes on it, was not written yet",
];

/// Adds the tables.
pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    loops(bench, &bench.store, "overlay2", &Libraries::build(Peers::Overlay), report)?;
    processes(bench, report)
}

/// Adds the tables of the loops, of a driver and of the peers' drivers for the same file system.
pub(super) fn loops(
    bench: &Bench,
    store: &Store,
    driver: &str,
    libraries: &Result<Libraries>,
    report: &mut Report,
) -> Result<()> {
    for threads in ["1", "8"] {
        let mut ours: Vec<Cycle> = Vec::new();
        let mut peers: [Result<Vec<Cycle>, String>; NAMES.len()] = match libraries {
            Ok(_) => std::array::from_fn(|_| Ok(Vec::new())),
            Err(error) => std::array::from_fn(|_| Err(format!("{error:#}"))),
        };
        for round in 0..bench.rounds {
            eprintln!("{driver}, life cycle, {threads} at once, round {} of {}", round + 1, bench.rounds);
            let root = store.directory("cycle")?;
            store.settle()?;
            let root = root.display().to_string();
            ours.push(bench.runner(&["cycle", &root, driver, COUNT, threads])?);
            let Ok(libraries) = libraries else { continue };
            for (number, (name, cycles)) in NAMES.into_iter().zip(&mut peers).enumerate() {
                let Ok(all) = cycles else { continue };
                // A directory of its own: containers/storage leaves its own mounted.
                let root = store.directory(&format!("cycle-{threads}-{round}-{number}"))?;
                store.settle()?;
                match libraries.cycle(name, &root, COUNT, threads) {
                    Ok(cycle) => all.push(cycle),
                    Err(error) => *cycles = Err(format!("{error:#}")),
                }
            }
        }
        let remark = if threads == "1" { "in one process, median" } else { "in one process, mean" };
        for (operation, value) in OPERATIONS {
            let title = format!("{driver}: {operation} a layer, {threads} at once, microseconds");
            let mut table = Table::new(title);
            table.measured("layerstack", &ours.iter().map(value).collect::<Vec<_>>(), remark);
            for (name, cycles) in NAMES.into_iter().zip(&peers) {
                match cycles {
                    Ok(cycles) => {
                        table.measured(name, &cycles.iter().map(value).collect::<Vec<_>>(), remark);
                    }
                    Err(why) => table.not_run(name, why),
                }
            }
            table.notes.extend(NOTES.map(str::to_owned));
            report.tables.push(table);
        }
    }
    Ok(())
}

/// Milliseconds a command, of all rounds.
#[derive(Debug, Default)]
struct Commands {
    create: Vec<f64>,
    remove: Vec<f64>,
}

impl Commands {
    /// Times the creation of several layers and their removal.
    fn round(
        &mut self,
        mut create: impl FnMut(&str) -> Result<()>,
        mut remove: impl FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let each = |work: &mut dyn FnMut(&str) -> Result<()>| {
            let start = Instant::now();
            for number in 0..PROCESSES {
                work(&format!("layer{number}"))?;
            }
            Ok::<_, anyhow::Error>(start.elapsed().as_secs_f64() * 1e3 / f64::from(PROCESSES))
        };
        self.create.push(each(&mut create)?);
        self.remove.push(each(&mut remove)?);
        Ok(())
    }
}

fn processes(bench: &Bench, report: &mut Report) -> Result<()> {
    let root = bench.store.directory("processes")?;
    let ours = |command: &str, arguments: &[&str]| {
        let mut runner = Command::new(&bench.runner);
        process::output(runner.arg(command).arg(&root).arg("overlay2").args(arguments)).map(drop)
    };
    ours("import", &["plain"])?;
    let directory = bench.store.directory("processes-storage")?;
    let (graph, run) = (directory.join("graph"), directory.join("run"));
    let storage = |command: &str, arguments: &[&str]| {
        process::output(containers_storage(command, &graph, &run).args(arguments)).map(drop)
    };
    let containerd = Containerd::open(&bench.store);
    let snapshots = |arguments: &[&str]| {
        let containerd = containerd.as_ref().ok().context("containerd does not run")?;
        containerd.call(&[&["snapshots"], arguments].concat()).map(drop)
    };
    let mut commands: [Commands; 3] = Default::default();
    let mut failures: [Option<String>; 3] = Default::default();
    for round in 0..bench.rounds {
        eprintln!("commands, round {} of {}", round + 1, bench.rounds);
        bench.store.settle()?;
        let results = [
            commands[0].round(|id| ours("create", &[id]), |id| ours("remove", &[id])),
            commands[1]
                .round(|id| storage("create-layer", &["--id", id]), |id| storage("delete-layer", &[id])),
            commands[2].round(|id| snapshots(&["prepare", id]), |id| snapshots(&["rm", id])),
        ];
        for (failure, result) in failures.iter_mut().zip(results) {
            *failure = failure.take().or_else(|| result.err().map(|error| format!("{error:#}")));
        }
    }
    if let Err(error) = &containerd {
        failures[2] = Some(format!("{error:#}"));
    }
    let _ = storage("shutdown", &[]);
    for (operation, times) in [("create", 0), ("remove", 1)] {
        let mut table = Table::new(format!("overlay2: {operation} a layer by a command, milliseconds"));
        let remarks = ["a process", "a process", "a process, and a call of a running daemon"];
        for (number, name) in ["layerstack", "containers-storage", "containerd"].iter().enumerate() {
            let times = [&commands[number].create, &commands[number].remove][times];
            match &failures[number] {
                None => table.measured(name, times, remarks[number]),
                Some(failure) => table.not_run(name, failure),
            }
        }
        report.tables.push(table);
    }
    Ok(())
}
