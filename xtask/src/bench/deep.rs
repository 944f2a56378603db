//! Mounting a long chain of layers, against the bare system calls.

use anyhow::Result;

use super::Bench;
use super::report::{Report, Table};

/// How often each chain is mounted a round.
const COUNT: &str = "20";

#[derive(Debug, serde::Deserialize)]
struct Deep {
    mount: Vec<f64>,
    unmount: Vec<f64>,
    bare_mount: Vec<f64>,
    bare_unmount: Vec<f64>,
}

/// Adds a table for each depth.
pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    for depth in ["1", "100", "400"] {
        let mut all = Deep { mount: vec![], unmount: vec![], bare_mount: vec![], bare_unmount: vec![] };
        for round in 0..bench.rounds {
            eprintln!("chain of {depth}, round {} of {}", round + 1, bench.rounds);
            let root = bench.store.directory("deep")?.display().to_string();
            let deep: Deep = bench.runner(&["deep", &root, "overlay2", depth, COUNT])?;
            all.mount.extend(deep.mount);
            all.unmount.extend(deep.unmount);
            all.bare_mount.extend(deep.bare_mount);
            all.bare_unmount.extend(deep.bare_unmount);
        }
        for (operation, ours, bare) in
            [("mount", &all.mount, &all.bare_mount), ("unmount", &all.unmount, &all.bare_unmount)]
        {
            let title = format!("overlay2: {operation} a layer on {depth} others, microseconds");
            let mut table = Table::new(title);
            table.measured("layerstack", ours, "record, lock, look at the mount table");
            table.measured("bare system calls", bare, "fsopen, lowerdir+, fsmount, move_mount; umount2");
            report.tables.push(table);
        }
    }
    Ok(())
}
