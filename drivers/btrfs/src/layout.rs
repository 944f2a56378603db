//! Where things are in the driver's home.
//!
//! ```text
//! <home>/subvolumes/<id>     the layer, a subvolume, as Docker has it
//! <home>/subvolumes/.<id>    the same on its way out: a name that no layer can have
//! <home>/quotas/<id>         the layer's size limit in bytes, as Docker has it; absent where it has none
//! <home>/snapshots           see snapshots.rs
//! <home>/mnt/<id>            where the layer is mounted if the caller names no other place; absent otherwise
//! ```
//! Of these Docker knows the first and the third, and ignores the others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use layerstack_core::fs::sync_directory;
use layerstack_core::{Error, ErrorKind, LayerId, Result, kill_point};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::groups::Groups;
use crate::subvolume::{self, Subvolume};
use crate::sys::{self, Key};
use crate::{names, nested, release};

/// `BTRFS_ROOT_BACKREF_KEY`: from a subvolume (the object) to the one that it is in (the offset).
const ABOVE: u32 = 144;
/// `BTRFS_UUID_KEY_SUBVOL`: from a unique id (the object and the offset) to the subvolume.
const BY_UUID: u32 = 251;

/// The home, opened.
#[derive(Debug)]
pub(crate) struct Layout {
    home: PathBuf,
    subvolumes: OwnedFd,
    quotas: OwnedFd,
    /// The inode of the directory `subvolumes`, and the number of the subvolume that it is in.
    place: (u64, u64),
    groups: Groups,
}

