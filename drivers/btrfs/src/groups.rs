//! Quota groups of subvolumes that are deleted, which are to go as well.
//!
//! What is asked of the kernel depends on which one it is, and nothing tells but trying:
//! * Some remove any group when asked. It goes just before its subvolume.
//! * Some keep a group as long as it counts anything, which is until the last block of the subvolume is gone, seconds
//!   after the deletion (Linux 6.8, and versions of older ones that are still cared for). They have to be asked again.
//! * Some then remove it themselves (Linux 6.11). Once that was seen nothing is done any more.
//!
//! Who deletes a subvolume may be gone by then, so a group that was kept is noted: as an empty extended attribute
//! `trusted.layerstack.group.<number>` of `<home>/quotas`, set before the subvolume is deleted, and removed when the group
//! is found to be gone. Neither is flushed: the file system writes them down in their order, so that a deletion that
//! outlives a power loss has its note. Whoever opens the home later, or removes another layer, tries again. No number is
//! given twice, so a note can never mean another subvolume.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use layerstack_core::{Error, Result};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::{quota, release, sys};

/// What the names of notes begin with.
const NOTE: &str = "trusted.layerstack.group.";

/// As long as the list of a directory's attributes can be (`XATTR_LIST_MAX`, xattr(7)).
const LIST: usize = 64 << 10;

/// What was noted in a home.
#[derive(Debug)]
pub(crate) struct Groups {
    directory: OwnedFd,
    noted: Mutex<VecDeque<Noted>>,
    /// Whether the kernel removes them all itself: what became of the first tells.
    by_itself: OnceLock<bool>,
}

/// The group of a subvolume that is deleted, or about to be.
#[derive(Debug, Clone, Copy)]
struct Noted {
    number: u64,
    /// Whether the subvolume was deleted by this process, and so under this kernel.
    ours: bool,
}

/// What became of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It counts something, or is kept for another reason.
    Stays,
    /// It was removed when asked for.
    Removed,
    /// It was gone.
    Gone,
}

impl Groups {
    /// Of those noted before, so many are tried when another is.
    const AGAIN: usize = 4;
    /// So many that stay are met before the rest is left for another time.
    const PATIENCE: usize = 4;
    /// So many have notes; a list that is too long could not be read. The others go with this process alone.
    const MOST: usize = 1000;

    /// Reads the notes, of the directory that has them.
    pub(crate) fn open(directory: OwnedFd) -> Result<Self> {
        let mut names = vec![0; LIST];
        let length = match rustix::fs::flistxattr(&directory, &mut names[..]) {
            // Somebody has put so many there that the kernel does not list them.
            Err(Errno::TOOBIG) => 0,
            length => length.map_err(|errno| Error::from_errno(errno, "list the notes of quota groups"))?,
        };
        let names = names.get(..length).unwrap_or_default().split(|&byte| byte == 0);
        let numbers = names.filter_map(|name| str::from_utf8(name).ok()?.strip_prefix(NOTE)?.parse().ok());
        let mut noted: VecDeque<_> = numbers.map(|number| Noted { number, ours: false }).collect();
        // Not the same first each time, however long some may stay.
        let first = std::process::id() as usize % noted.len().max(1);
        noted.rotate_left(first);
        Ok(Self { directory, noted: Mutex::new(noted), by_itself: OnceLock::new() })
    }

