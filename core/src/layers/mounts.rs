//! The mounts of layers: attached, found again by any process, noticed when they are taken away.
//!
//! Each has a file in the records: `mounts/<id>` for a mount of a layer that can be written to, of which there is
//! at most one, and `mounts/<id>:<n>` for one of the read-only mounts of a sealed layer. The file says where the
//! mount is and which number the kernel gave it; the kernel says whether it is still there. A mount that is to go with
//! its process is recognised by the lock on its file, which goes with the process too.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::records::{self, Guard};
use super::{Layer, LayerState, Layers};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::mount::{self, Access, MountId, MountPlan};

/// What to mount, where and for how long.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct MountRequest {
    /// Read-only or writable; by default what the layer is.
    pub access: Option<Access>,
    /// An existing directory; by default the place that Docker's layout has for it, which is made and removed again.
    pub target: Option<PathBuf>,
    /// Whether the mount outlives the [`Mount`] and the process.
    pub persistent: bool,
}

impl MountRequest {
    /// The layer as it is, at its own place, until the [`Mount`] is dropped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for read-only or writable.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Asks for a place.
    #[must_use]
    pub fn with_target(mut self, target: impl Into<PathBuf>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// Asks that the mount stay until [`Layers::unmount`].
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }
}

/// One mount of a layer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct MountInfo {
    /// The layer.
    pub layer: LayerId,
    /// Where it is.
    pub target: PathBuf,
    /// Read-only or writable.
    pub access: Access,
    /// Whether it outlives its process.
    pub persistent: bool,
}

/// A mounted layer. Unless it is persistent it goes when this is dropped; [`Mount::unmount`] says whether that worked.
#[derive(Debug)]
pub struct Mount<'a> {
    layers: &'a Layers,
    entry: Entry,
    /// Keeps the lock that says that this process lives. None once there is nothing left to unmount.
    owner: Option<OwnedFd>,
}

impl Mount<'_> {
    /// Where it is.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.entry.target
    }

    /// The layer.
    #[must_use]
    pub fn layer(&self) -> &LayerId {
        &self.entry.layer
    }

    /// Read-only or writable.
    #[must_use]
    pub fn access(&self) -> Access {
        self.entry.access
    }

    /// Unmounts. That somebody else already did is no error.
    ///
    /// # Errors
    /// `InUse` where something in it is still open; the mount then stays until [`Layers::unmount`].
    pub fn unmount(mut self) -> Result<()> {
        self.owner = None;
        let layers = self.layers;
        layers.take_away(&self.entry).map_err(|error| layers.context(error, "unmount", &self.entry.layer))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if self.owner.take().is_some()
            && !self.entry.persistent
            && let Err(error) = self.layers.take_away(&self.entry)
        {
            tracing::warn!(layer = %self.entry.layer, ?error, "a mount could not be taken away");
        }
    }
}

/// What the file of a mount says.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Entry {
    pub(super) layer: LayerId,
    pub(super) target: PathBuf,
    pub(super) access: Access,
    pub(super) persistent: bool,
    /// Whether the target was made for the mount, and goes with it.
    made_target: bool,
    /// The kernel's number; None until it is attached.
    id: Option<MountId>,
    /// Somebody is just unmounting it.
    #[serde(default)]
    leaving: bool,
    /// The name of the file.
    #[serde(skip)]
    name: String,
}

/// Whether a recorded mount is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It is, or its process is just making it.
    There,
    /// It is, though its process is dead and it was to go with it.
    Leaked,
    /// It is not.
    Gone,
}

