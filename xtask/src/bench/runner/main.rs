//! Layerstack's part of `cargo xtask bench`, built with the release profile: one command a process, as the peers are
//! run, or a loop inside one process where single operations are too short for that.

#![expect(clippy::print_stdout, reason = "the numbers go to the program that started this one")]

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use layerstack::LayerId;
use layerstack::layers::{Base, Config, Durability, Layers};
use layerstack::options::Options;

mod cycle;
mod deep;
mod edit;
mod import;
mod narrowed;
mod open;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program's errors go there")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

fn run(arguments: &[&str]) -> Result<()> {
    let &[command, root, driver, ref rest @ ..] = arguments else {
        bail!("usage: layerstack-bench COMMAND ROOT DRIVER [ARGUMENT]...");
    };
    let mut config = Config::new().with_driver(driver);
    if rest.contains(&"unflushed") {
        config = config.with_durability(Durability::Never);
    }
    let layers = Layers::open(Path::new(root), &layerstack::registry()?, &config)?;
    match (command, rest) {
        ("import", [mode, tars @ ..]) => {
            import::run(&layers, *mode == "digest", tars)?;
            println!("{}", peak_memory()?);
        }
        ("clear", []) => clear(&layers)?,
        ("create", [id]) => layers.create(&LayerId::new(*id)?, None, &Options::new())?,
        ("create", [id, parent]) => {
            layers.create(&LayerId::new(*id)?, Some(&LayerId::new(*parent)?), &Options::new())?;
        }
        ("remove", [id]) => layers.remove(&LayerId::new(*id)?)?,
        ("edit", [id]) => edit::run(&layers, &LayerId::new(*id)?)?,
        ("seal", [id]) => layers.seal(&LayerId::new(*id)?)?,
        ("change", [id, count]) => narrowed::change(&layers, &LayerId::new(*id)?, count.parse()?)?,
        ("narrowed", [id, twin, count]) => {
            let (id, twin) = (LayerId::new(*id)?, LayerId::new(*twin)?);
            println!("{}", serde_json::to_string(&narrowed::run(&layers, &id, &twin, count.parse()?)?)?);
        }
        ("changes", [id]) => {
            println!("{}", layers.changes(&LayerId::new(*id)?, Base::Parent)?.len());
        }
        ("diff", [id]) => {
            layers.diff(&LayerId::new(*id)?, Base::Parent, &mut std::io::sink())?;
        }
        ("cycle", [count, threads]) => {
            println!("{}", serde_json::to_string(&cycle::run(&layers, count.parse()?, threads.parse()?)?)?);
        }
        ("deep", [depth, count]) => {
            println!("{}", serde_json::to_string(&deep::run(&layers, depth.parse()?, count.parse()?)?)?);
        }
        ("open", [number, count]) => {
            println!("{}", serde_json::to_string(&open::run(&layers, number.parse()?, count.parse()?)?)?);
        }
        _ => bail!("unknown command or arguments: {}", arguments.join(" ")),
    }
    Ok(())
}

/// Removes all layers, the topmost first.
fn clear(layers: &Layers) -> Result<()> {
    let mut all = Vec::new();
    for id in layers.list()? {
        all.push((layers.layer(&id)?.depth, id));
    }
    all.sort_unstable();
    for (_, id) in all.iter().rev() {
        layers.remove(id)?;
    }
    Ok(())
}

/// The most memory that this process had at a time, in bytes: `VmHWM` of proc_pid_status(5).
fn peak_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes << 10)
}
