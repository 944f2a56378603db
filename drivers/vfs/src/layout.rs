//! Where things are in the driver's home.
//!
//! ```text
//! <home>/dir/<id>        the layer's tree, as Docker has it
//! <home>/dir/.<id>       the same on its way in or out: a name that no layer can have
//! <home>/windows/<id>    when the tree was copied; see window.rs
//! <home>/mnt/<id>        where the layer is mounted if the caller names no other place; absent otherwise
//! ```
//! Of these Docker knows `dir/<id>` and ignores the others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use layerstack_core::fs::{remove_tree, sync_directory};
use layerstack_core::{Error, ErrorKind, LayerId, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// The home, opened.
#[derive(Debug)]
pub(crate) struct Layout {
    home: PathBuf,
    dir: OwnedFd,
    windows: OwnedFd,
}

impl Layout {
    /// Opens a home, making it where it is absent.
    pub(crate) fn open(home: &Path) -> Result<Self> {
        if let Some(parent) = home.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| Error::from_io(error, "make directory").with_path(parent))?;
        }
        // Nobody but root and its group may pass: a layer has setuid programs of other people.
        let passable = Mode::RWXU | Mode::XGRP;
        let open = |path: &Path| make_directory(path, passable);
        let opened = open(home)?;
        let layout = Self {
            dir: open(&home.join("dir"))?,
            windows: open(&home.join("windows"))?,
            home: home.to_owned(),
        };
        open(&home.join("mnt"))?;
        sync_directory(opened, home)?;
        Ok(layout)
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn windows(&self) -> BorrowedFd<'_> {
        self.windows.as_fd()
    }

    /// The path of a layer's tree.
    pub(crate) fn tree(&self, id: &LayerId) -> PathBuf {
        self.home.join("dir").join(id.as_str())
    }

    /// The path at which a layer is mounted if the caller names none.
    pub(crate) fn mount_point(&self, id: &LayerId) -> PathBuf {
        self.home.join("mnt").join(id.as_str())
    }

    /// Opens a layer's tree; `Corrupt` where there is none.
    pub(crate) fn open_tree(&self, id: &LayerId) -> Result<OwnedFd> {
        match open_directory(&self.dir, id.as_str()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                Err(Error::new(ErrorKind::Corrupt, "the layer's directory is missing")
                    .with_path(self.tree(id)))
            }
            opened => opened.map_err(|errno| Error::from_errno(errno, "open").with_path(self.tree(id))),
        }
    }

    /// Makes the directory in which a layer's tree grows until [`Layout::publish`].
    pub(crate) fn stage(&self, id: &LayerId) -> Result<OwnedFd> {
        let name = staged(id);
        rustix::fs::mkdirat(&self.dir, &name, Mode::RWXU)
            .and_then(|()| open_directory(&self.dir, &name))
            .map_err(|errno| Error::from_errno(errno, "make directory").with_path(self.tree(id)))
    }

    /// Opens what has the staged name; None where there is nothing.
    pub(crate) fn open_staged(&self, id: &LayerId) -> Result<Option<OwnedFd>> {
        match open_directory(&self.dir, staged(id)) {
            Ok(tree) => Ok(Some(tree)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::from_errno(errno, "open").with_path(self.tree(id))),
        }
    }

    /// Gives a staged tree its name: in one step the layer is there.
    pub(crate) fn publish(&self, id: &LayerId) -> Result<()> {
        rustix::fs::renameat(&self.dir, staged(id), &self.dir, id.as_str())
            .map_err(|errno| Error::from_errno(errno, "rename").with_path(self.tree(id)))
    }

    /// Takes the name of a tree away: in one step the layer is gone. That it is absent is no error.
    pub(crate) fn withdraw(&self, id: &LayerId) -> Result<()> {
        match rustix::fs::renameat(&self.dir, id.as_str(), &self.dir, staged(id)) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::from_errno(errno, "rename").with_path(self.tree(id))),
        }
    }

    /// Removes a tree that [`Layout::publish`] did not come to or that [`Layout::withdraw`] left.
    pub(crate) fn remove_staged(&self, id: &LayerId) -> Result<()> {
        remove_tree(&self.dir, staged(id).as_ref(), &self.home.join("dir"))
    }

    /// The ids of all trees, whole or on their way in or out.
    pub(crate) fn ids(&self) -> Result<Vec<LayerId>> {
        let path = self.home.join("dir");
        let fail = |errno| Error::from_errno(errno, "list").with_path(&path);
        let mut ids = Vec::new();
        for entry in Dir::read_from(&self.dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            // A name that is no id is not ours.
            ids.extend(LayerId::new(name.strip_prefix('.').unwrap_or(name)));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Whether a layer's tree is there.
    pub(crate) fn has(&self, id: &LayerId) -> Result<bool> {
        match rustix::fs::statat(&self.dir, id.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(Error::from_errno(errno, "inspect").with_path(self.tree(id))),
        }
    }
}

fn staged(id: &LayerId) -> String {
    format!(".{id}")
}

fn make_directory(path: &Path, mode: Mode) -> Result<OwnedFd> {
    let opened = match rustix::fs::mkdir(path, mode) {
        // Without the process's umask.
        Ok(()) => rustix::fs::chmod(path, mode),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    };
    opened
        .and_then(|()| open_directory(rustix::fs::CWD, path))
        .map_err(|errno| Error::from_errno(errno, "make directory").with_path(path))
}

fn open_directory(at: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}