impl Layers {
    /// Mounts a layer.
    ///
    /// # Errors
    /// `NotFound` for the layer or the target; `InUse` where a writable layer is mounted already; `InvalidInput` for a
    /// writable mount of a sealed layer; `PermissionDenied` without `CAP_SYS_ADMIN`. After an error nothing is mounted.
    pub fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<Mount<'_>> {
        self.mount_layer(id, request).map_err(|error| self.context(error, "mount", id))
    }

    fn mount_layer(&self, id: &LayerId, request: &MountRequest) -> Result<Mount<'_>> {
        let given = match &request.target {
            None => None,
            Some(target) => Some(existing_directory(target)?),
        };
        let (plan, mut entry, file, held) = {
            let guard = self.records.lock()?;
            let held = self.records.hold(id)?;
            if let Some(target) = &given {
                self.refuse_taken(target, &guard)?;
            }
            let access = check_access(&held.layer, request.access)?;
            let exclusive = held.layer.state != LayerState::Sealed;
            if exclusive {
                self.refuse_mounted(id, &guard)?;
            }
            let plan = self.driver.mount_plan(id, access)?;
            let entry = Entry {
                layer: id.clone(),
                made_target: given.is_none(),
                target: given.unwrap_or_else(|| plan.target.clone()),
                access,
                persistent: request.persistent,
                id: None,
                leaving: false,
                name: String::new(),
            };
            let (entry, file) = self.note_mount(entry, exclusive)?;
            (plan, entry, file, held)
        };
        crate::kill_point!("layers.mount.noted");
        let attached = self.attach(&plan, &mut entry, &file);
        drop(held);
        if let Err(error) = attached {
            drop(file);
            if let Err(left) = self.take_away(&entry) {
                tracing::warn!(layer = %id, error = ?left, "a failed mount could not be taken back");
            }
            return Err(error);
        }
        crate::kill_point!("layers.mount.done");
        Ok(Mount { layers: self, entry, owner: Some(file) })
    }

    fn attach(&self, plan: &MountPlan, entry: &mut Entry, file: &OwnedFd) -> Result<()> {
        if entry.made_target {
            make_target(&entry.target)?;
        }
        entry.id = mount::attach(plan, &entry.target)?.id;
        crate::kill_point!("layers.mount.attached");
        records::write_all(file, &entry.to_json())
            .map_err(|errno| self.records.fail(errno, "note the mount", "mounts"))
    }

    /// The mounts that are there: of one layer, or of all.
    ///
    /// # Errors
    /// Where the records or the mounts cannot be looked at.
    pub fn mounts(&self, id: Option<&LayerId>) -> Result<Vec<MountInfo>> {
        let list = || {
            let guard = self.records.lock()?;
            let mut found: Vec<_> = self
                .present(id, &guard)?
                .into_iter()
                .map(|Entry { layer, target, access, persistent, .. }| MountInfo {
                    layer,
                    target,
                    access,
                    persistent,
                })
                .collect();
            found.sort_by(|a, b| (&a.layer, &a.target).cmp(&(&b.layer, &b.target)));
            Ok(found)
        };
        list().map_err(|error: Error| error.with_operation("list mounts").with_driver(self.driver_name()))
    }

    /// Unmounts a layer, whichever process mounted it. Without `target` the layer must be mounted once.
    ///
    /// # Errors
    /// `NotFound` where it is not mounted (there); `InvalidInput` where it is mounted several times and none is named;
    /// `InUse` where something in it is still open.
    pub fn unmount(&self, id: &LayerId, target: Option<&Path>) -> Result<()> {
        let unmount = || {
            let mut found = {
                let guard = self.records.lock()?;
                self.records.read(id)?;
                self.present(Some(id), &guard)?
            };
            if let Some(target) = target {
                let absolute = std::path::absolute(target)
                    .map_err(|error| Error::from_io(error, "find the target").with_path(target))?;
                let real = absolute.canonicalize().unwrap_or_else(|_| absolute.clone());
                found.retain(|entry| entry.target == absolute || entry.target == real);
            }
            match (found.as_slice(), target) {
                ([entry], _) => self.take_away(entry),
                ([], Some(target)) => {
                    Err(Error::new(ErrorKind::NotFound, "the layer is not mounted there").with_path(target))
                }
                ([], None) => Err(Error::new(ErrorKind::NotFound, "the layer is not mounted")),
                (several, _) => {
                    let targets: Vec<_> =
                        several.iter().map(|entry| entry.target.display().to_string()).collect();
                    Err(Error::new(
                        ErrorKind::InvalidInput,
                        format!("the layer is mounted several times, name one: {}", targets.join(", ")),
                    ))
                }
            }
        };
        unmount().map_err(|error| self.context(error, "unmount", id))
    }

    /// Fails with `InUse` where a layer is mounted. Forgets mounts that are gone.
    pub(super) fn refuse_mounted(&self, id: &LayerId, guard: &Guard<'_>) -> Result<()> {
        match self.present(Some(id), guard)?.first() {
            None => Ok(()),
            Some(entry) => {
                Err(Error::new(ErrorKind::InUse, format!("it is mounted on {}", entry.target.display())))
            }
        }
    }

    /// Fails with `InUse` where a layer is mounted on `target` already: two would hide one another.
    fn refuse_taken(&self, target: &Path, guard: &Guard<'_>) -> Result<()> {
        match self.present(None, guard)?.iter().find(|entry| entry.target == target) {
            None => Ok(()),
            Some(entry) => {
                let message = format!("layer {} is mounted on the target", entry.layer);
                Err(Error::new(ErrorKind::InUse, message).with_path(target))
            }
        }
    }

    /// Where a layer that can be written to is mounted, if it is.
    pub(super) fn live_mount(&self, layer: &Layer) -> Result<Option<PathBuf>> {
        if layer.state == LayerState::Sealed {
            return Ok(None);
        }
        let Some((entry, _)) = self.read_entry(layer.id.as_str())? else { return Ok(None) };
        Ok((entry.id.is_some() && mount::mounted_at(&entry.target)? == entry.id).then_some(entry.target))
    }

    /// Takes away the mounts whose process is dead, forgets those that are gone, and says which.
    pub(super) fn recover_mounts(&self, guard: &Guard<'_>) -> Result<Vec<(LayerId, PathBuf, bool)>> {
        let mut found = Vec::new();
        for name in self.mount_names(None)? {
            let Some((entry, file)) = self.read_entry(&name)? else { continue };
            match self.presence(&entry, &file)? {
                Presence::There => {}
                Presence::Leaked => {
                    self.detach(&entry)?;
                    self.forget_mount(&entry, guard)?;
                    found.push((entry.layer, entry.target, true));
                }
                Presence::Gone => {
                    self.forget_mount(&entry, guard)?;
                    // Without a number it never was there; a leaving one was unmounted here.
                    if entry.id.is_some() && !entry.leaving {
                        found.push((entry.layer, entry.target, false));
                    }
                }
            }
        }
        Ok(found)
    }

    /// The recorded mounts that are there. Forgets the others.
    fn present(&self, id: Option<&LayerId>, guard: &Guard<'_>) -> Result<Vec<Entry>> {
        let mut there = Vec::new();
        for name in self.mount_names(id)? {
            let Some((entry, file)) = self.read_entry(&name)? else { continue };
            match self.presence(&entry, &file)? {
                Presence::There | Presence::Leaked => there.push(entry),
                Presence::Gone => self.forget_mount(&entry, guard)?,
            }
        }
        Ok(there)
    }

    fn presence(&self, entry: &Entry, file: &OwnedFd) -> Result<Presence> {
        let owned = match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => false,
            Err(Errno::WOULDBLOCK) => true,
            Err(errno) => return Err(self.records.fail(errno, "lock", &entry.name)),
        };
        let mounted = mount::mounted_at(&entry.target)?;
        Ok(match entry.id {
            // Being attached or unmounted at this moment.
            _ if owned && (entry.id.is_none() || entry.leaving) => Presence::There,
            // Its process died between attaching and noting it. What is on a target that was made for it is it.
            None if mounted.is_some() && entry.made_target => Presence::Leaked,
            None => Presence::Gone,
            Some(_) if mounted != entry.id => Presence::Gone,
            Some(_) if owned || entry.persistent => Presence::There,
            Some(_) => Presence::Leaked,
        })
    }

    /// Unmounts what an entry records, if it is there, and forgets it. The records stay unlocked while the kernel
    /// unmounts, which takes long; meanwhile the entry says that it is leaving.
    fn take_away(&self, entry: &Entry) -> Result<()> {
        let leaving = self.note_leaving(entry, true)?;
        if let Err(error) = self.detach(entry) {
            self.note_leaving(entry, false)?;
            return Err(error);
        }
        let guard = self.records.lock()?;
        drop(leaving);
        // It may have been forgotten, and another mount noted under its name.
        match self.read_entry(&entry.name)? {
            Some((noted, _)) if noted.id == entry.id && noted.target == entry.target => {
                self.forget_mount(entry, &guard)
            }
            _ => Ok(()),
        }
    }

    /// Notes whether a mount is leaving. The file that is returned is locked, unless the process that made the
    /// mount has it locked: either way others see that somebody is at it.
    fn note_leaving(&self, entry: &Entry, leaving: bool) -> Result<Option<OwnedFd>> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.records.mounts, &entry.name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.records.fail(errno, "open", &entry.name)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(self.records.fail(errno, "lock", &entry.name)),
        }
        let noted = Entry { leaving, ..entry.clone() };
        records::write_all(&file, &noted.to_json())
            .map_err(|errno| self.records.fail(errno, "note the mount", &entry.name))?;
        Ok(Some(file))
    }

    fn detach(&self, entry: &Entry) -> Result<()> {
        let mounted = mount::mounted_at(&entry.target)?;
        let is_it = match entry.id {
            Some(id) => mounted == Some(id),
            None => mounted.is_some() && entry.made_target,
        };
        if is_it {
            match mount::detach(&entry.target) {
                // Somebody else was quicker.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => result?,
            }
            crate::kill_point!("layers.unmount.detached");
        }
        Ok(())
    }

    fn forget_mount(&self, entry: &Entry, _guard: &Guard<'_>) -> Result<()> {
        if entry.made_target {
            // Whoever put something there keeps it.
            match rustix::fs::rmdir(&entry.target) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => {}
                Err(errno) => {
                    return Err(Error::from_errno(errno, "remove the target").with_path(&entry.target));
                }
            }
        }
        records::unlink(&self.records.mounts, &entry.name)
            .map_err(|errno| self.records.fail(errno, "forget the mount", "mounts"))?;
        self.driver.unmounted(&entry.layer)
    }

    /// Writes the file of a mount that is about to be attached, locked.
    fn note_mount(&self, mut entry: Entry, exclusive: bool) -> Result<(Entry, OwnedFd)> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::CLOEXEC;
        let place = entry.target.clone();
        for number in 0_u32.. {
            entry.name =
                if exclusive { entry.layer.to_string() } else { format!("{}:{number}", entry.layer) };
            if entry.made_target && number > 0 {
                // Two mounts on one directory would hide one another.
                let mut numbered = place.clone().into_os_string();
                numbered.push(format!(".{number}"));
                entry.target = numbered.into();
            }
            match rustix::fs::openat(&self.records.mounts, &entry.name, flags, Mode::from_raw_mode(0o600)) {
                Ok(file) => {
                    return records::lock_new(&file)
                        .and_then(|()| records::write_all(&file, &entry.to_json()))
                        .map(|()| (entry, file))
                        .map_err(|errno| self.records.fail(errno, "note the mount", "mounts"));
                }
                Err(Errno::EXIST) if !exclusive => {}
                Err(errno) => return Err(self.records.fail(errno, "note the mount", "mounts")),
            }
        }
        Err(Error::new(ErrorKind::Other, "the layer is mounted too many times"))
    }

    fn mount_names(&self, id: Option<&LayerId>) -> Result<Vec<String>> {
        let entries = Dir::read_from(&self.records.mounts)
            .map_err(|errno| self.records.fail(errno, "list", "mounts"))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|errno| self.records.fail(errno, "list", "mounts"))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let layer = name.split_once(':').map_or(name, |(layer, _)| layer);
            if !name.starts_with('.') && id.is_none_or(|id| id.as_str() == layer) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The entry of a mount, None where it has just been forgotten.
    fn read_entry(&self, name: &str) -> Result<Option<(Entry, OwnedFd)>> {
        let file = match rustix::fs::openat(
            &self.records.mounts,
            name,
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.records.fail(errno, "open", name)),
        };
        let json = records::read_all(&file).map_err(|errno| self.records.fail(errno, "read", name))?;
        // The last whole line counts: one is written before attaching, one after.
        let lines = json.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        match lines.rev().find_map(|line| serde_json::from_slice::<Entry>(line).ok()) {
            Some(mut entry) => {
                name.clone_into(&mut entry.name);
                Ok(Some((entry, file)))
            }
            None => {
                // Cut short by a kill before anything was attached, or just being written.
                if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    records::unlink(&self.records.mounts, name)
                        .map_err(|errno| self.records.fail(errno, "forget the mount", name))?;
                }
                Ok(None)
            }
        }
    }
}

