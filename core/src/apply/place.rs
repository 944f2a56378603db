//! Putting one entry into its directory.

use std::ffi::{CStr, OsStr};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::content::{self, Filling};
use super::name::{self, Name};
use super::walk::Missing;
use super::{Applier, failed, metadata};
use crate::archive::{Entry, EntryKind, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::tree::{self, FileKind, Metadata};

/// Where a regular file's content comes from.
enum Source<'s, 'a, R> {
    Archive(&'s mut Reader<'a, R>),
    Lower(OwnedFd),
}

/// Nothing is read through it; it only names a type where a file is copied.
type NoReader = std::io::Empty;

impl Applier<'_> {
    /// Unpacks one entry.
    pub(super) fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<'_, R>) -> Result<()> {
        let (directory, name) = match name::parse(&entry.path)? {
            Name::Root if entry.kind == EntryKind::Directory => {
                metadata::check(entry)?;
                return self.finish_directory(0, entry, false);
            }
            Name::Root => return Err(invalid("the root of a layer can only be a directory")),
            Name::Ignored => return Ok(()),
            Name::Whiteout(directory, name) => return self.whiteout(directory, &name),
            Name::Opaque(directory) => return self.opaque(directory),
            Name::In(directory, name) => (directory, name),
        };
        metadata::check(entry)?;
        if let EntryKind::Hardlink { target } = &entry.kind {
            return self.hardlink(target, directory, &name);
        }
        let Some(level) = self.enter(directory, Missing::Create)? else {
            return Err(invalid("the directory it is in is missing"));
        };
        match entry.kind {
            EntryKind::Directory => self.place_directory(level, &name, entry)?,
            EntryKind::File { .. } => self.place_file(level, &name, entry, Source::Archive(reader))?,
            _ => self.place_special(level, &name, entry)?,
        }
        self.add_ours(level, &name);
        Ok(())
    }

    /// Makes `name` in the directory at `level` the directory `entry`, and the next level. A directory that is
    /// there already keeps what is in it.
    pub(super) fn place_directory(&mut self, level: usize, name: &CStr, entry: &Entry) -> Result<()> {
        let mut replaced = self.uncover(level, name)?;
        let mut fresh = true;
        let mode = metadata::creation_mode(entry);
        let made = rustix::fs::mkdirat(&self.directory(level)?.fd, name, mode);
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) => match self.in_target(level, name)? {
                Some(found) if found.kind == FileKind::Directory => fresh = false,
                _ => {
                    self.clear(level, name)?;
                    replaced = true;
                    rustix::fs::mkdirat(&self.directory(level)?.fd, name, mode)
                        .map_err(|errno| failed(errno, "make the directory"))?;
                }
            },
            Err(errno) => return Err(failed(errno, "make the directory")),
        }
        self.directory(level)?.touched = true;
        if fresh || self.levels.get(level + 1).is_none_or(|next| *next.name != *name) {
            self.descend(level, name, fresh)?.map_err(|errno| failed(errno, "open the directory"))?;
        }
        if replaced && self.in_lower(level, name)?.is_some_and(|lower| lower.kind == FileKind::Directory) {
            // What was there hid the parent's directory, and so must the new one.
            self.make_opaque(level + 1)?;
        }
        self.finish_directory(level + 1, entry, fresh)
    }

    fn place_file<R: Read>(
        &mut self,
        level: usize,
        name: &CStr,
        entry: &Entry,
        source: Source<'_, '_, R>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = metadata::creation_mode(entry);
        let file = self.create(level, name, |directory| rustix::fs::openat(directory, name, flags, mode))?;
        let size = entry.content_size();
        let written = |errno| failed(errno, "write the content");
        match source {
            Source::Archive(reader) => {
                if self.observed && size > 0 && !reader.is_sparse() {
                    reader.found_in_layer(&self.real_path(level, name))?;
                }
                let mut filling = Filling::new(&file);
                while let Some((offset, data)) = reader.next_data()? {
                    filling.put(offset, data).map_err(written)?;
                    self.applied.bytes += data.len() as u64;
                }
                filling.finish(size).map_err(written)?;
            }
            Source::Lower(source) => content::copy(source, &file, size).map_err(written)?,
        }
        let identity = self.identity;
        identity.finish_file(&file, entry, self.directory(level)?)
    }

    fn place_special(&mut self, level: usize, name: &CStr, entry: &Entry) -> Result<()> {
        let mode = metadata::creation_mode(entry);
        let identity = self.identity;
        let (kind, device) = match &entry.kind {
            EntryKind::Symlink { target } => {
                if target.is_empty() || target.contains(&0) {
                    return Err(invalid("the link's target is empty or has a NUL"));
                }
                self.create(level, name, |directory| rustix::fs::symlinkat(&target[..], directory, name))?;
                return identity.finish_name(name, entry, self.directory(level)?);
            }
            EntryKind::CharDevice { major, minor } => {
                (FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))
            }
            EntryKind::BlockDevice { major, minor } => {
                (FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
            }
            _ => (FileType::Fifo, 0),
        };
        self.create(level, name, |directory| rustix::fs::mknodat(directory, name, kind, mode, device))?;
        identity.finish_name(name, entry, self.directory(level)?)
    }

    /// Links `name` to what has the name `target`, which is not followed. The inode's metadata are those of the
    /// entry that made it.
    fn hardlink(&mut self, target: &[u8], directory: &[u8], name: &CStr) -> Result<()> {
        let missing = || invalid("what it is a link to is missing");
        let Name::In(target_directory, target_name) = name::parse(target)? else {
            return Err(invalid("it is a link to what is no file"));
        };
        let from = self.enter(target_directory, Missing::Stop)?.ok_or_else(missing)?;
        let found = match self.in_target(from, &target_name)? {
            Some(found) if !self.is_whiteout(&found) => found,
            Some(_) => return Err(missing()),
            None if self.has_aufs_whiteout(from, &target_name)? => return Err(missing()),
            None => {
                let found = self.in_lower(from, &target_name)?.ok_or_else(missing)?;
                if found.kind != FileKind::Directory {
                    self.copy_up(from, &target_name)?;
                }
                found
            }
        };
        if found.kind == FileKind::Directory {
            return Err(invalid("it is a link to a directory"));
        }
        let source = rustix::io::fcntl_dupfd_cloexec(&self.directory(from)?.fd, 0)
            .map_err(|errno| failed(errno, "open the directory of the link's target"))?;
        let level = self.enter(directory, Missing::Create)?.ok_or_else(missing)?;
        let there = Metadata::at(&source, &target_name).map_err(|errno| failed(errno, "inspect"))?;
        let here = self.in_target(level, name)?;
        // A second link of the same name to the same file, or one to itself.
        let linked = there.zip(here).is_some_and(|(there, here)| there.identity == here.identity);
        if !linked {
            self.create(level, name, |directory| {
                rustix::fs::linkat(&source, &target_name, directory, name, AtFlags::empty())
            })?;
        }
        self.add_ours(level, name);
        Ok(())
    }

    /// Copies `name`, a directory (without what is in it) or any other file, from the parent into the target. A
    /// directory becomes the next level.
    pub(super) fn copy_up(&mut self, level: usize, name: &CStr) -> Result<()> {
        let fail = |errno| failed(errno, "copy it from the parent layer");
        let Some(lower) = self.lower(level)? else { return Err(fail(Errno::NOENT)) };
        let found = Metadata::at(lower, name).map_err(fail)?.ok_or_else(|| fail(Errno::NOENT))?;
        let kind = match found.kind {
            FileKind::File => EntryKind::File { size: found.size },
            FileKind::Directory => EntryKind::Directory,
            FileKind::Symlink => EntryKind::Symlink { target: tree::link_target(lower, name).map_err(fail)? },
            FileKind::Fifo => EntryKind::Fifo,
            FileKind::CharDevice => EntryKind::CharDevice { major: found.rdev.0, minor: found.rdev.1 },
            FileKind::BlockDevice => EntryKind::BlockDevice { major: found.rdev.0, minor: found.rdev.1 },
            FileKind::Socket => return Err(invalid("it is a link to a socket of the parent layer")),
        };
        let mut entry = Entry::new("", kind, found.mode);
        (entry.uid, entry.gid, entry.mtime) = (found.uid, found.gid, found.mtime);
        entry.xattrs = tree::attributes(lower, name).map_err(fail)?;
        match entry.kind {
            EntryKind::Directory => self.place_directory(level, name, &entry)?,
            EntryKind::File { .. } => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let source = rustix::fs::openat(lower, name, flags, Mode::empty()).map_err(fail)?;
                self.place_file::<NoReader>(level, name, &entry, Source::Lower(source))?;
            }
            _ => self.place_special(level, name, &entry)?,
        }
        let key = self.ours.key(self.levels[level].key, name);
        self.ours.add_copied(key);
        Ok(())
    }

    /// Creates `name` with `call`; what is there already is removed.
    fn create<T>(
        &mut self,
        level: usize,
        name: &CStr,
        call: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T> {
        self.uncover(level, name)?;
        let directory = self.directory(level)?;
        directory.touched = true;
        match call(&directory.fd) {
            Err(Errno::EXIST) => {
                self.clear(level, name)?;
                call(&self.directory(level)?.fd)
            }
            result => result,
        }
        .map_err(|errno| failed(errno, "create"))
    }

    /// Removes whatever `name` in the directory at `level` is in the target.
    pub(super) fn clear(&mut self, level: usize, name: &CStr) -> Result<()> {
        let key = self.ours.key(self.levels[level].key, name);
        if self.ours.has(key) && self.in_target(level, name)?.is_some_and(|found| !self.is_whiteout(&found)) {
            self.applied.overwritten = true;
        }
        // Whatever was reached by way of it has to be looked for again.
        self.leave(level + 1)?;
        self.recent = None;
        let shown = self.real_path(level, c"");
        let directory = self.directory(level)?;
        directory.touched = true;
        crate::fs::remove_tree(
            &directory.fd,
            OsStr::from_bytes(name.to_bytes()),
            Path::new(OsStr::from_bytes(&shown)),
        )
    }
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, what)
}
