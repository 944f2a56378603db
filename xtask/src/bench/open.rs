//! Opening a root of 10,000 layers, against reading the names that are in its directories.

use anyhow::Result;

use super::Bench;
use super::report::{Report, Table};

/// Layers in the root.
const LAYERS: &str = "10000";

/// How often the root is opened a round.
const COUNT: &str = "20";

#[derive(Debug, serde::Deserialize)]
struct Open {
    open: Vec<f64>,
    names: Vec<f64>,
}

/// Adds a table for each driver.
pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    for driver in ["overlay2", "vfs"] {
        let root = bench.store.directory("open")?.display().to_string();
        let mut all = Open { open: vec![], names: vec![] };
        for round in 0..bench.rounds {
            eprintln!("{driver}, {LAYERS} layers, round {} of {}", round + 1, bench.rounds);
            let open: Open = bench.runner(&["open", &root, driver, LAYERS, COUNT])?;
            all.open.extend(open.open);
            all.names.extend(open.names);
        }
        let mut table = Table::new(format!("{driver}: opening a root of {LAYERS} layers, milliseconds"));
        table.measured("layerstack", &all.open, "");
        table.measured("reading the names", &all.names, "of the records' and the driver's directories");
        report.tables.push(table);
    }
    Ok(())
}
