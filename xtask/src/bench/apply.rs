//! How long it takes to unpack the layers of an image, and to remove them again.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::Bench;
use super::contestant::{self, Contestant, Input};
use super::oci::Image;
use super::report::{Report, Table};

/// What a contestant took in each round, in seconds.
#[derive(Debug, Default)]
struct Times {
    unpack: Vec<f64>,
    clear: Vec<f64>,
    memory: Vec<f64>,
    failure: Option<String>,
}

/// Adds a table for each set.
pub(super) fn run(bench: &Bench, sets: &[String], report: &mut Report) -> Result<()> {
    let mut all = contestant::all(bench)?;
    for name in sets {
        let input = match bench.data.set(name) {
            Ok(set) => {
                let directory = bench.store.directory("image")?;
                let image =
                    Image::new(&set, &directory).context("failed to make an image of the data set")?;
                Input { set, image }
            }
            Err(error) => {
                let mut table = Table::new(format!("Unpacking data set {name}"));
                table.not_run("all", &format!("{error:#}"));
                report.tables.push(table);
                continue;
            }
        };
        let mut times: Vec<Times> = all.iter().map(|_| Times::default()).collect();
        for round in 0..bench.rounds {
            for (contestant, times) in all.iter_mut().zip(&mut times) {
                let Ok(contestant) = contestant else { continue };
                if times.failure.is_none() {
                    eprintln!("{name}, round {} of {}: {}", round + 1, bench.rounds, contestant.name());
                    let done = measure(bench, &mut **contestant, &input, times);
                    times.failure = done.err().map(|error| format!("{error:#}"));
                }
            }
        }
        let mut unpack = Table::new(format!("Unpacking data set {name} on ext4 with overlay, seconds"));
        let mut clear = Table::new(format!("Removing the layers of data set {name}, seconds"));
        for (contestant, times) in all.iter().zip(&times) {
            match (contestant, &times.failure) {
                (Ok(contestant), None) => {
                    unpack.measured(contestant.name(), &times.unpack, contestant.remark());
                    clear.measured(contestant.name(), &times.clear, "");
                    if let Some(peak) = times.memory.iter().copied().reduce(f64::max) {
                        unpack.notes.push(format!("{}: at most {peak:.1} MiB of memory", contestant.name()));
                    }
                }
                (Ok(contestant), Some(failure)) => unpack.not_run(contestant.name(), failure),
                (Err((name, why)), _) => unpack.not_run(name, why),
            }
        }
        report.tables.extend([unpack, clear]);
    }
    Ok(())
}

fn measure(bench: &Bench, contestant: &mut dyn Contestant, input: &Input, times: &mut Times) -> Result<()> {
    contestant.prepare(input)?;
    input.set.warm()?;
    bench.store.settle()?;
    let start = Instant::now();
    contestant.unpack(input)?;
    times.unpack.push(start.elapsed().as_secs_f64());
    times.memory.extend(contestant.memory());
    bench.store.settle()?;
    let start = Instant::now();
    contestant.clear(input)?;
    times.clear.push(start.elapsed().as_secs_f64());
    Ok(())
}
