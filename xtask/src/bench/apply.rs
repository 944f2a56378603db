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
    /// Processor time of unpacking.
    processor: Vec<f64>,
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
            // Each is the first once: what comes first finds the store cold.
            for turn in 0..all.len() {
                let number = (turn + round as usize) % all.len();
                let (Ok(contestant), times) = (&mut all[number], &mut times[number]) else { continue };
                if times.failure.is_none() {
                    eprintln!("{name}, round {} of {}: {}", round + 1, bench.rounds, contestant.name());
                    let done = measure(bench, &mut **contestant, &input, times);
                    times.failure = done.err().map(|error| format!("{error:#}"));
                }
            }
        }
        let mut unpack = Table::new(format!("Unpacking data set {name} on ext4 with overlay, seconds"));
        let mut processor =
            Table::new(format!("Processor time of unpacking data set {name}, both modes, seconds"));
        let mut clear = Table::new(format!("Removing the layers of data set {name}, seconds"));
        for (contestant, times) in all.iter().zip(&times) {
            match (contestant, &times.failure) {
                (Ok(contestant), None) => {
                    unpack.measured(contestant.name(), &times.unpack, contestant.remark());
                    clear.measured(contestant.name(), &times.clear, "");
                    if contestant.is_child() {
                        processor.measured(contestant.name(), &times.processor, "");
                    }
                    if let Some(peak) = times.memory.iter().copied().reduce(f64::max) {
                        unpack.notes.push(format!("{}: at most {peak:.1} MiB of memory", contestant.name()));
                    }
                }
                (Ok(contestant), Some(failure)) => unpack.not_run(contestant.name(), failure),
                (Err((name, why)), _) => unpack.not_run(name, why),
            }
        }
        report.tables.extend([unpack, processor, clear]);
    }
    Ok(())
}

fn measure(bench: &Bench, contestant: &mut dyn Contestant, input: &Input, times: &mut Times) -> Result<()> {
    contestant.prepare(input)?;
    input.set.warm()?;
    bench.store.settle()?;
    let (start, processor) = (Instant::now(), processor_of_children()?);
    contestant.unpack(input)?;
    times.unpack.push(start.elapsed().as_secs_f64());
    times.processor.push(processor_of_children()? - processor);
    times.memory.extend(contestant.memory());
    bench.store.settle()?;
    let start = Instant::now();
    contestant.clear(input)?;
    times.clear.push(start.elapsed().as_secs_f64());
    Ok(())
}

/// Seconds that processors spent on the children that have ended: `cutime` and `cstime` of proc_pid_stat(5).
fn processor_of_children() -> Result<f64> {
    // USER_HZ, the same on every architecture that Rust's standard library knows on Linux.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which is in brackets, comes the third field.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut ticks = fields.split_whitespace().skip(13).take(2).map(str::parse::<u32>);
    let mut next = || ticks.next().context("/proc/self/stat has too few fields")?.context("it has no number");
    Ok((f64::from(next()?) + f64::from(next()?)) / TICKS)
}
