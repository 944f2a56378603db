//! The directory that core makes for a mount where the caller names none.

use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Makes it, unless it is there.
pub(crate) fn make_target(target: &Path) -> Result<()> {
    match rustix::fs::mkdir(target, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::from_errno(errno, "make the target").with_path(target)),
    }
}

/// Removes it. Whoever put something there keeps it; that it is not there is no error.
///
/// A driver calls it for a [`MountPlan`](super::MountPlan)'s target outside of the layer when the layer is removed: a
/// power loss can keep the directory and lose the note of the mount that it was made for.
///
/// # Errors
/// What the kernel gives.
pub fn remove_target(target: &Path) -> Result<()> {
    match rustix::fs::rmdir(target) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(()),
        Err(errno) => Err(Error::from_errno(errno, "remove the target").with_path(target)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_empty_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("target");
        make_target(&target).unwrap();
        make_target(&target).unwrap();
        std::fs::write(target.join("file"), "").unwrap();
        remove_target(&target).unwrap();
        assert!(target.exists());
        std::fs::remove_file(target.join("file")).unwrap();
        remove_target(&target).unwrap();
        assert!(!target.exists());
        remove_target(&target).unwrap();
    }
}
