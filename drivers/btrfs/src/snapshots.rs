//! A layer as it is at one moment, for a look at it that takes longer.
//!
//! A sealed layer is that itself. Of any other a read-only snapshot is made in `<home>/snapshots`, which goes with the
//! look. What a killed process left there goes when the home is next opened: whoever looks holds a lock on what it looks
//! at.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use layerstack_core::{Error, LayerId, Result, kill_point};
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::layout::Layout;
use crate::subvolume;

/// A layer that does not change while this lives.
#[derive(Debug)]
pub(crate) struct Frozen<'a> {
    root: OwnedFd,
    /// The number of the subvolume that is looked at.
    number: u64,
    /// Where the snapshot is that goes with this; None where the layer is sealed.
    snapshot: Option<PathBuf>,
    layout: &'a Layout,
}

impl<'a> Frozen<'a> {
    /// Freezes a layer.
    pub(crate) fn of(layout: &'a Layout, id: &LayerId) -> Result<Self> {
        let (path, found) = layout.subvolume(id)?;
        if found.read_only {
            return Ok(Self { root: open(&path)?, number: found.number, snapshot: None, layout });
        }
        loop {
            let snapshot = layout.snapshots().join(fresh_name()?);
            subvolume::snapshot(&path, &snapshot, true)?;
            kill_point!("btrfs.freeze.snapshot");
            // Somebody who just opened the home may have taken it for a leftover, until it is locked.
            let root = match rustix::fs::open(&snapshot, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                opened => opened.map_err(|errno| Error::from_errno(errno, "open").with_path(&snapshot))?,
            };
            if try_lock(&root, &snapshot)?
                && let Some(found) = subvolume::inspect(&snapshot)?
            {
                return Ok(Self { root, number: found.number, snapshot: Some(snapshot), layout });
            }
        }
    }

    /// Its root directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The number of the subvolume.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Some(snapshot) = &self.snapshot
            && let Err(error) = self.layout.delete(snapshot, self.number)
        {
            tracing::warn!(?error, "a snapshot is left until the home is opened again");
        }
    }
}

/// Deletes what processes that were killed left.
pub(crate) fn sweep(layout: &Layout) -> Result<()> {
    let directory = layout.snapshots();
    let failed = |errno| Error::from_errno(errno, "list").with_path(&directory);
    let opened = rustix::fs::open(&directory, DIRECTORY, Mode::empty()).map_err(failed)?;
    for entry in Dir::read_from(&opened).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let path = directory.join(name);
        let Ok(root) = rustix::fs::openat(&opened, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) else {
            continue;
        };
        if try_lock(&root, &path)?
            && let Some(found) = subvolume::inspect(&path)?
        {
            layout.delete(&path, found.number)?;
        }
    }
    Ok(())
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Locks a snapshot; false where another has it, or has deleted it.
fn try_lock(root: &OwnedFd, path: &Path) -> Result<bool> {
    let failed = |errno| Error::from_errno(errno, "lock").with_path(path);
    match rustix::fs::flock(root, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(errno) => return Err(failed(errno)),
    }
    let locked = rustix::fs::fstat(root).map_err(failed)?;
    match rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        // Every subvolume has a device number of its own.
        Ok(named) => Ok(named.st_dev == locked.st_dev),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed(errno)),
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, DIRECTORY, Mode::empty())
        .map_err(|errno| Error::from_errno(errno, "open").with_path(path))
}

/// A name that nobody else uses.
fn fresh_name() -> Result<String> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Error::from_errno(errno, "draw a random name"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}
