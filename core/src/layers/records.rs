//! The directory of records: which layers there are.
//!
//! ```text
//! <root>/layerstack/<driver>/
//!   lock                      flock'ed for the short steps below, never while a driver works
//!   boot                      the boot during which the root was last opened
//!   layers/<id>               a layer's record. The layer exists if and only if this file does
//!   pending/<id>              the record of a layer that is being made, filled or removed; flock'ed by the process
//!                             that does it. Once no process holds it, whatever is left of the layer is removed
//!   children/<parent>/<id>    one name for each child
//!   mounts/<id>[:<n>]         one file for each mount, see mounts.rs
//! ```
//! Each change of a layer is one rename between `layers` and `pending`. A lock dies with its process, so there
//! are no stale ones. Only sealing flushes anything.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::record::Layer;
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;

/// Where the records of a driver lie in a root. Docker reads nothing there.
pub(super) fn directory(root: &Path, driver: &str) -> PathBuf {
    root.join("layerstack").join(driver)
}

/// The opened directory of records.
#[derive(Debug)]
pub(super) struct Records {
    path: PathBuf,
    layers: OwnedFd,
    pending: OwnedFd,
    children: OwnedFd,
    pub(super) mounts: OwnedFd,
    lock: OwnedFd,
    /// A `flock` excludes other open files, not other threads that use the same one.
    threads: Mutex<()>,
}

/// Held for a short step on the records; other threads and processes wait meanwhile.
#[derive(Debug)]
pub(super) struct Guard<'a> {
    records: &'a Records,
    _threads: MutexGuard<'a, ()>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Cannot fail on a file that is open and locked; the kernel drops the lock with the file in any case.
        let _ = rustix::fs::flock(&self.records.lock, FlockOperation::Unlock);
    }
}

/// A layer that this process is making, filling or removing. Dropped without being finished it stays pending, as
/// after a kill, and is removed by whoever looks next.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) layer: Layer,
    file: OwnedFd,
}

/// A layer's record, held open so that nobody removes or seals the layer meanwhile.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) layer: Layer,
    pub(super) file: OwnedFd,
}

