//! A layer's file tree, looked at through a directory descriptor.
//!
//! A [`Tree`] is a read-only view: nothing here changes a file, not even its access time where the kernel lets us
//! see to it. All look-ups start at the root's descriptor, go down by name and follow no symbolic link, so what is
//! in the tree cannot lead out of it.

mod cursor;

mod dump;

mod metadata;

mod names;

mod open;

pub(crate) use cursor::Cursor;
pub use dump::dump;
pub use metadata::{FileKind, Metadata, attributes, link_target};
pub use names::Names;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::mount::{MountPlan, attach_detached};

/// A read-only view of a file tree. See the [module](self).
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens the tree that a plan would mount. A bind plan is opened where it lies; anything else is attached
    /// without a place in the mount table, for as long as the view lives.
    ///
    /// # Errors
    /// What opening or attaching gives.
    pub fn open(plan: &MountPlan) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = if plan.is_bind() {
            rustix::fs::open(&plan.source, flags, Mode::empty())
        } else {
            // What comes back is an O_PATH descriptor, which cannot be listed.
            rustix::fs::openat(attach_detached(plan)?, c".", flags, Mode::empty())
        };
        let root =
            opened.map_err(|errno| Error::from_errno(errno, "open the tree").with_path(&plan.source))?;
        Ok(Self { root })
    }

    /// The tree below an open directory, which must be open for reading (not `O_PATH`).
    #[must_use]
    pub fn from_fd(root: OwnedFd) -> Self {
        Self { root }
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a regular file for reading. `path` is relative to the root; none of its components may be a symbolic
    /// link, and it may be longer than `PATH_MAX`.
    ///
    /// # Errors
    /// `NotFound` where there is no such file, `InvalidInput` for a path with `..` or NUL or for what is no regular
    /// file, or what the kernel gives.
    pub fn open_file(&self, path: &Path) -> Result<File> {
        // Without O_NONBLOCK a FIFO would keep us waiting for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(open::beneath(self.root(), path, flags)?);
        let found =
            Metadata::of(&file).map_err(|errno| Error::from_errno(errno, "inspect").with_path(path))?;
        if found.kind != FileKind::File {
            return Err(Error::new(ErrorKind::InvalidInput, "not a regular file").with_path(path));
        }
        Ok(file)
    }

    /// Opens a directory for reading, on the terms of [`Tree::open_file`]. The empty path is the root.
    ///
    /// # Errors
    /// As [`Tree::open_file`]; `NotFound` also where the path is no directory.
    pub fn open_directory(&self, path: &Path) -> Result<OwnedFd> {
        open::beneath(self.root(), path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
    }

    /// The metadata at `path`, on the terms of [`Tree::open_file`]; a symbolic link's own. None where nothing is
    /// there. The empty path is the root.
    ///
    /// # Errors
    /// `InvalidInput` for a path with `..` or NUL, or what the kernel gives.
    pub fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        let entry = match open::beneath(self.root(), path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
        {
            Ok(entry) => entry,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Metadata::of(&entry).map(Some).map_err(|errno| Error::from_errno(errno, "inspect").with_path(path))
    }
}

#[cfg(test)]
mod tests;
