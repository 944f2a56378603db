//! Quota groups: what the file system counts for each subvolume, and limits.
//!
//! There are two kinds. The full one tells for each subvolume what it refers to and what of that nobody else does; the
//! simple one (`btrfs quota enable --simple`, Linux 6.7) tells what was written through it. Under both the *exclusive*
//! count of a layer starts near zero and grows with what is written to it, whatever it shares with its parent. So it
//! is this that is limited, never what the layer refers to (`max_rfer`).
//!
//! Whether a file system counts is its administrator's to say: counting costs time, for everybody on it. Nothing here
//! turns it on or off.

use std::os::fd::AsFd;
use std::path::Path;

use layerstack_core::{Error, ErrorKind, Result};
use rustix::io::Errno;

use crate::sys::{self, Key};

/// How a file system counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Not at all.
    Off,
    /// What is shared and what is not.
    Full,
    /// What was written through a subvolume.
    Simple,
}

/// What a subvolume's group counts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    /// All that it refers to; under [`Mode::Simple`] the same as `exclusive`.
    pub(crate) referenced: u64,
    /// What no other refers to; under [`Mode::Simple`] what was written through it.
    pub(crate) exclusive: u64,
}

/// `BTRFS_QGROUP_STATUS_KEY`, `BTRFS_QGROUP_INFO_KEY`
const STATUS: u32 = 240;
const INFO: u32 = 242;
/// `BTRFS_QGROUP_STATUS_FLAG_…` `ON`, `INCONSISTENT`, `SIMPLE_MODE`
const ON: u64 = 1;
const INCONSISTENT: u64 = 4;
const SIMPLE: u64 = 8;

/// The flags of the status item: `struct btrfs_qgroup_status_item`, after version and generation.
fn flags(file_system: impl AsFd) -> Result<u64> {
    let key = Key { tree: sys::QUOTAS, object: 0, kind: STATUS, offsets: (0, 0) };
    let mut flags = 0;
    match sys::search(file_system, key, |item| flags = item.number(16).unwrap_or(0)) {
        // The tree is there only while quota is on.
        Ok(()) | Err(Errno::NOENT) => Ok(flags),
        Err(errno) => Err(Error::from_errno(errno, "ask for the state of quota")),
    }
}

/// How the file system counts now.
pub(crate) fn mode(file_system: impl AsFd) -> Result<Mode> {
    Ok(match flags(file_system)? {
        flags if flags & ON == 0 => Mode::Off,
        flags if flags & SIMPLE == 0 => Mode::Full,
        _ => Mode::Simple,
    })
}

/// Why there is no limit where nothing is counted, and what to do about it.
pub(crate) fn how_to_enable(path: &Path) -> String {
    format!(
        "quota is not enabled on this btrfs; enable it with: btrfs quota enable --simple {0} (Linux 6.7 and btrfs-progs \
         6.7, costs little), or btrfs quota enable {0}",
        path.display()
    )
}

/// Limits what is written to a new subvolume.
pub(crate) fn limit(file_system: impl AsFd, number: u64, bytes: u64) -> Result<()> {
    sys::limit_exclusive(file_system, number, bytes).map_err(|errno| match errno {
        Errno::NOTCONN | Errno::INVAL => {
            Error::new(ErrorKind::Unsupported, "a size cannot be set: quota was turned off meanwhile")
                .with_source(std::io::Error::from(errno))
        }
        errno => Error::from_errno(errno, "limit the layer"),
    })
}

/// What is counted for a subvolume; None where nothing is, or where the count is known to be wrong. Of what was not yet
/// flushed nothing is counted.
pub(crate) fn count(file_system: impl AsFd, number: u64) -> Result<Option<Count>> {
    let flags = flags(&file_system)?;
    if flags & ON == 0 || flags & INCONSISTENT != 0 {
        return Ok(None);
    }
    let key = Key { tree: sys::QUOTAS, object: 0, kind: INFO, offsets: (number, number) };
    let mut count = None;
    // struct btrfs_qgroup_info_item: generation, referenced, the same compressed, exclusive, the same compressed.
    sys::search(file_system, key, |item| count = item.number(8).zip(item.number(24)))
        .map_err(|errno| Error::from_errno(errno, "ask for what is counted for the layer"))?;
    Ok(count.map(|(referenced, exclusive)| Count { referenced, exclusive }))
}