impl Records {
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let make = |name: &str| -> Result<OwnedFd> {
            let path = path.join(name);
            match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Error::from_errno(errno, "make the directory").with_path(path)),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&path, flags, Mode::empty())
                .map_err(|errno| Error::from_errno(errno, "open").with_path(path))
        };
        let layers = make("layers")?;
        let pending = make("pending")?;
        let children = make("children")?;
        let mounts = make("mounts")?;
        let lock = rustix::fs::open(
            path.join("lock"),
            OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )
        .map_err(|errno| Error::from_errno(errno, "open").with_path(path.join("lock")))?;
        Ok(Self { path, layers, pending, children, mounts, lock, threads: Mutex::new(()) })
    }

    /// Waits for other threads and processes to end their short steps.
    pub(super) fn lock(&self) -> Result<Guard<'_>> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::io::retry_on_intr(|| rustix::fs::flock(&self.lock, FlockOperation::LockExclusive))
            .map_err(|errno| self.fail(errno, "lock", "lock"))?;
        Ok(Guard { records: self, _threads: threads })
    }

    pub(super) fn contains(&self, id: &LayerId) -> Result<bool> {
        exists(&self.layers, id).map_err(|errno| self.fail(errno, "look up", "layers"))
    }

    pub(super) fn is_pending(&self, id: &LayerId) -> Result<bool> {
        exists(&self.pending, id).map_err(|errno| self.fail(errno, "look up", "pending"))
    }

    /// A layer's record; `NotFound` without one.
    pub(super) fn read(&self, id: &LayerId) -> Result<Layer> {
        Layer::from_json(id, &self.read_file(&self.open_layer(id)?, id)?)
    }

    /// A layer's record, held so that the layer is neither removed nor sealed until it is dropped.
    pub(super) fn hold(&self, id: &LayerId) -> Result<Held> {
        self.held(id, FlockOperation::NonBlockingLockShared)
    }

    /// A layer's record, held alone. `InUse` where anybody else holds it.
    pub(super) fn hold_alone(&self, id: &LayerId) -> Result<Held> {
        self.held(id, FlockOperation::NonBlockingLockExclusive)
    }

    fn held(&self, id: &LayerId, operation: FlockOperation) -> Result<Held> {
        // The record may be replaced or moved between being opened and being locked; then the one that is there now
        // counts.
        loop {
            let file = self.open_layer(id)?;
            match rustix::fs::flock(&file, operation) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::new(ErrorKind::InUse, "another operation is working on the layer"));
                }
                Err(errno) => return Err(self.fail(errno, "lock", id.as_str())),
            }
            if self.is_current(&self.layers, id, &file)? {
                let layer = Layer::from_json(id, &self.read_file(&file, id)?)?;
                return Ok(Held { layer, file });
            }
        }
    }

    fn is_current(&self, directory: &OwnedFd, id: &LayerId, file: &OwnedFd) -> Result<bool> {
        let opened = rustix::fs::fstat(file).map_err(|errno| self.fail(errno, "inspect", id.as_str()))?;
        match rustix::fs::statat(directory, id.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.fail(errno, "inspect", id.as_str())),
        }
    }

    /// Starts a layer: its record appears among the pending ones, locked, and among its parent's children.
    pub(super) fn begin(&self, layer: Layer, _guard: &Guard<'_>) -> Result<Pending> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.pending, layer.id.as_str(), flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| self.fail(errno, "make the record", "pending"))?;
        let pending = Pending { layer, file };
        let filled = lock_new(&pending.file)
            .and_then(|()| write_all(&pending.file, &pending.layer.to_json()))
            .map_err(|errno| self.fail(errno, "write the record", "pending"))
            .and_then(|()| self.link_child(&pending.layer));
        if let Err(error) = filled {
            // Nothing but the record is there yet.
            self.forget(&pending.layer.id, pending.layer.parent.as_ref())?;
            return Err(error);
        }
        Ok(pending)
    }

    fn link_child(&self, layer: &Layer) -> Result<()> {
        self.note_child(&self.pending, layer)
    }

    /// Makes sure that a layer stands among its parent's children.
    pub(super) fn relink_child(&self, layer: &Layer) -> Result<()> {
        self.note_child(&self.layers, layer)
    }

    /// Gives the record of a layer, which lies in `directory`, its name among the parent's children.
    fn note_child(&self, directory: &OwnedFd, layer: &Layer) -> Result<()> {
        let Some(parent) = &layer.parent else { return Ok(()) };
        let name = format!("{parent}/{}", layer.id);
        let mut tries = 0;
        loop {
            match rustix::fs::linkat(directory, layer.id.as_str(), &self.children, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::EXIST) => return Ok(()),
                // There is no other child; or the last one has gone just now, and the directory with it.
                Err(Errno::NOENT) if tries < 100 => tries += 1,
                Err(errno) => return Err(self.fail(errno, "note the child", "children")),
            }
            match rustix::fs::mkdirat(&self.children, parent.as_str(), Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.fail(errno, "note the child", "children")),
            }
        }
    }

    /// Makes a pending layer exist. Its lock goes first, so that whoever sees the layer can have it; the guard keeps
    /// everybody from taking the pending layer over meanwhile.
    pub(super) fn finish(&self, pending: Pending, _guard: &Guard<'_>) -> Result<Layer> {
        let id = pending.layer.id.as_str();
        rustix::fs::flock(&pending.file, FlockOperation::Unlock)
            .map_err(|errno| self.fail(errno, "unlock", id))?;
        rustix::fs::renameat(&self.pending, id, &self.layers, id)
            .map_err(|errno| self.fail(errno, "make the layer visible", id))?;
        Ok(pending.layer)
    }

    /// Makes a pending layer exist, sealed; where `durable`, record and name are on stable storage afterwards.
    pub(super) fn finish_sealed(&self, mut pending: Pending, durable: bool) -> Result<Layer> {
        pending.layer.state = super::LayerState::Sealed;
        let id = pending.layer.id.as_str();
        rustix::fs::ftruncate(&pending.file, 0)
            .and_then(|()| rustix::fs::seek(&pending.file, rustix::fs::SeekFrom::Start(0)).map(drop))
            .and_then(|()| write_all(&pending.file, &pending.layer.to_json()))
            .and_then(|()| if durable { rustix::fs::fsync(&pending.file) } else { Ok(()) })
            .map_err(|errno| self.fail(errno, "write the record", id))?;
        crate::kill_point!("layers.seal.recorded");
        let layer = self.finish(pending, &self.lock()?)?;
        self.flush_names(durable)?;
        Ok(layer)
    }

    /// Replaces the record of a layer that is held alone.
    pub(super) fn replace(&self, layer: &Layer, durable: bool) -> Result<()> {
        let new = replacement(&layer.id);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        rustix::fs::openat(&self.layers, &new, flags, Mode::from_raw_mode(0o600))
            .and_then(|file| {
                write_all(&file, &layer.to_json())?;
                if durable { rustix::fs::fsync(&file) } else { Ok(()) }
            })
            .map_err(|errno| self.fail(errno, "write the record", &new))?;
        crate::kill_point!("layers.seal.recorded");
        rustix::fs::renameat(&self.layers, &new, &self.layers, layer.id.as_str())
            .map_err(|errno| self.fail(errno, "replace the record", layer.id.as_str()))?;
        self.flush_names(durable)
    }

    fn flush_names(&self, durable: bool) -> Result<()> {
        if durable {
            crate::fs::sync_directory(&self.layers, &self.path.join("layers"))?;
        }
        Ok(())
    }

    /// Makes a layer that is held alone vanish: its record moves back among the pending ones.
    pub(super) fn withdraw(&self, held: Held, _guard: &Guard<'_>) -> Result<Pending> {
        let id = held.layer.id.as_str();
        rustix::fs::renameat(&self.layers, id, &self.pending, id)
            .map_err(|errno| self.fail(errno, "withdraw the layer", id))?;
        Ok(Pending { layer: held.layer, file: held.file })
    }

    /// Forgets a layer of which nothing is left.
    pub(super) fn forget(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        if let Some(parent) = parent {
            unlink(&self.children, &format!("{parent}/{id}"))
                .map_err(|errno| self.fail(errno, "forget the child", "children"))?;
            // Fails while the parent has other children.
            let _ = rustix::fs::unlinkat(&self.children, parent.as_str(), AtFlags::REMOVEDIR);
        }
        // What a process left that was killed while it replaced the record.
        unlink(&self.layers, &replacement(id))
            .map_err(|errno| self.fail(errno, "forget the record", "layers"))?;
        unlink(&self.pending, id.as_str()).map_err(|errno| self.fail(errno, "forget the record", "pending"))
    }

    /// Forgets the record of a layer whose storage is gone.
    pub(super) fn forget_lost(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        _guard: &Guard<'_>,
    ) -> Result<()> {
        unlink(&self.layers, id.as_str()).map_err(|errno| self.fail(errno, "forget the record", "layers"))?;
        self.forget(id, parent)
    }

    /// Takes over a pending layer whose process is dead; None where one is at work on it.
    pub(super) fn take_over(&self, id: &LayerId, _guard: &Guard<'_>) -> Result<Option<Pending>> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.pending, id.as_str(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.fail(errno, "open", id.as_str())),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(self.fail(errno, "lock", id.as_str())),
        }
        // Its process may have finished between the two calls.
        if !self.is_current(&self.pending, id, &file)? {
            return Ok(None);
        }
        // A record that was cut short names no parent; then the parent is the one that lists the child.
        let layer = match Layer::from_json(id, &self.read_file(&file, id)?) {
            Ok(layer) => layer,
            Err(_) => Layer {
                id: id.clone(),
                parent: self.parent_listing(id)?,
                state: super::LayerState::Writable,
                depth: 0,
                options: crate::options::Options::new(),
                created: 0,
            },
        };
        Ok(Some(Pending { layer, file }))
    }

    /// The layer under whose children `id` stands. Looks at every parent.
    pub(super) fn parent_listing(&self, id: &LayerId) -> Result<Option<LayerId>> {
        for parent in self.names(&self.children, "children")? {
            match rustix::fs::statat(&self.children, format!("{parent}/{id}"), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => return Ok(Some(parent)),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.fail(errno, "look up", "children")),
            }
        }
        Ok(None)
    }

    /// The layers, in no order.
    pub(super) fn list(&self) -> Result<Vec<LayerId>> {
        self.names(&self.layers, "layers")
    }

    /// The pending layers, in no order.
    pub(super) fn list_pending(&self) -> Result<Vec<LayerId>> {
        self.names(&self.pending, "pending")
    }

    /// The children of a layer, those being made or removed included, in no order.
    pub(super) fn children(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.children, id.as_str(), flags, Mode::empty()) {
            Ok(directory) => self.names(&directory, "children"),
            Err(Errno::NOENT) => Ok(Vec::new()),
            Err(errno) => Err(self.fail(errno, "list", "children")),
        }
    }

    /// Fails with `HasChildren` where a layer has any; else no child can be added until the guard is dropped.
    pub(super) fn refuse_children(&self, id: &LayerId, _guard: &Guard<'_>) -> Result<()> {
        loop {
            match rustix::fs::unlinkat(&self.children, id.as_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(errno) => return Err(self.fail(errno, "look up", "children")),
            }
            let mut real = Vec::new();
            for child in self.children(id)? {
                if self.contains(&child)? || self.is_pending(&child)? {
                    real.push(child);
                } else {
                    // Left by a power loss that kept this name and not the record's.
                    unlink(&self.children, &format!("{id}/{child}"))
                        .map_err(|errno| self.fail(errno, "forget the child", "children"))?;
                }
            }
            if !real.is_empty() {
                real.sort();
                let names: Vec<_> = real.iter().take(3).map(LayerId::as_str).collect();
                let more =
                    if real.len() > 3 { format!(" and {} more", real.len() - 3) } else { String::new() };
                let message = format!("other layers stand on it: {}{more}", names.join(", "));
                return Err(Error::new(ErrorKind::HasChildren, message));
            }
        }
    }

    /// Whether the root was last opened during another boot; notes this one.
    pub(super) fn is_first_open_of_this_boot(&self) -> Result<bool> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot =
            std::fs::read(path).map_err(|error| Error::from_io(error, "read the boot id").with_path(path))?;
        let noted = self.path.join("boot");
        if std::fs::read(&noted).is_ok_and(|noted| noted == boot) {
            return Ok(false);
        }
        std::fs::write(&noted, boot).map_err(|error| Error::from_io(error, "write").with_path(noted))?;
        Ok(true)
    }

    fn names(&self, directory: impl AsFd, shown: &str) -> Result<Vec<LayerId>> {
        let entries = Dir::read_from(directory).map_err(|errno| self.fail(errno, "list", shown))?;
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|errno| self.fail(errno, "list", shown))?;
            if let Some(id) = entry.file_name().to_str().ok().and_then(|name| LayerId::new(name).ok()) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn open_layer(&self, id: &LayerId) -> Result<OwnedFd> {
        match rustix::fs::openat(&self.layers, id.as_str(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Ok(file),
            Err(Errno::NOENT) => Err(Error::new(ErrorKind::NotFound, "no such layer")),
            Err(errno) => Err(self.fail(errno, "open the record", id.as_str())),
        }
    }

    fn read_file(&self, file: &OwnedFd, id: &LayerId) -> Result<Vec<u8>> {
        read_all(file).map_err(|errno| self.fail(errno, "read the record", id.as_str()))
    }

    pub(super) fn fail(&self, errno: Errno, what: &str, name: &str) -> Error {
        Error::from_errno(errno, what).with_path(self.path.join(name))
    }
}

/// The name under which a layer's new record lies until it replaces the old one. With a dot first it is no layer's.
fn replacement(id: &LayerId) -> String {
    format!(".{id}")
}

fn exists(directory: &OwnedFd, id: &LayerId) -> Result<bool, Errno> {
    match rustix::fs::accessat(directory, id.as_str(), rustix::fs::Access::EXISTS, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Locks a file that this process has just made: nobody else can hold it.
pub(super) fn lock_new(file: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Reads a small file from its start.
pub(super) fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut all = Vec::new();
    let mut chunk = [0_u8; 2048];
    loop {
        let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut chunk[..], all.len() as u64))?;
        all.extend_from_slice(&chunk[..read]);
        // A short read of a regular file is its end; that saves the call that would return nothing.
        if read < chunk.len() {
            return Ok(all);
        }
    }
}

pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

pub(super) fn unlink(directory: &OwnedFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}
