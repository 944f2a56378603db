//! The files in which mounts are noted, and what the kernel says of them.
//!
//! `mounts/<id>` is the mount of a layer that can be written to, of which there is at most one; `mounts/<id>:<n>` is
//! one of the read-only mounts of a sealed layer. The file says where the mount is and which number the kernel gave
//! it; the kernel says whether it is still there. A mount that is to go with its process is recognised by the lock on
//! its file, which goes with the process too.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::records::{self, Guard};
use super::{Layer, LayerState, Layers};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::mount::{self, Access, MountId};

/// What the file of a mount says.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Entry {
    pub(super) layer: LayerId,
    pub(super) target: PathBuf,
    pub(super) access: Access,
    pub(super) persistent: bool,
    /// Whether the target was made for the mount, and goes with it.
    pub(super) made_target: bool,
    /// The kernel's number; None until it is attached.
    pub(super) id: Option<MountId>,
    /// Whether it is a file system of its own, which an unmount flushes without saying what was lost.
    #[serde(default)]
    pub(super) flushed: bool,
    /// Somebody is just unmounting it.
    #[serde(default)]
    pub(super) leaving: bool,
    /// The name of the file.
    #[serde(skip)]
    pub(super) name: String,
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

    /// The recorded mounts of a layer that are there. Forgets the others.
    pub(super) fn present(&self, layer: &Layer, guard: &Guard<'_>) -> Result<Vec<Entry>> {
        let names = match layer.state {
            // Names that others may have by the thousand are not looked through for the one that it can have.
            LayerState::Writable | LayerState::Unknown => vec![layer.id.to_string()],
            LayerState::Sealed => self.mount_names(Some(&layer.id))?,
        };
        self.present_of(names, guard)
    }

    /// All recorded mounts that are there, of a layer of which nothing else is known or of all. Forgets the others.
    pub(super) fn all_present(&self, id: Option<&LayerId>, guard: &Guard<'_>) -> Result<Vec<Entry>> {
        self.present_of(self.mount_names(id)?, guard)
    }

    fn present_of(&self, names: Vec<String>, guard: &Guard<'_>) -> Result<Vec<Entry>> {
        let mut there = Vec::new();
        for name in names {
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
    pub(super) fn take_away(&self, entry: &Entry) -> Result<()> {
        let leaving = self.note_leaving(entry, true)?;
        let flushed = if entry.flushed { flush(&entry.target) } else { Ok(()) };
        if let Err(error) = self.detach(entry) {
            self.note_leaving(entry, false)?;
            return Err(error);
        }
        let guard = self.records.lock()?;
        drop(leaving);
        // It may have been forgotten, and another mount noted under its name.
        match self.read_entry(&entry.name)? {
            Some((noted, _)) if noted.id == entry.id && noted.target == entry.target => {
                self.forget_mount(entry, &guard)?;
            }
            _ => {}
        }
        flushed
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
            mount::remove_target(&entry.target)?;
        }
        records::unlink(&self.records.mounts, &entry.name)
            .map_err(|errno| self.records.fail(errno, "forget the mount", "mounts"))?;
        self.driver.unmounted(&entry.layer)
    }

    /// Writes the file of a mount that is about to be attached, locked.
    pub(super) fn note_mount(&self, mut entry: Entry, exclusive: bool) -> Result<(Entry, OwnedFd)> {
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
    pub(super) fn read_entry(&self, name: &str) -> Result<Option<(Entry, OwnedFd)>> {
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

/// Flushes a mount that is about to go. That it has gone already is no error.
fn flush(target: &Path) -> Result<()> {
    match mount::mounted_at(target)? {
        Some(_) => crate::fs::sync_file_system(target),
        None => Ok(()),
    }
}

impl Entry {
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}
