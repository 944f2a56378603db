//! The file systems that the suite works on.
//!
//! Each is in a file that has lost its name by the time it is mounted, on a loop device that frees itself
//! (`losetup(8)`, autoclear), at a place in a table of mounts that goes with its last process. So a run that is
//! killed leaves nothing, and two at once do not meet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Room for layers, in bytes. The file is sparse.
const SIZE: u64 = 8 << 30;

/// What the cases that fill a store fill, in bytes.
const SMALL: u64 = 64 << 20;

/// The same on btrfs, which does not come as small.
const SMALL_BTRFS: u64 = 256 << 20;

/// A kind of file system to keep layers on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FileSystem {
    /// ext4 in a file.
    Ext4,
    /// xfs in a file.
    Xfs,
    /// btrfs in a file.
    Btrfs,
    /// btrfs in a file, with quota groups.
    BtrfsQuota,
    /// Memory.
    Tmpfs,
}

impl FileSystem {
    /// What a driver keeps its layers on unless told otherwise: with all that it can make use of.
    pub(crate) fn of_driver(driver: &str) -> Self {
        if driver == "btrfs" { Self::BtrfsQuota } else { Self::Ext4 }
    }

    /// Ways to make and mount it, the best first: with quota for single directories where the kernel has it. All give
    /// what becomes free back to the file that they are in, which may be in memory: without, it would come to hold every
    /// block that any case has written.
    fn ways(self) -> &'static [(&'static [&'static str], &'static str)] {
        match self {
            Self::Ext4 => &[
                (
                    &["mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"],
                    "loop,discard,prjquota",
                ),
                (&["mkfs.ext4", "-q", "-F"], "loop,discard"),
            ],
            Self::Xfs => &[
                (&["mkfs.xfs", "-q", "-f"], "loop,discard,pquota"),
                (&["mkfs.xfs", "-q", "-f"], "loop,discard"),
            ],
            Self::Btrfs | Self::BtrfsQuota => &[(&["mkfs.btrfs", "-q", "-f"], "loop,discard=async")],
            Self::Tmpfs => &[],
        }
    }
}

impl FileSystem {
    /// Makes it on a file or a disk, without quota for single directories.
    pub(crate) fn make_on(self, disk: &Path) -> Result<()> {
        let Some((words, _)) = self.ways().last() else { bail!("no {self:?} can be made on a disk") };
        process::output(maker(words)?.arg(disk)).map(drop)
    }
}

/// The command that makes a file system, without the place.
fn maker(words: &[&str]) -> Result<Command> {
    let Some(program) = process::find(words[0]) else {
        bail!("{} is missing; get it with: cargo xtask setup", words[0]);
    };
    let mut command = Command::new(program);
    command.args(&words[1..]);
    Ok(command)
}

/// A large and a small file system, both mounted and empty.
#[derive(Debug)]
pub(crate) struct Store {
    /// Where the files of the file systems are, as long as they have names.
    folder: PathBuf,
    base: PathBuf,
    large: PathBuf,
    small: PathBuf,
}

impl Store {
    /// Makes both for a driver in a folder with room for them: on disk, since memory would not hold it everywhere. The caller has a
    /// table of mounts of its own.
    pub(crate) fn new(driver: &str, kind: FileSystem, folder: &Path) -> Result<Self> {
        let base = folder.join("conformance");
        fs::create_dir_all(&base).with_context(|| format!("failed to make {}", base.display()))?;
        // Only in this table of mounts: another run has its own at the same place.
        process::run(
            Command::new("mount").args(["-t", "tmpfs", "-o", "mode=0755", "layerstack"]).arg(&base),
        )?;
        let (large, small) = (base.join("large"), base.join("small"));
        let store = Self { folder: folder.to_owned(), base, large, small };
        fs::create_dir(&store.large)?;
        fs::create_dir(&store.small)?;
        store.make(kind, SIZE, &store.large)?;
        if kind == FileSystem::BtrfsQuota {
            process::output(Command::new("btrfs").args(["quota", "enable"]).arg(&store.large))?;
        }
        match FileSystem::of_driver(driver) {
            FileSystem::BtrfsQuota => store.make(FileSystem::Btrfs, SMALL_BTRFS, &store.small)?,
            // The others do not come as small as this.
            _ => store.make(FileSystem::Ext4, SMALL, &store.small)?,
        }
        Ok(store)
    }

    /// Where layers are kept.
    pub(crate) fn large(&self) -> &Path {
        &self.large
    }

    /// What can be filled up.
    pub(crate) fn small(&self) -> &Path {
        &self.small
    }

    /// A new file in memory.
    pub(crate) fn report(&self) -> PathBuf {
        self.base.join("report")
    }

    fn make(&self, kind: FileSystem, size: u64, target: &Path) -> Result<()> {
        if kind == FileSystem::Tmpfs {
            let size = format!("size={size},mode=0755");
            return process::run(
                Command::new("mount").args(["-t", "tmpfs", "-o", &size, "layerstack"]).arg(target),
            );
        }
        let mut failures = Vec::new();
        for (words, options) in kind.ways() {
            match self.make_in_a_file(words, options, size, target) {
                Ok(()) => return Ok(()),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        bail!("no {kind:?} could be made: {}", failures.join("; "))
    }

    fn make_in_a_file(&self, words: &[&str], options: &str, size: u64, target: &Path) -> Result<()> {
        let mut maker = maker(words)?;
        let image = tempfile::NamedTempFile::new_in(&self.folder)
            .context("failed to make a file for the file system")?;
        image.as_file().set_len(size)?;
        process::output(maker.arg(image.path()))?;
        process::output(Command::new("mount").args(["-o", options]).arg(image.path()).arg(target)).map(drop)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What stays in use goes with the table of mounts.
        let _ = process::output(Command::new("umount").args(["--recursive", "--lazy"]).arg(&self.base));
    }
}
