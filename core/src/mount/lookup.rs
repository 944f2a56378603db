//! Finding out whether something is mounted, and what.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

use super::table;

/// The kernel's number of a mount.
///
/// From kernel 6.8 on it is unique until the next boot (`STATX_MNT_ID_UNIQUE`); before, a number is used again
/// after its mount is gone. The unique ones start at 2^31, beyond all others, so the two never mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct MountId(pub(super) u64);

impl MountId {
    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `STATX_MNT_ID_UNIQUE` of linux/stat.h. A kernel that does not know it gives the plain number instead.
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The mount whose root `target` is, the topmost one where several lie on each other; None where nothing is
/// mounted there or nothing is there at all. One system call from kernel 5.8 on.
///
/// # Errors
/// What the kernel gives for a path that cannot be looked at.
pub fn mounted_at(target: &Path) -> Result<Option<MountId>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, target, flags, StatxFlags::MNT_ID | UNIQUE) {
        Ok(found) if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => Ok(found
            .stx_attributes
            .contains(StatxAttributes::MOUNT_ROOT)
            .then_some(MountId(found.stx_mnt_id))),
        Ok(_) | Err(Errno::NOSYS) => table::mounted_at(target),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(Error::from_errno(errno, "look for a mount").with_path(target)),
    }
}

/// The mount that an open mount or directory belongs to, where the kernel tells (5.8).
pub(super) fn id_of(mount: impl AsFd) -> Result<Option<MountId>> {
    match rustix::fs::statx(mount, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | UNIQUE) {
        Ok(Statx { stx_mask, stx_mnt_id, .. }) if stx_mask & (StatxFlags::MNT_ID | UNIQUE).bits() != 0 => {
            Ok(Some(MountId(stx_mnt_id)))
        }
        Ok(_) | Err(Errno::NOSYS) => Ok(None),
        Err(errno) => Err(Error::from_errno(errno, "ask for the number of a mount")),
    }
}
