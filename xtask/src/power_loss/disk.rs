//! The disk that outlives the guests: a file without a name, so that it goes with this process, however that ends.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::conformance::FileSystem;
use crate::process;

/// In bytes. The file is sparse.
const SIZE: u64 = 8 << 30;

/// The disk of a run.
#[derive(Debug)]
pub(crate) struct Disk(File);

impl Disk {
    /// A disk with an empty file system.
    pub(super) fn new(kind: FileSystem) -> Result<Self> {
        let disk = Self(tempfile::tempfile().context("failed to make a file for the disk")?);
        disk.0.set_len(SIZE).context("failed to make the disk's file as long as it must be")?;
        kind.make_on(&disk.path())?;
        Ok(disk)
    }

    /// A path that leads to it for as long as this process lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Copies it into a file that stays.
    pub(super) fn keep(&self) -> Result<PathBuf> {
        let folder = tempfile::Builder::new().prefix("layerstack-power-loss-").tempdir()?;
        let copy = folder.path().join("disk.img");
        process::output(Command::new("cp").arg("--sparse=always").arg(self.path()).arg(&copy))?;
        Ok(folder.keep().join("disk.img"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_can_be_kept() {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let kept = Disk(file).keep().unwrap();
        assert_eq!(std::fs::read(&kept).unwrap(), b"content");
        std::fs::remove_dir_all(kept.parent().unwrap()).unwrap();
    }
}
