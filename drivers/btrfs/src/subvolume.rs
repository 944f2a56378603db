//! Subvolumes, through libbtrfsutil: made, snapshotted, sealed, deleted, inspected.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use layerstack_core::{Error, ErrorKind, Result};
use libbtrfsutil::CreateSnapshotOptions;
use rustix::io::Errno;

/// The number that the root directory of every subvolume has: `BTRFS_FIRST_FREE_OBJECTID`.
pub(crate) const ROOT_INODE: u64 = 256;

/// `BTRFS_ROOT_SUBVOL_RDONLY`
const READ_ONLY: u64 = 1;

/// What the file system knows of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subvolume {
    /// Its number, and that of its tree and of its quota group.
    pub(crate) number: u64,
    /// Whether it was sealed.
    pub(crate) read_only: bool,
    /// The unique id of the subvolume that it is a snapshot of.
    pub(crate) origin: Option<[u8; 16]>,
    /// The transaction in which it was made.
    pub(crate) made_in: u64,
}

/// Makes an empty subvolume.
pub(crate) fn create(path: &Path) -> Result<()> {
    libbtrfsutil::create_subvolume(path).map_err(|error| failed(&error, "create the subvolume", path))
}

/// Makes a snapshot of the subvolume `from` named `to`; of one that is written to, as it is at that moment.
pub(crate) fn snapshot(from: &Path, to: &Path, read_only: bool) -> Result<()> {
    CreateSnapshotOptions::new()
        .readonly(read_only)
        .create(from, to)
        .map_err(|error| failed(&error, "snapshot the subvolume", to))
}

/// Deletes a subvolume that has none in it; the kernel takes what it holds away later. False where the file system says
/// that it is not empty: only other subvolumes count for that.
pub(crate) fn delete(path: &Path) -> Result<bool> {
    match libbtrfsutil::delete_subvolume(path) {
        Ok(()) => Ok(true),
        Err(error) => match Errno::from_raw_os_error(error.errno()) {
            Errno::NOTEMPTY => Ok(false),
            _ => Err(failed(&error, "delete the subvolume", path)),
        },
    }
}

/// Seals a subvolume, or opens it again.
pub(crate) fn set_read_only(path: &Path, read_only: bool) -> Result<()> {
    libbtrfsutil::set_subvolume_read_only(path, read_only)
        .map_err(|error| failed(&error, "set the subvolume's read-only flag", path))
}

/// Inspects a subvolume; None where nothing is there, or what is there is none.
pub(crate) fn inspect(path: &Path) -> Result<Option<Subvolume>> {
    match libbtrfsutil::is_subvolume(path) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(failed(&error, "inspect the subvolume", path)),
    }
    let info =
        libbtrfsutil::subvolume_info(path).map_err(|error| failed(&error, "inspect the subvolume", path))?;
    Ok(Some(Subvolume {
        number: info.id(),
        read_only: info.flags() & READ_ONLY != 0,
        origin: info.parent_uuid().map(|uuid| uuid.into_bytes()),
        made_in: info.otransid(),
    }))
}

/// The number of the subvolume that holds `path`.
pub(crate) fn containing(path: &Path) -> Result<u64> {
    libbtrfsutil::subvolume_id(path).map_err(|error| failed(&error, "find the subvolume", path))
}

/// Writes down on disk what the file system has in memory.
pub(crate) fn commit(path: &Path) -> Result<()> {
    libbtrfsutil::sync(path).map_err(|error| failed(&error, "flush the file system", path))
}

/// The path by which libbtrfsutil, which takes no descriptors, finds an open directory, wherever it is moved meanwhile.
pub(crate) fn path_of(directory: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()))
}

fn is_absent(error: &libbtrfsutil::Error) -> bool {
    matches!(Errno::from_raw_os_error(error.errno()), Errno::NOENT | Errno::NOTDIR)
}

fn failed(error: &libbtrfsutil::Error, what: &str, path: &Path) -> Error {
    match Errno::from_raw_os_error(error.errno()) {
        errno @ (Errno::PERM | Errno::ACCESS) => Error::new(
            ErrorKind::PermissionDenied,
            format!("{what}: needs CAP_SYS_ADMIN in the host's user namespace; run as root"),
        )
        .with_source(std::io::Error::from(errno)),
        errno => Error::from_errno(errno, what),
    }
    .with_path(path)
}
