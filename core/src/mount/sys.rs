//! The system calls of this module that rustix does not offer safely.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Makes a mount read-only: `mount_setattr(2)`, kernel 5.12.
pub(super) fn set_read_only(mount: impl AsFd) -> Result<(), Errno> {
    mount_setattr(mount, libc::MOUNT_ATTR_RDONLY, 0)
}

/// Takes a mount out of its peer group: `mount_setattr(2)`, kernel 5.12.
pub(super) fn set_private(mount: impl AsFd) -> Result<(), Errno> {
    mount_setattr(mount, 0, libc::MS_PRIVATE)
}

// int mount_setattr(int dirfd, const char *pathname, unsigned int flags, struct mount_attr *attr, size_t size);
fn mount_setattr(mount: impl AsFd, set: u64, propagation: u64) -> Result<(), Errno> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    // SAFETY: the descriptor is borrowed for the whole call; the path is an empty C string, which AT_EMPTY_PATH
    // allows; `attributes` has the layout of struct mount_attr (libc's definition), lives until the call
    // returns, and its true size is passed. The kernel only reads from it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// Gives the calling thread a working directory of its own: `unshare(CLONE_FS)`. Needs no privilege.
pub(super) fn own_working_directory() -> Result<(), Errno> {
    // SAFETY: CLONE_FS separates the working directory, the root and the umask of this thread from those of the
    // process; descriptors and memory stay shared, so no other thread's view of them changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

/// Gives the calling thread a table of mounts of its own, a copy of the one that it had: `unshare(CLONE_NEWNS)`. Needs
/// `CAP_SYS_ADMIN`.
pub(super) fn own_mount_table() -> Result<(), Errno> {
    // SAFETY: CLONE_NEWNS, which implies CLONE_FS, separates the mounts, the working directory and the root of this
    // thread from those of the process; descriptors and memory stay shared, so no other thread's view of them changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
}