impl Layout {
    /// Opens a home, making it where it is absent.
    pub(crate) fn open(home: &Path) -> Result<Self> {
        if let Some(parent) = home.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| Error::from_io(error, "make directory").with_path(parent))?;
        }
        let new = !home.join("mnt").is_dir();
        let opened = make_directory(home)?;
        let path = home.join("subvolumes");
        let subvolumes = make_directory(&path)?;
        let quotas = make_directory(&home.join("quotas"))?;
        for name in ["snapshots", "mnt"] {
            make_directory(&home.join(name))?;
        }
        if new {
            sync_directory(opened, home)?;
        }
        let stat = rustix::fs::fstat(&subvolumes)
            .map_err(|errno| Error::from_errno(errno, "inspect").with_path(&path))?;
        let place = (stat.st_ino, subvolume::containing(&path)?);
        let notes = quotas.try_clone().map_err(|error| Error::from_io(error, "duplicate a descriptor"))?;
        let groups = Groups::open(notes)?;
        groups.settle(&subvolumes);
        Ok(Self { home: home.to_owned(), subvolumes, quotas, place, groups })
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Something open on the file system, for ioctls that are about all of it.
    pub(crate) fn file_system(&self) -> BorrowedFd<'_> {
        self.subvolumes.as_fd()
    }

    /// The path of a layer's tree.
    pub(crate) fn tree(&self, id: &LayerId) -> PathBuf {
        self.home.join("subvolumes").join(id.as_str())
    }

    /// The path at which a layer is mounted if the caller names none.
    pub(crate) fn mount_point(&self, id: &LayerId) -> PathBuf {
        self.home.join("mnt").join(id.as_str())
    }

    /// Where snapshots of layers are kept for as long as somebody looks at them.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.home.join("snapshots")
    }

    /// A layer's path and what the file system knows of it; `Corrupt` where it is no subvolume.
    pub(crate) fn subvolume(&self, id: &LayerId) -> Result<(PathBuf, Subvolume)> {
        let path = self.tree(id);
        match subvolume::inspect(&path)? {
            Some(found) => Ok((path, found)),
            None => Err(Error::new(ErrorKind::Corrupt, "the layer's subvolume is missing").with_path(path)),
        }
    }

    /// The layer that a subvolume is a snapshot of, where that is a layer (still).
    pub(crate) fn parent(&self, of: &Subvolume) -> Result<Option<LayerId>> {
        let Some(origin) = of.origin else { return Ok(None) };
        let (first, last) = origin.split_at(8);
        let half = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let key =
            Key { tree: sys::UUIDS, object: half(first), kind: BY_UUID, offsets: (half(last), half(last)) };
        let mut parent = None;
        match sys::search(&self.subvolumes, key, |item| parent = parent.or(item.number(0))) {
            // Without the tree: a file system of before Linux 3.12.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::from_errno(errno, "find the layer's parent")),
        }
        let Some(parent) = parent else { return Ok(None) };
        let (directory, subvolume) = self.place;
        let key = Key { tree: sys::ROOTS, object: parent, kind: ABOVE, offsets: (subvolume, subvolume) };
        let mut name = None;
        sys::search(&self.subvolumes, key, |item| {
            // struct btrfs_root_ref: the directory, 64 bits of sequence, 16 of length, the name.
            if item.number(0) == Some(directory) {
                name = item.data.get(16..).and_then(names::name).map(|(name, _)| name);
            }
        })
        .map_err(|errno| Error::from_errno(errno, "find the name of the layer's parent"))?;
        Ok(name.and_then(|name| LayerId::new(String::from_utf8(name).ok()?).ok()))
    }

    /// The ids of which anything is there, whole or on its way out.
    pub(crate) fn ids(&self) -> Result<Vec<LayerId>> {
        let mut ids = Vec::new();
        for (directory, name) in [(&self.subvolumes, "subvolumes"), (&self.quotas, "quotas")] {
            let failed = |errno| Error::from_errno(errno, "list").with_path(self.home.join(name));
            for entry in Dir::read_from(directory).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                // A name that is no id is not ours.
                ids.extend(LayerId::new(name.strip_prefix('.').unwrap_or(name)));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Removes a layer's subvolume and those in it; nothing there is no error.
    pub(crate) fn remove(&self, id: &LayerId) -> Result<()> {
        let out = self.home.join("subvolumes").join(format!(".{id}"));
        // What an interrupted call left has the name that the layer may be about to get.
        self.remove_with_nested(&out)?;
        let path = self.tree(id);
        let Some(found) = subvolume::inspect(&path)? else { return self.remove_debris(id) };
        if self.delete(&path, found.number)? {
            kill_point!("btrfs.remove.deleted");
            return release::wait_if_tight(&self.subvolumes, &self.home, found.number);
        }
        // There are subvolumes in it: gone in one step all the same, and deleted afterwards.
        rustix::fs::renameat(&self.subvolumes, id.as_str(), &self.subvolumes, format!(".{id}"))
            .map_err(|errno| Error::from_errno(errno, "rename").with_path(&path))?;
        kill_point!("btrfs.remove.renamed");
        self.remove_with_nested(&out)
    }

    fn remove_with_nested(&self, path: &Path) -> Result<()> {
        let Some(found) = subvolume::inspect(path)? else { return Ok(()) };
        nested::delete(self, (path, found.number))?;
        self.delete(path, found.number)?;
        kill_point!("btrfs.remove.deleted");
        release::wait_if_tight(&self.subvolumes, &self.home, found.number)
    }

    /// Deletes a subvolume that has none in it, and its quota group. False where the file system says that it is not
    /// empty: only other subvolumes count for that.
    pub(crate) fn delete(&self, path: &Path, number: u64) -> Result<bool> {
        let noted = self.groups.release(&self.subvolumes, number)?;
        kill_point!("btrfs.remove.released");
        let deleted = subvolume::delete(path)?;
        if noted && deleted {
            self.groups.deleted(&self.subvolumes, number);
        }
        Ok(deleted)
    }

    /// An interrupted deletion by `rmdir` of somebody else, or a restored copy, leaves an ordinary directory.
    fn remove_debris(&self, id: &LayerId) -> Result<()> {
        layerstack_core::fs::remove_tree(
            &self.subvolumes,
            id.as_str().as_ref(),
            &self.home.join("subvolumes"),
        )
    }

    /// Writes a layer's size limit down.
    pub(crate) fn note_limit(&self, id: &LayerId, bytes: u64) -> Result<()> {
        let path = self.home.join("quotas").join(id.as_str());
        std::fs::write(&path, bytes.to_string())
            .map_err(|error| Error::from_io(error, "note the size").with_path(path))
    }

    /// Takes what [`Layout::note_limit`] wrote away; that there is nothing is no error.
    pub(crate) fn forget_limit(&self, id: &LayerId) -> Result<()> {
        match rustix::fs::unlinkat(&self.quotas, id.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::from_errno(errno, "forget the size")
                .with_path(self.home.join("quotas").join(id.as_str()))),
        }
    }
}

/// Makes a directory where it is absent. Nobody but root and its group may pass: a layer has setuid programs of
/// other people.
fn make_directory(path: &Path) -> Result<OwnedFd> {
    let passable = Mode::RWXU | Mode::XGRP;
    let made = match rustix::fs::mkdir(path, passable) {
        // Whatever the umask is.
        Ok(()) => rustix::fs::chmod(path, passable),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    };
    made.map_err(|errno| Error::from_errno(errno, "make directory").with_path(path))?;
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::from_errno(errno, "open").with_path(path))
}

impl Drop for Layout {
    fn drop(&mut self) {
        self.groups.settle(&self.subvolumes);
    }
}
