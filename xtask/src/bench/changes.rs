//! Finding 10 changes among the 100,000 files of data set B, a process each time.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::contestant::containers_storage;
use super::contestant::daemons::Containerd;
use super::report::{Report, Table};
use super::store::Store;
use super::{Bench, data, oci};
use crate::process;

/// A contestant with the layers in place.
struct Prepared {
    name: &'static str,
    remark: &'static str,
    /// The commands for the list and for the tar; None where there is none.
    changes: Option<Box<dyn Fn() -> Command>>,
    diff: Box<dyn Fn() -> Command>,
    times: [Vec<f64>; 2],
}

/// Adds the tables.
pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let set = bench.data.set("B")?;
    let mut contestants = Vec::new();
    let mut absent = Vec::new();
    for (name, driver) in [("layerstack overlay2", "overlay2"), ("layerstack vfs", "vfs")] {
        eprintln!("10 changes: preparing {name}");
        contestants.push(layerstack(bench, name, driver, &set.layers[0])?);
    }
    eprintln!("10 changes: preparing containers-storage");
    match storage(&bench.store, &set.layers[0]) {
        Ok(prepared) => contestants.push(prepared),
        Err(error) => absent.push(("containers-storage", format!("{error:#}"))),
    }
    eprintln!("10 changes: preparing containerd");
    let containerd = Containerd::open(&bench.store).and_then(|containerd| {
        let prepared = snapshot(&bench.store, &containerd, &set)?;
        Ok((containerd, prepared))
    });
    let _running = match containerd {
        Ok((containerd, prepared)) => {
            contestants.push(prepared);
            Some(containerd)
        }
        Err(error) => {
            absent.push(("containerd", format!("{error:#}")));
            None
        }
    };
    for round in 0..bench.rounds {
        eprintln!("10 changes, round {} of {}", round + 1, bench.rounds);
        for contestant in &mut contestants {
            if let Some(changes) = &contestant.changes {
                contestant.times[0].push(seconds(changes())?);
            }
            contestant.times[1].push(seconds((contestant.diff)())?);
        }
    }
    let _ = process::output(&mut shutdown(&bench.store));
    for (number, what) in ["list them", "as a tar"].iter().enumerate() {
        let mut table = Table::new(format!("10 changes among 100,000 files, {what}, seconds"));
        for contestant in &contestants {
            if number == 1 || contestant.changes.is_some() {
                table.measured(contestant.name, &contestant.times[number], contestant.remark);
            }
        }
        for (name, why) in &absent {
            table.not_run(name, why);
        }
        report.tables.push(table);
    }
    Ok(())
}

/// How long a command takes; what it prints is thrown away.
fn seconds(mut command: Command) -> Result<f64> {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let elapsed = start.elapsed();
    ensure!(status.success(), "{} ended with {status}", process::line(&command));
    Ok(elapsed.as_secs_f64())
}

fn layerstack(bench: &Bench, name: &'static str, driver: &'static str, tar: &Path) -> Result<Prepared> {
    let (runner, root) = (bench.runner.clone(), bench.store.directory(&format!("changes-{driver}"))?);
    let command = move |command: &str, arguments: &[&str]| {
        let mut runner = Command::new(&runner);
        runner.arg(command).arg(&root).arg(driver).args(arguments);
        runner
    };
    process::output(command("import", &["plain"]).arg(tar))?;
    process::output(&mut command("create", &["top", "layer0"]))?;
    process::output(&mut command("edit", &["top"]))?;
    let diff = command.clone();
    Ok(Prepared {
        name,
        remark: "a process",
        changes: Some(Box::new(move || command("changes", &["top"]))),
        diff: Box::new(move || diff("diff", &["top"])),
        times: Default::default(),
    })
}

fn shutdown(store: &Store) -> Command {
    let directory = store.path().join("changes-storage");
    containers_storage("shutdown", &directory.join("graph"), &directory.join("run"))
}

fn storage(store: &Store, tar: &Path) -> Result<Prepared> {
    let directory = store.directory("changes-storage")?;
    let command = move |command: &str, arguments: &[&str]| {
        let mut storage = containers_storage(command, &directory.join("graph"), &directory.join("run"));
        storage.args(arguments);
        storage
    };
    process::output(command("import-layer", &["--id", "base", "--file"]).arg(tar))?;
    process::output(&mut command("create-layer", &["--id", "top", "base"]))?;
    let mounted = process::output(&mut command("mount", &["top"]))?;
    edit(Path::new(mounted.trim()))?;
    process::output(&mut command("unmount", &["top"]))?;
    let diff = command.clone();
    Ok(Prepared {
        name: "containers-storage",
        remark: "a process",
        changes: Some(Box::new(move || command("changes", &["top"]))),
        diff: Box::new(move || diff("diff", &["--uncompressed", "--file", "/dev/null", "top"])),
        times: Default::default(),
    })
}

fn snapshot(store: &Store, containerd: &Containerd, set: &data::Set) -> Result<Prepared> {
    let directory = store.directory("changes-image")?;
    let image = oci::Image::new(set, &directory)?;
    let archive = directory.join("oci.tar");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--file"]).arg(&archive).arg("--directory").arg(&image.layout).arg(".");
    process::output(&mut tar)?;
    let name = archive.display().to_string();
    containerd.call(&["images", "import", "--no-unpack", "--base-name", oci::TAG, &name])?;
    containerd.call(&["snapshots", "unpack", &format!("sha256:{}", image.manifest)])?;
    let target = directory.join("mounted");
    std::fs::create_dir(&target)?;
    // One layer: its diff id is the name of its snapshot.
    let layer = image.diff_ids.first().context("the image has no layer")?;
    containerd.call(&["snapshots", "prepare", "top", layer])?;
    let script = containerd.call(&["snapshots", "mounts", &target.display().to_string(), "top"])?;
    process::output(Command::new("sh").args(["-c", &script]))?;
    let edited = edit(&target);
    process::output(Command::new("umount").arg(&target))?;
    edited?;
    let socket = containerd.socket();
    Ok(Prepared {
        name: "containerd",
        remark: "a process, and a call of a running daemon",
        changes: None,
        diff: Box::new(move || {
            let mut ctr = Command::new("ctr");
            ctr.arg("--address").arg(&socket).args(["--namespace", "bench", "snapshots", "diff"]);
            ctr.args(["--media-type", "application/vnd.oci.image.layer.v1.tar", "top"]);
            ctr
        }),
        times: Default::default(),
    })
}

/// The same changes as the runner's `edit` makes.
fn edit(root: &Path) -> Result<()> {
    for number in 0..4 {
        std::fs::write(root.join(format!("d{number}00/f05")), "changed")?;
    }
    for number in 0..3 {
        std::fs::write(root.join(format!("d{number}50/new")), "added")?;
        std::fs::remove_file(root.join(format!("d{number}75/f99")))?;
    }
    Ok(())
}
