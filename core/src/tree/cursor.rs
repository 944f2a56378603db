//! A position in a tree while it is walked.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Tree;

/// How many directories above the current one are kept open. A tree deeper than this costs one more `open` a level
/// on the way back up; without a limit it would cost all of the process's descriptors.
const KEPT_OPEN: usize = 64;

/// A directory in a tree, with the way back to the root. Goes down by name, never through a symbolic link.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    root: BorrowedFd<'a>,
    levels: Vec<Level>,
}

#[derive(Debug)]
enum Level {
    Open(OwnedFd),
    /// Closed meanwhile; device and inode say whether ".." leads back to it.
    Closed(u64, u64),
}

impl<'a> Cursor<'a> {
    /// At the root of a tree.
    pub(crate) fn new(tree: &'a Tree) -> Self {
        Self { root: tree.root(), levels: Vec::new() }
    }

    /// The current directory.
    pub(crate) fn here(&self) -> BorrowedFd<'_> {
        match self.levels.last() {
            Some(Level::Open(directory)) => directory.as_fd(),
            // Only levels far above the last one are closed.
            Some(Level::Closed(..)) | None => self.root,
        }
    }

    /// Opens a directory in the current one, for [`Cursor::enter`].
    ///
    /// # Errors
    /// What the kernel gives.
    pub(crate) fn open(&self, name: &CStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A read-only view leaves no access times behind; only the owner or root may ask for that.
        match rustix::fs::openat(self.here(), name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => rustix::fs::openat(self.here(), name, flags, Mode::empty()),
            outcome => outcome,
        }
    }

    /// Makes a directory that [`Cursor::open`] opened the current one.
    ///
    /// # Errors
    /// What the kernel gives.
    pub(crate) fn enter(&mut self, directory: OwnedFd) -> Result<(), Errno> {
        self.levels.push(Level::Open(directory));
        if let Some(far) = self.levels.len().checked_sub(KEPT_OPEN + 1)
            && let Level::Open(directory) = &self.levels[far]
        {
            let stat = rustix::fs::fstat(directory)?;
            self.levels[far] = Level::Closed(stat.st_dev, stat.st_ino);
        }
        Ok(())
    }

    /// Goes up by one level; at the root it stays.
    ///
    /// # Errors
    /// What the kernel gives; `EAGAIN` where the tree was rearranged so that the way up leads elsewhere.
    pub(crate) fn leave(&mut self) -> Result<(), Errno> {
        let Some(left) = self.levels.pop() else { return Ok(()) };
        if let (Some(Level::Closed(device, inode)), Level::Open(left)) = (self.levels.last(), left) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let up = rustix::fs::openat(left, c"..", flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&up)?;
            if (stat.st_dev, stat.st_ino) != (*device, *inode) {
                return Err(Errno::AGAIN);
            }
            self.levels.pop();
            self.levels.push(Level::Open(up));
        }
        Ok(())
    }
}