impl Entry {
    fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

/// What access a mount gets: what is asked for, if the layer allows it.
pub(super) fn check_access(layer: &Layer, access: Option<Access>) -> Result<Access> {
    match (layer.state, access) {
        (LayerState::Writable, None) => Ok(Access::ReadWrite),
        (_, None) => Ok(Access::ReadOnly),
        (LayerState::Sealed, Some(Access::ReadWrite)) => Err(Error::new(
            ErrorKind::InvalidInput,
            "the layer is sealed: it can be mounted read-only, or have a child",
        )),
        (LayerState::Unknown, Some(Access::ReadWrite)) => Err(Error::new(
            ErrorKind::InvalidInput,
            "it is not known whether the layer is an image's: declare it writable, or seal it",
        )),
        (_, Some(access)) => Ok(access),
    }
}

fn existing_directory(target: &Path) -> Result<PathBuf> {
    match target.canonicalize() {
        Ok(real) if real.is_dir() => Ok(real),
        Ok(_) => Err(Error::new(ErrorKind::InvalidInput, "the target is not a directory").with_path(target)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::NotFound, "the target does not exist").with_path(target))
        }
        Err(error) => Err(Error::from_io(error, "find the target").with_path(target)),
    }
}

fn make_target(target: &Path) -> Result<()> {
    match rustix::fs::mkdir(target, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::from_errno(errno, "make the target").with_path(target)),
    }
}
