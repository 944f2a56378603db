//! Deletions: whiteouts and opaque directories.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::name::WHITEOUT;
use super::walk::Missing;
use super::{Applier, failed};
use crate::driver::LayerForm;
use crate::error::Result;
use crate::tree::{FileKind, Metadata, Names};

/// aufs' name for an opaque directory is OCI's.
const AUFS_OPAQUE: &CStr = c".wh..wh..opq";

impl Applier<'_> {
    /// Deletes `name` of the lower layers; what this archive brought stays.
    pub(super) fn whiteout(&mut self, directory: &[u8], name: &CStr) -> Result<()> {
        match self.enter(directory, Missing::Stop)? {
            Some(level) => self.cover(level, name),
            None => Ok(()),
        }
    }

    /// Deletes all that lower layers have in a directory; what this archive brought stays.
    pub(super) fn opaque(&mut self, directory: &[u8]) -> Result<()> {
        let Some(level) = self.enter(directory, Missing::Stop)? else { return Ok(()) };
        self.prune(level)?;
        if level > 0 {
            return if self.lower(level)?.is_some() { self.make_opaque(level) } else { Ok(()) };
        }
        // overlayfs does not look at the attribute on the root of a layer: every name there is covered by itself.
        let Some(lower) = self.lower(0)? else { return Ok(()) };
        let names = Names::of(lower, &mut Vec::with_capacity(LISTING))
            .map_err(|errno| failed(errno, "list the parent layer"))?;
        names.iter().try_for_each(|name| self.cover(0, name))
    }

    fn cover(&mut self, level: usize, name: &CStr) -> Result<()> {
        if let Some(found) = self.in_target(level, name)?.filter(|found| !self.is_whiteout(found)) {
            let key = self.ours.key(self.levels[level].key, name);
            if self.ours.has(key) {
                return if found.kind == FileKind::Directory {
                    self.cover_below(level, name)
                } else {
                    Ok(())
                };
            }
            self.clear(level, name)?;
        }
        if self.in_lower(level, name)?.is_some() { self.make_whiteout(level, name) } else { Ok(()) }
    }

    /// Deletes what lower layers have in the directory `name`, which this archive brought.
    fn cover_below(&mut self, level: usize, name: &CStr) -> Result<()> {
        self.descend(level, name, false)?.map_err(|errno| failed(errno, "open the directory"))?;
        self.prune(level + 1)?;
        let lower = self.in_lower(level, name)?;
        if lower.is_some_and(|lower| lower.kind == FileKind::Directory) {
            self.make_opaque(level + 1)
        } else {
            Ok(())
        }
    }

    /// Removes from the directory at `level`, and all below it, what this archive did not bring.
    fn prune(&mut self, level: usize) -> Result<()> {
        if !self.ours.has_exceptions() {
            return Ok(());
        }
        let list = |applier: &mut Self, level| {
            Names::of(&applier.directory(level)?.fd, &mut Vec::with_capacity(LISTING))
                .map_err(|errno| failed(errno, "list the directory"))
        };
        // The names of each directory on the way down, and how far they are done.
        let mut open = vec![(list(self, level)?, 0)];
        while let Some((names, done)) = open.last_mut() {
            let Some(name) = names.get(*done).map(CString::from) else {
                open.pop();
                continue;
            };
            *done += 1;
            let here = level + open.len() - 1;
            let key = self.ours.key(self.levels[here].key, &name);
            if !self.ours.has(key) {
                if self.form != LayerForm::Aufs || *name != *AUFS_OPAQUE {
                    self.clear(here, &name)?;
                }
            } else if self.in_target(here, &name)?.is_some_and(|found| found.kind == FileKind::Directory) {
                self.descend(here, &name, false)?.map_err(|errno| failed(errno, "open the directory"))?;
                open.push((list(self, here + 1)?, 0));
            }
        }
        self.leave(level + 1)
    }

    /// Whether it is a whiteout in this layer's own form.
    pub(super) fn is_whiteout(&self, found: &Metadata) -> bool {
        matches!(self.form, LayerForm::Overlay { .. })
            && found.kind == FileKind::CharDevice
            && found.rdev == (0, 0)
    }

    /// Whether a whiteout of aufs' form hides `name`; other forms have theirs in the place of the name itself.
    pub(super) fn has_aufs_whiteout(&mut self, level: usize, name: &CStr) -> Result<bool> {
        if self.form != LayerForm::Aufs || !self.has_whiteouts {
            return Ok(false);
        }
        Ok(self.in_target(level, &aufs_whiteout(name))?.is_some())
    }

    /// Takes aufs' whiteout of `name` away, before something of that name is made; whether there was one.
    pub(super) fn uncover(&mut self, level: usize, name: &CStr) -> Result<bool> {
        let covered = self.has_aufs_whiteout(level, name)?;
        if covered {
            rustix::fs::unlinkat(&self.directory(level)?.fd, aufs_whiteout(name), AtFlags::empty())
                .map_err(|errno| failed(errno, "remove a whiteout"))?;
        }
        Ok(covered)
    }

    fn make_whiteout(&mut self, level: usize, name: &CStr) -> Result<()> {
        let form = self.form;
        let directory = self.directory(level)?;
        directory.touched = true;
        let made = match form {
            LayerForm::Whole => return Ok(()),
            LayerForm::Overlay { .. } => {
                let kind = FileType::CharacterDevice;
                rustix::fs::mknodat(&directory.fd, name, kind, Mode::empty(), rustix::fs::makedev(0, 0))
            }
            LayerForm::Aufs => make_mark(&directory.fd, &aufs_whiteout(name)),
        };
        self.has_whiteouts = true;
        match made {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(failed(errno, "make a whiteout")),
        }
    }

    /// Has the directory at `level` hide what lower layers have in it.
    pub(super) fn make_opaque(&mut self, level: usize) -> Result<()> {
        let form = self.form;
        let directory = self.directory(level)?;
        match form {
            LayerForm::Whole => return Ok(()),
            LayerForm::Overlay { userxattr } => {
                rustix::fs::fsetxattr(&directory.fd, opaque_attribute(userxattr), b"y", XattrFlags::empty())
            }
            LayerForm::Aufs => {
                directory.touched = true;
                make_mark(&directory.fd, AUFS_OPAQUE)
            }
        }
        .map_err(|errno| failed(errno, "make the directory opaque"))?;
        self.levels[level].opaque = true;
        self.recent_lower = None;
        Ok(())
    }

    /// Whether an open directory hides what lower layers have in it.
    pub(super) fn is_opaque(&self, directory: &OwnedFd) -> Result<bool> {
        let found = match self.form {
            LayerForm::Whole => return Ok(false),
            LayerForm::Overlay { userxattr } => {
                let mut value = [0; 2];
                match rustix::fs::fgetxattr(directory, opaque_attribute(userxattr), &mut value[..]) {
                    Ok(length) => Ok(value[..length.min(2)] == *b"y"),
                    Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
                    Err(errno) => Err(errno),
                }
            }
            LayerForm::Aufs => Metadata::at(directory, AUFS_OPAQUE).map(|found| found.is_some()),
        };
        found.map_err(|errno| failed(errno, "inspect the directory"))
    }
}

/// The buffer for listing a directory, in bytes.
const LISTING: usize = 64 * 1024;

fn opaque_attribute(userxattr: bool) -> &'static CStr {
    if userxattr { c"user.overlay.opaque" } else { c"trusted.overlay.opaque" }
}

fn aufs_whiteout(name: &CStr) -> CString {
    let mut whiteout = WHITEOUT.to_vec();
    whiteout.extend_from_slice(name.to_bytes());
    // No NUL can be in it: it is two strings that have none.
    CString::new(whiteout).unwrap_or_default()
}

/// An empty file, read-only, as aufs makes its marks.
fn make_mark(directory: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o444)).map(drop)
}
