//! The driver on btrfs: the life of a layer, and what a layer of 100,000 files changed, by a send beside a walk.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use super::contestant::containers_storage_on;
use super::libraries::{Libraries, Peers};
use super::report::{Report, Table};
use super::store::{FileSystem, Store};
use super::{Bench, cycle, data};
use crate::process;

/// How many of the 100,000 files are changed.
const CHANGES: [u32; 3] = [10, 1000, 100_000];

#[derive(Debug, Default, serde::Deserialize)]
struct Narrowed {
    list: Vec<f64>,
    walked_list: Vec<f64>,
    tar: Vec<f64>,
    walked_tar: Vec<f64>,
}

/// Adds the tables.
pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let store = Store::new(FileSystem::Btrfs)?;
    let libraries = Libraries::build(Peers::Btrfs);
    cycle::loops(bench, &store, "btrfs", &libraries, report)?;
    let set = bench.data.set("B")?;
    let root = store.directory("narrowed")?.display().to_string();
    let runner = |words: &[&str]| {
        let mut runner = Command::new(&bench.runner);
        process::output(runner.arg(words[0]).args([&root, "btrfs"]).args(&words[1..]))
    };
    eprintln!("btrfs, changes: preparing layerstack");
    let tar = set.layers[0].display().to_string();
    runner(&["import", "plain", &tar])?;
    runner(&["create", "twin", "layer0"])?;
    runner(&["seal", "twin"])?;
    for count in CHANGES {
        let top = format!("top{count}");
        runner(&["create", &top, "layer0"])?;
        runner(&["change", &top, &count.to_string()])?;
    }
    eprintln!("btrfs, changes: preparing containers-storage");
    let peer = Storage::prepare(&store, &set);
    for count in CHANGES {
        let mut ours = Narrowed::default();
        let mut peers = [vec![], vec![]];
        for round in 0..bench.rounds {
            eprintln!("btrfs, {count} changes, round {} of {}", round + 1, bench.rounds);
            store.settle()?;
            let found: Narrowed =
                bench.runner(&["narrowed", &root, "btrfs", &format!("top{count}"), "twin", "1"])?;
            ours.list.extend(found.list);
            ours.walked_list.extend(found.walked_list);
            ours.tar.extend(found.tar);
            ours.walked_tar.extend(found.walked_tar);
            if let Ok(peer) = &peer {
                peers[0].push(peer.millis(&["changes", &format!("top{count}")])?);
                let words = ["diff", "--uncompressed", "--file", "/dev/null", &format!("top{count}")];
                peers[1].push(peer.millis(&words)?);
            }
        }
        let sides = [(&ours.list, &ours.walked_list, "list them"), (&ours.tar, &ours.walked_tar, "as a tar")];
        for ((send, walk, what), theirs) in sides.into_iter().zip(&peers) {
            let title = format!("btrfs: {count} of 100,000 files changed, {what}, milliseconds");
            let mut table = Table::new(title);
            table.measured("layerstack, by a send", send, "in one process; the layer is not sealed");
            table.measured("layerstack, by a walk", walk, "in one process; trusts equal metadata");
            match &peer {
                Ok(_) => table.measured("containers-storage", theirs, "a process"),
                Err(error) => table.not_run("containers-storage", &format!("{error:#}")),
            }
            report.tables.push(table);
        }
    }
    if let Ok(peer) = &peer {
        let _ = peer.run(&["shutdown"]);
    }
    Ok(())
}

/// containers/storage on its driver of the same name, with the same layers.
struct Storage {
    directory: std::path::PathBuf,
}

impl Storage {
    fn prepare(store: &Store, set: &data::Set) -> Result<Self> {
        let storage = Self { directory: store.directory("narrowed-storage")? };
        let tar = set.layers[0].display().to_string();
        storage.run(&["import-layer", "--id", "base", "--file", &tar])?;
        for count in CHANGES {
            let top = format!("top{count}");
            storage.run(&["create-layer", "--id", &top, "base"])?;
            let mounted = storage.run(&["mount", &top])?;
            for number in 0..count {
                let path = format!("d{:03}/f{:02}", number % 1000, number / 1000);
                std::fs::write(Path::new(mounted.trim()).join(path), format!("changed {number}"))?;
            }
            storage.run(&["unmount", &top])?;
        }
        Ok(storage)
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let (graph, run) = (self.directory.join("graph"), self.directory.join("run"));
        let mut storage = containers_storage_on("btrfs", words[0], &graph, &run);
        // Without the host's configuration, which has options for another driver.
        process::output(storage.args(&words[1..]).env("CONTAINERS_STORAGE_CONF", "/dev/null"))
    }

    fn millis(&self, words: &[&str]) -> Result<f64> {
        let start = Instant::now();
        self.run(words)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}
