#![expect(unsafe_code, reason = "unshare is unsafe for the sake of one of its flags")]
//! System calls on behalf of a single thread.

use rustix::fs::Mode;
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
