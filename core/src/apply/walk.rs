//! Finding the directory that an entry goes to.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::ours::{Key, Ours};
use super::{Applier, failed, metadata, name};
use crate::archive::{Entry, EntryKind, Timestamp};
use crate::driver::LayerForm;
use crate::error::{Error, ErrorKind, Result};
use crate::tree::{self, FileKind, Metadata};

/// This many directories from the root on are kept open, and the last one; those between are opened again when
/// they are needed. So any depth will do, and few descriptors.
const KEPT_OPEN: usize = 32;

/// As many symbolic links as the kernel follows in one path (`MAXSYMLINKS`, path_resolution(7)).
const MOST_LINKS: usize = 40;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory of the target that was reached; the first level is the root.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) name: CString,
    pub(super) key: Key,
    /// Known to be among [`Ours`].
    ours: bool,
    /// Hides what lower layers have in it.
    pub(super) opaque: bool,
    open: Option<Directory>,
}

/// An open directory, and what the kernel will make of files created in it.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    /// The group that new files get, where the directory is setgid.
    pub(super) group: Option<u32>,
    /// New files get an access list.
    pub(super) default_acl: bool,
    /// What the mtime is to be.
    pub(super) mtime: Timestamp,
    /// The mtime has to be set: something in the directory was changed.
    pub(super) touched: bool,
}

/// What to do where a directory on the way is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it, as the parent has it, or else 0755 root:root of 1970.
    Create,
    /// Make it if the parent has it, else give up.
    Stop,
}

enum Step {
    Down,
    Link(Vec<u8>),
    Nowhere,
}

