//! The file system that everything works on: in a file in memory, so that no disk has a say.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// Room for two copies of the largest data set, in bytes. The file is sparse.
const SIZE: u64 = 8 << 30;

/// Data set B has 101,000 files, and several contestants have it at once.
const INODES: u32 = 1_500_000;

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// For all but the drivers that bring their own.
    Ext4,
    /// For the driver of the same name.
    Btrfs,
}

/// The mounted file system; taken away when dropped.
#[derive(Debug)]
pub(crate) struct Store {
    directory: tempfile::TempDir,
}

impl Store {
    pub(crate) fn new(kind: FileSystem) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("layerstack-bench-")
            .tempdir()
            .context("failed to make a temporary directory")?;
        let store = Self { directory };
        // Mounted for this process and its children only: it ends with them, and the memory is free again.
        let mut memory = Command::new("mount");
        memory.args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "layerstack-bench"]);
        process::output(memory.arg(store.directory.path()))?;
        let image = store.directory.path().join("image");
        File::create(&image)?.set_len(SIZE)?;
        let mut make = match kind {
            FileSystem::Ext4 => {
                // Without the work that ext4 would otherwise do in the background while we measure.
                let lazy = "lazy_itable_init=0,lazy_journal_init=0";
                let mut make = Command::new("mkfs.ext4");
                make.args(["-q", "-F", "-E", lazy, "-N", &INODES.to_string()]);
                make
            }
            FileSystem::Btrfs => {
                let mut make = Command::new("mkfs.btrfs");
                make.arg("-q");
                make
            }
        };
        process::output(make.arg(&image))?;
        fs::create_dir(store.path())?;
        process::output(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(store.path()))?;
        Ok(store)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    /// A new, empty directory on it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        remove(&path)?;
        fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(path)
    }

    /// Writes out what earlier work left to be written.
    pub(crate) fn settle(&self) -> Result<()> {
        process::output(Command::new("sync").arg("--file-system").arg(self.path())).map(drop)
    }
}

/// Removes a directory and all that is in it, where it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Peers leave mounts on it: containers/storage binds its directory onto itself.
        for _ in 0..2 {
            let _ = process::output(Command::new("umount").arg("--recursive").arg(self.path()));
        }
        let _ = process::output(Command::new("umount").arg(self.directory.path()));
    }
}
