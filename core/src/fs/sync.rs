//! Making things durable.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};

/// Flushes everything that the file system holding `path` has written so far: `syncfs(2)`.
///
/// # Errors
/// What the flush gives; `NoSpace` where delayed allocation found no room.
pub fn sync_file_system(path: &Path) -> Result<()> {
    let directory =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::from_errno(errno, "open").with_path(path))?;
    rustix::fs::syncfs(&directory)
        .map_err(|errno| Error::from_errno(errno, "flush the file system").with_path(path))
}

/// Makes the names in a directory durable: `fsync(2)` of the directory.
///
/// # Errors
/// What the flush gives.
pub fn sync_directory(directory: impl AsFd, shown: &Path) -> Result<()> {
    rustix::fs::fsync(directory)
        .map_err(|errno| Error::from_errno(errno, "flush the directory").with_path(shown))
}
