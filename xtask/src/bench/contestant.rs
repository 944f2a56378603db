//! Layerstack and its peers as programs that unpack the layers of an image.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Bench;
use super::data::Set;
use super::oci::{Image, TAG};
use super::store::{Store, remove};
use crate::process;

pub(crate) mod daemons;

/// A data set in both forms.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) set: Set,
    pub(crate) image: Image,
}

/// A program that unpacks the layers of an image, each on top of the one before.
pub(crate) trait Contestant: std::fmt::Debug {
    /// Its name in the tables.
    fn name(&self) -> &'static str;

    /// What it does besides unpacking, or leaves out.
    fn remark(&self) -> &'static str;

    /// What has to be done before unpacking, not measured.
    fn prepare(&mut self, input: &Input) -> Result<()>;

    /// Unpacks: measured.
    fn unpack(&mut self, input: &Input) -> Result<()>;

    /// Removes what was unpacked; measured where it removes layers as an engine does.
    fn clear(&mut self, input: &Input) -> Result<()>;

    /// Whether all the work is done by processes that are started for it, and not by a daemon.
    fn is_child(&self) -> bool;

    /// Highest use of memory in the last [`Contestant::unpack`], in MiB, where it is known.
    fn memory(&self) -> Option<f64> {
        None
    }
}

/// A contestant, or the name of one that is not here, and the reason.
pub(crate) type Entrant = Result<Box<dyn Contestant>, (&'static str, String)>;

/// Layerstack first, then all peers; for those that are not here, the name and the reason.
pub(crate) fn all(bench: &Bench) -> Result<Vec<Entrant>> {
    let store = &bench.store;
    let mut all: Vec<Entrant> = vec![
        Ok(Box::new(Layerstack::new(bench, Mode::Plain)?)),
        Ok(Box::new(Layerstack::new(bench, Mode::Digest)?)),
        Ok(Box::new(Layerstack::new(bench, Mode::Unflushed)?)),
        Ok(Box::new(Tar { directory: store.path().join("tar"), flush: false })),
        Ok(Box::new(Tar { directory: store.path().join("tar-flushed"), flush: true })),
    ];
    all.push(match process::find("umoci") {
        Some(_) => Ok(Box::new(Umoci { directory: store.path().join("umoci") })),
        None => Err(("umoci", missing("umoci"))),
    });
    all.push(match process::find("containers-storage") {
        Some(_) => Ok(Box::new(ContainersStorage::new(store)?)),
        None => Err(("containers-storage", missing("containers-storage"))),
    });
    all.push(daemons::Containerd::start(store).map_err(|error| ("containerd", format!("{error:#}"))));
    all.push(daemons::Docker::start(store).map_err(|error| ("docker", format!("{error:#}"))));
    Ok(all)
}

fn missing(package: &str) -> String {
    format!("not installed (apt-get install {package})")
}

/// What Layerstack does besides unpacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// What it does by default.
    Plain,
    /// Computes the digest of the tar too.
    Digest,
    /// Leaves the flush of each layer to the kernel (the option `sync`).
    Unflushed,
}

#[derive(Debug)]
struct Layerstack {
    runner: PathBuf,
    root: PathBuf,
    mode: Mode,
    memory: Option<f64>,
}

impl Layerstack {
    fn new(bench: &Bench, mode: Mode) -> Result<Self> {
        let root = bench.store.directory(&format!("layerstack-{mode:?}"))?;
        Ok(Self { runner: bench.runner.clone(), root, mode, memory: None })
    }
}

impl Contestant for Layerstack {
    fn name(&self) -> &'static str {
        match self.mode {
            Mode::Plain => "layerstack",
            Mode::Digest => "layerstack, digests",
            Mode::Unflushed => "layerstack, no flush",
        }
    }

    fn remark(&self) -> &'static str {
        match self.mode {
            Mode::Plain => "a process; each layer flushed (syncfs)",
            Mode::Digest => "a process; computes SHA-256; each layer flushed",
            Mode::Unflushed => "a process",
        }
    }

    fn is_child(&self) -> bool {
        true
    }

    fn prepare(&mut self, _input: &Input) -> Result<()> {
        Ok(())
    }

    fn unpack(&mut self, input: &Input) -> Result<()> {
        let mut command = Command::new(&self.runner);
        command.arg("import").arg(&self.root).arg("overlay2").arg(match self.mode {
            Mode::Plain => "plain",
            Mode::Digest => "digest",
            Mode::Unflushed => "unflushed",
        });
        let text = process::output(command.args(&input.set.layers))?;
        let bytes: u64 = text.trim().parse().context("the runner printed no peak of memory")?;
        #[expect(clippy::cast_precision_loss, reason = "a number of megabytes")]
        let memory = (bytes >> 10) as f64 / 1024.0;
        self.memory = Some(memory);
        Ok(())
    }

    fn clear(&mut self, _input: &Input) -> Result<()> {
        process::output(Command::new(&self.runner).arg("clear").arg(&self.root).arg("overlay2")).map(drop)
    }

    fn memory(&self) -> Option<f64> {
        self.memory
    }
}

