//! The peers as libraries: a program in Go that links them as Debian packages them, for what is too short to be timed
//! as a process.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use crate::process;

/// The peers that the program has.
pub(super) const NAMES: [&str; 2] = ["containers/storage", "containerd"];

const SOURCE: &str = include_str!("peers.go");

/// Takes the place of the drivers in it.
const SOURCE_BTRFS: &str = include_str!("peers_btrfs.go");

/// Where Debian's packages put the sources of Go libraries.
const SOURCES: &str = "/usr/share/gocode";

const PACKAGES: &str = "golang-go golang-github-containers-storage-dev golang-github-ulikunitz-xz-dev \
                        golang-github-containerd-containerd-dev";

/// What of containers/storage needs C libraries and is not measured.
const TAGS: &str = "exclude_graphdriver_btrfs exclude_graphdriver_devicemapper";

/// The same where btrfs is.
const TAGS_BTRFS: &str = "exclude_graphdriver_devicemapper";

/// On which file system the peers keep their layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peers {
    /// On overlayfs.
    Overlay,
    /// On btrfs; needs its headers.
    Btrfs,
}

/// The program, built.
#[derive(Debug)]
pub(super) struct Libraries {
    _directory: tempfile::TempDir,
    program: PathBuf,
}

impl Libraries {
    pub(super) fn build(peers: Peers) -> Result<Self> {
        let has = |path: &str| Path::new(SOURCES).join("src/github.com").join(path).is_dir();
        if process::find("go").is_none()
            || !["containers/storage", "containerd/containerd", "ulikunitz/xz"].into_iter().all(has)
        {
            bail!("not installed (apt-get install {PACKAGES})");
        }
        if peers == Peers::Btrfs && !Path::new("/usr/include/btrfs/ioctl.h").exists() {
            bail!("not installed (apt-get install libbtrfs-dev golang-github-containerd-btrfs-dev)");
        }
        let directory = tempfile::tempdir().context("failed to make a temporary directory")?;
        let (source, program) = (directory.path().join("peers.go"), directory.path().join("peers"));
        std::fs::write(&source, SOURCE).with_context(|| format!("failed to write {}", source.display()))?;
        let mut build = Command::new("go");
        build.env("GO111MODULE", "off").env("GOPATH", SOURCES).env("GOCACHE", directory.path().join("cache"));
        let tags = if peers == Peers::Btrfs { TAGS_BTRFS } else { TAGS };
        build.args(["build", "-tags", tags, "-o"]).arg(&program).arg(&source);
        if peers == Peers::Btrfs {
            let source = directory.path().join("peers_btrfs.go");
            std::fs::write(&source, SOURCE_BTRFS)
                .with_context(|| format!("failed to write {}", source.display()))?;
            build.arg(source);
        }
        process::output(&mut build)?;
        Ok(Self { _directory: directory, program })
    }

    /// Runs the loop of `peers.go`; gives the numbers that it printed.
    pub(super) fn cycle<T: DeserializeOwned>(
        &self,
        name: &str,
        directory: &Path,
        count: &str,
        threads: &str,
    ) -> Result<T> {
        let mut program = Command::new(&self.program);
        let text = process::output(program.arg(name).arg(directory).args([count, threads]))?;
        serde_json::from_str(&text).with_context(|| format!("{name} printed \"{}\"", text.trim()))
    }
}
