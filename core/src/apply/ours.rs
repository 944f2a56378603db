//! Which files of the target this archive brought.

use std::collections::HashSet;
use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};

/// Which paths of the target this archive brought, directories that lead to them included. A whiteout deletes all
/// but these, wherever in the archive it stands.
///
/// Paths are kept as 64-bit hashes under a random key, 9 to 18 bytes an entry. Two paths of one layer with the same
/// hash (one chance in 3.7 million with 10 million of them) could keep a file that a whiteout should delete. Where
/// the target was empty, only the exceptions are kept, and there are few.
#[derive(Debug)]
pub(super) struct Ours {
    hasher: RandomState,
    /// All in the target is ours but what is in `paths`; else only that is.
    unless: bool,
    paths: HashSet<u64>,
}

/// A path's hash.
pub(super) type Key = u64;

impl Ours {
    /// For a target that was empty, or not.
    pub(super) fn new(was_empty: bool) -> Self {
        Self { hasher: RandomState::new(), unless: was_empty, paths: HashSet::new() }
    }

    /// The key of the root.
    pub(super) const ROOT: Key = 0;

    /// The key of `name` in the directory with the key `directory`.
    pub(super) fn key(&self, directory: Key, name: &CStr) -> Key {
        self.hasher.hash_one((directory, name))
    }

    /// Whether this archive brought the path.
    pub(super) fn has(&self, key: Key) -> bool {
        self.paths.contains(&key) != self.unless
    }

    /// This archive brought the path.
    pub(super) fn add(&mut self, key: Key) {
        if self.unless {
            self.paths.remove(&key);
        } else {
            self.paths.insert(key);
        }
    }

    /// The path was copied from the parent, to have something to work on.
    pub(super) fn add_copied(&mut self, key: Key) {
        if self.unless {
            self.paths.insert(key);
        }
    }

    /// Whether anything at all in the target may have come from elsewhere.
    pub(super) fn has_exceptions(&self) -> bool {
        !self.unless || !self.paths.is_empty()
    }
}
