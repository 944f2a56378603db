//! Waiting for the room of a deleted subvolume. The kernel takes a deletion back in the background, some seconds later.
//! Where there is room enough nobody minds; where there is not, who removes a layer to have its room wants it now.

use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use layerstack_core::{Error, Result};

use crate::space::Room;
use crate::subvolume;
use crate::sys::{self, Key};

/// `BTRFS_ROOT_ITEM_KEY`: there for a subvolume (the object) until the last of it is gone.
const ROOT: u32 = 132;

/// A disk that is slow takes some seconds for a hundred thousand files.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a deleted subvolume is gone, if there is little room. `place` is any directory on the file system.
pub(crate) fn wait_if_tight(file_system: impl AsFd, place: &Path, number: u64) -> Result<()> {
    if !Room::of(&file_system)?.is_tight() {
        return Ok(());
    }
    // The kernel begins when the deletion is written down, and what it frees is free when that is.
    subvolume::commit(place)?;
    let start = Instant::now();
    while is_there(&file_system, number)? {
        if start.elapsed() > PATIENCE {
            tracing::warn!(number, "a deleted subvolume is still there");
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    subvolume::commit(place)
}

/// Whether there is something left of a subvolume.
pub(crate) fn is_there(file_system: impl AsFd, number: u64) -> Result<bool> {
    let key = Key { tree: sys::ROOTS, object: number, kind: ROOT, offsets: (0, u64::MAX) };
    let mut found = false;
    sys::search(file_system, key, |_| found = true)
        .map_err(|errno| Error::from_errno(errno, "look for the deleted subvolume"))?;
    Ok(found)
}
