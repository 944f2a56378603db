#![expect(
    unsafe_code,
    reason = "unshare is unsafe for the sake of one of its flags; rustix has no listxattrat"
)]
//! System calls that cannot be made without unsafe.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Gives the calling thread a umask of its own, empty, so that files get exactly the mode that they are created
/// with. False where the kernel refuses: some seccomp filters do.
///
/// The thread has a working directory of its own from then on too, so this is for threads that a function starts
/// and ends itself, never for a caller's.
pub(crate) fn clear_umask_of_this_thread() -> bool {
    // SAFETY: of all flags only `FILES` can make a descriptor invalid that another thread uses; `FS` takes apart
    // umask, root and working directory, to which no reference is held.
    let private = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.is_ok();
    if private {
        rustix::process::umask(Mode::empty());
    }
    private
}

/// The number of `listxattrat` (Linux 6.13), the same on all architectures that take part in the common numbering;
/// on the others no call has it. Neither libc nor rustix knows it yet.
const SYS_LISTXATTRAT: libc::c_long = 465;

/// Lists the names of the extended attributes of `name` in `directory`, which is not followed if it is a symbolic
/// link, each with a NUL behind it. `ENOSYS` where the kernel is older than the call.
pub(crate) fn list_xattr_at(
    directory: BorrowedFd<'_>,
    name: &CStr,
    names: &mut [u8],
) -> Result<usize, Errno> {
    // ssize_t listxattrat(int dfd, const char *pathname, unsigned int at_flags, char *list, size_t size);
    // SAFETY: `directory` is open and `name` ends with NUL for as long as the call lasts; the kernel writes at most
    // `names.len()` bytes to `names`, which is borrowed mutably, and keeps nothing.
    let length = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            directory.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            names.as_mut_ptr(),
            names.len(),
        )
    };
    usize::try_from(length)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}