impl Applier<'_> {
    /// Makes the root the first level.
    pub(super) fn start(&mut self, root: OwnedFd) -> Result<()> {
        let open = self.inspect(root, None)?;
        self.levels.push(Level {
            name: CString::default(),
            key: Ours::ROOT,
            ours: true,
            opaque: false,
            open: Some(open),
        });
        Ok(())
    }

    /// Goes to a directory, whose level is returned; None where it is not there and `missing` says to stop.
    ///
    /// Symbolic links on the way are followed as the kernel would if the layer's tree, the parent's part of it
    /// included, were the root: an absolute target starts at the layer's root, and `..` does not lead above it. They
    /// are read and followed here, step by step, from one descriptor to the next without ever following a link, so
    /// nothing leads out of the layer, whatever happens to its tree meanwhile.
    pub(super) fn enter(&mut self, path: &[u8], missing: Missing) -> Result<Option<usize>> {
        // Most entries are in the directory of the one before.
        if let Some(level) = self.recent
            && self.recent_path == path
        {
            return Ok(Some(level));
        }
        let mut level = 0;
        let mut links = 0;
        let mut rest = path.to_vec();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let component = &rest[..end];
            let after = (end + 1).min(rest.len());
            match component {
                b"" | b"." => {}
                // Only a symbolic link's target can have it.
                b".." => level = usize::saturating_sub(level, 1),
                _ if self.levels.get(level + 1).is_some_and(|next| next.name.to_bytes() == component) => {
                    level += 1;
                }
                _ => match self.step(level, &name::component(component)?, missing)? {
                    Step::Down => level += 1,
                    Step::Nowhere => return Ok(None),
                    Step::Link(mut target) => {
                        links += 1;
                        if links > MOST_LINKS {
                            return Err(Error::new(
                                ErrorKind::InvalidInput,
                                "too many symbolic links on the way",
                            ));
                        }
                        if target.starts_with(b"/") {
                            level = 0;
                        }
                        target.push(b'/');
                        target.extend_from_slice(&rest[after..]);
                        rest = target;
                        continue;
                    }
                },
            }
            rest.drain(..after);
        }
        self.recent = Some(level);
        self.recent_path.clear();
        self.recent_path.extend_from_slice(path);
        Ok(Some(level))
    }

    fn step(&mut self, level: usize, name: &CStr, missing: Missing) -> Result<Step> {
        let in_target = match self.descend(level, name, false)? {
            Ok(()) => return Ok(Step::Down),
            Err(Errno::NOENT) => None,
            Err(Errno::NOTDIR | Errno::LOOP) => self.in_target(level, name)?,
            Err(errno) => return Err(failed(errno, "open a directory on the way")),
        };
        let in_lower = match in_target {
            Some(found) if found.kind == FileKind::Symlink => {
                let target = tree::link_target(&self.directory(level)?.fd, name);
                return Ok(Step::Link(target.map_err(|errno| failed(errno, "read a link on the way"))?));
            }
            Some(found) if !self.is_whiteout(&found) => return under_a_file(missing),
            Some(_) => None,
            None if self.has_aufs_whiteout(level, name)? => None,
            None => self.in_lower(level, name)?,
        };
        match in_lower.map(|found| found.kind) {
            Some(FileKind::Directory) => {
                self.copy_up(level, name)?;
                Ok(Step::Down)
            }
            Some(FileKind::Symlink) => {
                let Some(directory) = self.lower(level)? else { return Ok(Step::Nowhere) };
                let target = tree::link_target(directory, name);
                Ok(Step::Link(target.map_err(|errno| failed(errno, "read a link on the way"))?))
            }
            Some(_) => under_a_file(missing),
            None if missing == Missing::Stop => Ok(Step::Nowhere),
            None => {
                self.place_directory(level, name, &Entry::new("", EntryKind::Directory, 0o755))?;
                Ok(Step::Down)
            }
        }
    }

    /// Opens `name` in the directory at `level` as the next level; the errno where that is not possible.
    /// `fresh`: this process has just made it.
    pub(super) fn descend(&mut self, level: usize, name: &CStr, fresh: bool) -> Result<Result<(), Errno>> {
        self.leave(level + 1)?;
        let fd = match rustix::fs::openat(&self.directory(level)?.fd, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => fd,
            Err(errno) => return Ok(Err(errno)),
        };
        let inherited = fresh.then_some(self.directory(level)?.default_acl);
        let opaque = !fresh && self.is_opaque(&fd)?;
        let open = self.inspect(fd, inherited)?;
        let key = self.ours.key(self.levels[level].key, name);
        if level > KEPT_OPEN {
            self.close(level)?;
        }
        self.levels.push(Level { name: name.to_owned(), key, ours: false, opaque, open: Some(open) });
        Ok(Ok(()))
    }

    /// `default_acl` where it is known.
    fn inspect(&self, fd: OwnedFd, default_acl: Option<bool>) -> Result<Directory> {
        let found = Metadata::of(&fd).map_err(|errno| failed(errno, "inspect the directory"))?;
        let default_acl = match default_acl {
            Some(known) => known,
            None => metadata::has_default_acl(&fd).map_err(|errno| failed(errno, "inspect the directory"))?,
        };
        let group = (found.mode & libc::S_ISGID != 0).then_some(found.gid);
        Ok(Directory { fd, group, default_acl, mtime: found.mtime, touched: false })
    }

    /// The open directory at `level`.
    pub(super) fn directory(&mut self, level: usize) -> Result<&mut Directory> {
        let gone = || Error::new(ErrorKind::Other, "the directory is not open any more");
        if self.levels.get(level).is_some_and(|level| level.open.is_none()) {
            self.reopen(level)?;
        }
        self.levels.get_mut(level).and_then(|level| level.open.as_mut()).ok_or_else(gone)
    }

    /// Opens the levels up to `level` again, one after the other.
    fn reopen(&mut self, level: usize) -> Result<()> {
        self.leave(level + 1)?;
        for at in KEPT_OPEN..=level {
            if self.levels[at].open.is_some() {
                continue;
            }
            let Some(above) = &self.levels[at - 1].open else { break };
            let fd = rustix::fs::openat(&above.fd, &self.levels[at].name, DIRECTORY, Mode::empty())
                .map_err(|errno| failed(errno, "open a directory on the way"))?;
            self.levels[at].open = Some(self.inspect(fd, None)?);
            if at - 1 > KEPT_OPEN {
                self.close(at - 1)?;
            }
        }
        Ok(())
    }

    /// Leaves all levels from `level` on, whose names may stand for something else from now on.
    pub(super) fn leave(&mut self, level: usize) -> Result<()> {
        if self.recent.is_some_and(|recent| recent >= level) {
            self.recent = None;
        }
        self.truncate(level)
    }

    fn truncate(&mut self, level: usize) -> Result<()> {
        while self.levels.len() > level {
            self.close(self.levels.len() - 1)?;
            self.levels.pop();
        }
        Ok(())
    }

    /// Closes the directory at `level`, after setting its mtime.
    fn close(&mut self, level: usize) -> Result<()> {
        match self.levels[level].open.take() {
            Some(directory) if directory.touched => metadata::set_mtime(&directory.fd, directory.mtime)
                .map_err(|errno| failed(errno, "set the time of a directory")),
            _ => Ok(()),
        }
    }

    /// Notes that this archive brought `name` in the directory at `level`, and the way there.
    pub(super) fn add_ours(&mut self, level: usize, name: &CStr) {
        let key = self.ours.key(self.levels[level].key, name);
        self.ours.add(key);
        for level in self.levels[1..=level].iter_mut().rev() {
            if std::mem::replace(&mut level.ours, true) {
                break;
            }
            self.ours.add(level.key);
        }
    }

    /// The path of `name` in the directory at `level`, from the root.
    pub(super) fn real_path(&self, level: usize, name: &CStr) -> Vec<u8> {
        let mut path = Vec::new();
        for level in &self.levels[1..=level] {
            path.extend_from_slice(level.name.to_bytes());
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        path
    }

    /// What `name` is in the target.
    pub(super) fn in_target(&mut self, level: usize, name: &CStr) -> Result<Option<Metadata>> {
        Metadata::at(&self.directory(level)?.fd, name).map_err(|errno| failed(errno, "inspect"))
    }

    /// What `name` is in the parent's tree, where the directory at `level` shows it.
    pub(super) fn in_lower(&mut self, level: usize, name: &CStr) -> Result<Option<Metadata>> {
        match self.lower(level)? {
            Some(directory) => {
                Metadata::at(directory, name).map_err(|errno| failed(errno, "inspect in the parent layer"))
            }
            None => Ok(None),
        }
    }

    /// The directory of the parent's tree that shows through the one at `level`; None where the target holds all.
    pub(super) fn lower(&mut self, level: usize) -> Result<Option<&OwnedFd>> {
        if self.form == LayerForm::Whole || self.levels[1..=level].iter().any(|level| level.opaque) {
            return Ok(None);
        }
        let key = self.levels[level].key;
        if self.recent_lower.as_ref().is_none_or(|(recent, _)| *recent != key) {
            self.recent_lower = None;
            let tree = match &self.parent_tree {
                Some(tree) => tree,
                None => self.parent_tree.insert((self.parent)()?),
            };
            let Some(tree) = tree else { return Ok(None) };
            let mut directory = None;
            // The root too is opened anew, for a position of our own in it.
            let names = std::iter::once(c".").chain(self.levels[1..=level].iter().map(|level| &*level.name));
            for name in names {
                let at = directory.as_ref().map_or_else(|| tree.root(), OwnedFd::as_fd);
                match rustix::fs::openat(at, name, DIRECTORY, Mode::empty()) {
                    Ok(next) => directory = Some(next),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                    Err(errno) => return Err(failed(errno, "look into the parent layer")),
                }
            }
            self.recent_lower = directory.map(|directory| (key, directory));
        }
        Ok(self.recent_lower.as_ref().map(|(_, directory)| directory))
    }
}

fn under_a_file(missing: Missing) -> Result<Step> {
    match missing {
        Missing::Create => {
            Err(Error::new(ErrorKind::InvalidInput, "it lies under something that is no directory"))
        }
        Missing::Stop => Ok(Step::Nowhere),
    }
}
