//! The mounts of layers: attached, found again by any process, noticed when they are taken away.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mount_entries::Entry;
use super::records::{self, Guard};
use super::{Layer, LayerState, Layers};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::mount::{self, Access, MountPlan};

/// How often, and how long apart, a layer is tried to be mounted that is a file system of its own and in use: two seconds.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

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
                self.refuse_mounted(&held.layer, &guard)?;
            }
            let plan = self.driver.mount_plan(id, access)?;
            let entry = Entry {
                layer: id.clone(),
                made_target: given.is_none(),
                target: given.unwrap_or_else(|| plan.target.clone()),
                access,
                persistent: request.persistent,
                id: None,
                flushed: access == Access::ReadWrite && plan.is_on_device(),
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
            mount::make_target(&entry.target)?;
        }
        entry.id = when_free(plan, |plan| mount::attach(plan, &entry.target))?.id;
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
                .all_present(id, &guard)?
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
                self.present(&self.records.read(id)?, &guard)?
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
    pub(super) fn refuse_mounted(&self, layer: &Layer, guard: &Guard<'_>) -> Result<()> {
        match self.present(layer, guard)?.first() {
            None => Ok(()),
            Some(entry) => {
                Err(Error::new(ErrorKind::InUse, format!("it is mounted on {}", entry.target.display())))
            }
        }
    }

    /// Fails with `InUse` where a layer is mounted on `target` already: two would hide one another.
    fn refuse_taken(&self, target: &Path, guard: &Guard<'_>) -> Result<()> {
        match self.all_present(None, guard)?.iter().find(|entry| entry.target == target) {
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

/// Attaches a plan. A file system is mounted writable or read-only, not both, and one that was mounted by a process that
/// was killed is so until the kernel has let go of it, a moment later; a look at a layer is over soon as well.
pub(super) fn when_free<T>(plan: &MountPlan, attach: impl Fn(&MountPlan) -> Result<T>) -> Result<T> {
    for _ in 0..TRIES {
        match attach(plan) {
            Err(error) if error.kind() == ErrorKind::InUse && plan.is_on_device() => {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
    attach(plan)
}