    /// Removes the group of a subvolume that is about to be deleted, or notes that it is to go. Whether it is noted.
    ///
    /// Not afterwards: between the subvolume's end and the next commit the group counts what is gone, and Linux 6.11 and
    /// later take its removal then for damage, and enforce no limit any more (`btrfs_remove_qgroup` of
    /// `fs/btrfs/qgroup.c`).
    pub(crate) fn release(&self, file_system: impl AsFd, number: u64) -> Result<bool> {
        if self.by_itself.get() == Some(&true) {
            return Ok(false);
        }
        match sys::remove_group(file_system, number) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTCONN) => Ok(false),
            Err(Errno::BUSY) => {
                if let Err(error) = self.note(number) {
                    // On a full file system, for one, where the layer is removed to have its room.
                    tracing::warn!(number, ?error, "a deleted layer's quota group may be left");
                }
                Ok(true)
            }
            Err(errno) => Err(Error::from_errno(errno, "remove the layer's quota group")),
        }
    }

    /// Takes it that a subvolume whose group is noted was deleted, and tries some that were noted before.
    pub(crate) fn deleted(&self, file_system: impl AsFd, number: u64) {
        self.retry(file_system, Self::AGAIN, 1);
        self.noted().push_back(Noted { number, ours: true });
    }

    /// Tries all once more, as far as they do not stay.
    pub(crate) fn settle(&self, file_system: impl AsFd) {
        let all = self.noted().len();
        self.retry(file_system, all, Self::PATIENCE);
    }

    /// Tries at most so many, the longest noted first, until `patience` of them stayed, which are last from now on. The
    /// kernel takes subvolumes away in the order in which they were deleted, so after one that stays others will.
    fn retry(&self, file_system: impl AsFd, most: usize, patience: usize) {
        let mut stayed = 0;
        for _ in 0..most {
            if stayed == patience {
                break;
            }
            let Some(noted) = self.noted().pop_front() else { break };
            match self.try_remove(&file_system, noted) {
                Ok(Fate::Removed | Fate::Gone) => continue,
                Ok(Fate::Stays) => {}
                // The layer is removed whatever becomes of its group.
                Err(error) => {
                    tracing::warn!(?noted, ?error, "the quota group of a deleted layer is left for now");
                }
            }
            self.noted().push_back(noted);
            stayed += 1;
        }
    }

    /// Removes a group that counts nothing any more, and its note.
    fn try_remove(&self, file_system: impl AsFd, noted: Noted) -> Result<Fate> {
        let fate = Self::ask(&file_system, noted.number)?;
        if fate == Fate::Stays {
            return Ok(fate);
        }
        let was_noted = self.take_note_away(noted.number)?;
        // Another process of ours would have taken the note as well. Groups of the simple kind a kernel may leave to others:
        // it asks once, whatever they still count (`btrfs_qgroup_cleanup_dropped_subvolume` of `fs/btrfs/qgroup.c`).
        if fate == Fate::Removed {
            let _ = self.by_itself.set(false);
        } else if noted.ours && was_noted && quota::mode(&file_system)? == quota::Mode::Full {
            let _ = self.by_itself.set(true);
        }
        Ok(fate)
    }

    /// Asks for the removal of a group that counts nothing any more.
    fn ask(file_system: impl AsFd, number: u64) -> Result<Fate> {
        // In this order: what is gone is counted until the next commit, and never again after it.
        let counts = |count: quota::Count| count.referenced > 0 || count.exclusive > 0;
        if release::is_there(&file_system, number)? || quota::count(&file_system, number)?.is_some_and(counts)
        {
            return Ok(Fate::Stays);
        }
        match sys::remove_group(&file_system, number) {
            Ok(()) => Ok(Fate::Removed),
            // Nothing is counted any more: no group is left.
            Err(Errno::NOENT | Errno::NOTCONN) => Ok(Fate::Gone),
            Err(Errno::BUSY) => Ok(Fate::Stays),
            Err(errno) => Err(Error::from_errno(errno, "remove the layer's quota group")),
        }
    }

    fn note(&self, number: u64) -> Result<()> {
        if self.noted().len() >= Self::MOST {
            return Ok(());
        }
        rustix::fs::fsetxattr(&self.directory, name(number), &[], XattrFlags::empty())
            .map_err(|errno| Error::from_errno(errno, "note the layer's quota group"))
    }

    /// Whether there was one.
    fn take_note_away(&self, number: u64) -> Result<bool> {
        match rustix::fs::fremovexattr(&self.directory, name(number)) {
            Ok(()) => Ok(true),
            // Another process took it, or there was no room for it.
            Err(Errno::NODATA) => Ok(false),
            Err(errno) => Err(Error::from_errno(errno, "forget the layer's quota group")),
        }
    }

    fn noted(&self) -> MutexGuard<'_, VecDeque<Noted>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(number: u64) -> String {
    format!("{NOTE}{number}")
}