/// GNU tar, each layer into a directory of its own: no layers, no whiteouts, no refusal of what is hostile.
#[derive(Debug)]
struct Tar {
    directory: PathBuf,
    flush: bool,
}

impl Contestant for Tar {
    fn name(&self) -> &'static str {
        if self.flush { "GNU tar, then a flush" } else { "GNU tar" }
    }

    fn remark(&self) -> &'static str {
        if self.flush {
            "a process a layer; plain files; flushed once (syncfs)"
        } else {
            "a process a layer; plain files"
        }
    }

    fn is_child(&self) -> bool {
        true
    }

    fn prepare(&mut self, input: &Input) -> Result<()> {
        for number in 0..input.set.layers.len() {
            std::fs::create_dir_all(self.directory.join(number.to_string()))?;
        }
        Ok(())
    }

    fn unpack(&mut self, input: &Input) -> Result<()> {
        for (layer, number) in input.set.layers.iter().zip(0..) {
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--preserve-permissions", "--numeric-owner", "--xattrs", "--file"]);
            tar.arg(layer).arg("--directory").arg(self.directory.join(number.to_string()));
            process::output(&mut tar)?;
        }
        if self.flush {
            process::output(Command::new("sync").arg("--file-system").arg(&self.directory))?;
        }
        Ok(())
    }

    fn clear(&mut self, _input: &Input) -> Result<()> {
        remove(&self.directory)
    }
}

#[derive(Debug)]
struct Umoci {
    directory: PathBuf,
}

impl Contestant for Umoci {
    fn name(&self) -> &'static str {
        "umoci"
    }

    fn remark(&self) -> &'static str {
        "a process; computes SHA-256; all layers into one directory"
    }

    fn is_child(&self) -> bool {
        true
    }

    fn prepare(&mut self, _input: &Input) -> Result<()> {
        Ok(())
    }

    fn unpack(&mut self, input: &Input) -> Result<()> {
        let image = format!("{}:{TAG}", input.image.layout.display());
        let mut umoci = Command::new("umoci");
        umoci.args(["raw", "unpack", "--image", &image]).arg(&self.directory);
        process::output(&mut umoci).map(drop)
    }

    fn clear(&mut self, _input: &Input) -> Result<()> {
        remove(&self.directory)
    }
}

#[derive(Debug)]
struct ContainersStorage {
    graph: PathBuf,
    run: PathBuf,
}

impl ContainersStorage {
    fn new(store: &Store) -> Result<Self> {
        let directory = store.directory("containers-storage")?;
        Ok(Self { graph: directory.join("graph"), run: directory.join("run") })
    }

    fn call(&self, command: &str, arguments: &[&str]) -> Result<String> {
        process::output(containers_storage(command, &self.graph, &self.run).args(arguments))
    }
}

/// The command of containers/storage, on its overlay driver.
pub(crate) fn containers_storage(command: &str, graph: &Path, run: &Path) -> Command {
    let mut storage = containers_storage_on("overlay", command, graph, run);
    storage.args(["--storage-opt", "overlay.mountopt=nodev"]);
    storage
}

/// The command of containers/storage, on any of its drivers.
pub(crate) fn containers_storage_on(driver: &str, command: &str, graph: &Path, run: &Path) -> Command {
    let mut storage = Command::new("containers-storage");
    storage.arg(command).arg("--graph").arg(graph).arg("--run").arg(run);
    storage.args(["--storage-driver", driver]);
    storage
}

impl Contestant for ContainersStorage {
    fn name(&self) -> &'static str {
        "containers-storage"
    }

    fn remark(&self) -> &'static str {
        "a process a layer; computes digests, keeps tar-split"
    }

    fn is_child(&self) -> bool {
        true
    }

    fn prepare(&mut self, _input: &Input) -> Result<()> {
        Ok(())
    }

    fn unpack(&mut self, input: &Input) -> Result<()> {
        for (layer, number) in input.set.layers.iter().zip(0..) {
            let (id, parent) = (format!("layer{number}"), format!("layer{}", number - 1));
            let file = layer.display().to_string();
            let mut arguments = vec!["--id", &id, "--file", &file];
            if number > 0 {
                arguments.push(&parent);
            }
            self.call("import-layer", &arguments)?;
        }
        Ok(())
    }

    fn clear(&mut self, input: &Input) -> Result<()> {
        for number in (0..input.set.layers.len()).rev() {
            self.call("delete-layer", &[&format!("layer{number}")])?;
        }
        Ok(())
    }
}

impl Drop for ContainersStorage {
    fn drop(&mut self) {
        let _ = self.call("shutdown", &[]);
    }
}
