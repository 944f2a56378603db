//! One at a time: who changes the pool keeps all other threads and processes from it.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use layerstack_core::{Error, Result};
use rustix::fs::FlockOperation;

use crate::layout::Layout;

/// The lock of a home.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// A `flock` excludes other open files, not other threads that use the same one.
    threads: Mutex<()>,
}

/// Held while the pool is changed.
#[derive(Debug)]
pub(crate) struct Passage<'a> {
    lock: BorrowedFd<'a>,
    _threads: MutexGuard<'a, ()>,
}

impl Gate {
    /// Waits for all others.
    pub(crate) fn pass<'a>(&'a self, layout: &'a Layout) -> Result<Passage<'a>> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = layout.lock();
        rustix::io::retry_on_intr(|| rustix::fs::flock(lock, FlockOperation::LockExclusive))
            .map_err(|errno| Error::from_errno(errno, "lock").with_path(layout.home().join("lock")))?;
        Ok(Passage { lock, _threads: threads })
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        // Cannot fail on a file that is open and locked; the kernel drops the lock with the file in any case.
        let _ = rustix::fs::flock(self.lock, FlockOperation::Unlock);
    }
}
