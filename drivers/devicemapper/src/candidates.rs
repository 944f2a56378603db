//! From inodes that differ to the paths at which two trees may differ.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use layerstack_core::driver::{Candidate, Scope};
use layerstack_core::tree::Tree;
use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use crate::inodes::Changed;

/// The paths at which inodes of `changed` have their names in the layer, and those at which a changed directory has
/// other names than the parent's. Reads the names in directories, until all that have changed are found; to the end in a
/// layer that is `live`, in which files get new names meanwhile.
pub(crate) fn paths(layer: &Tree, parent: &Tree, changed: &Changed, live: bool) -> Result<Vec<Candidate>> {
    let mut search = Search {
        parent,
        changed,
        // Numbers up to 10 are ext4's own: the special inodes of inodes.rst. Its root is outside the tree.
        left: changed.iter().filter(|(number, _)| **number > 10).map(|(_, links)| u64::from(*links)).sum(),
        found: HashMap::new(),
    };
    let root = rustix::fs::fstat(layer.root()).map_err(|errno| failed(errno, "inspect", Path::new("")))?;
    if changed.contains_key(&root.st_ino) {
        search.add(PathBuf::new(), Scope::Entry);
        search.left = search.left.saturating_sub(1);
    }
    let mut open = vec![(PathBuf::new(), root.st_ino)];
    while let Some((path, number)) = open.pop() {
        if search.left == 0 && !live && !changed.contains_key(&number) {
            continue;
        }
        let directory = match layer.open_directory(&path) {
            Ok(directory) => directory,
            // It has gone meanwhile, and its directory has changed with it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        search.directory(&directory, &path, number, &mut open)?;
    }
    let mut found: Vec<_> = search.found.into_iter().map(|(path, scope)| Candidate { path, scope }).collect();
    let components = |candidate: &Candidate| -> Vec<Vec<u8>> {
        candidate.path.components().map(|part| part.as_os_str().as_bytes().to_vec()).collect()
    };
    found.sort_by_cached_key(components);
    Ok(found)
}

struct Search<'a> {
    parent: &'a Tree,
    changed: &'a Changed,
    /// How many names are still to be found.
    left: u64,
    found: HashMap<PathBuf, Scope>,
}

/// A name in a directory.
struct Entry {
    name: CString,
    number: u64,
    is_directory: bool,
}

impl Search<'_> {
    fn directory(
        &mut self,
        directory: &OwnedFd,
        path: &Path,
        number: u64,
        open: &mut Vec<(PathBuf, u64)>,
    ) -> Result<()> {
        let entries = entries(directory.as_fd()).map_err(|errno| failed(errno, "list", path))?;
        if self.changed.contains_key(&number) {
            self.names(&entries, path)?;
        }
        for entry in entries {
            let below = || path.join(OsStr::from_bytes(entry.name.to_bytes()));
            if self.changed.contains_key(&entry.number) {
                self.left = self.left.saturating_sub(1);
                self.add(below(), Scope::Entry);
            }
            if entry.is_directory {
                open.push((below(), entry.number));
            }
        }
        Ok(())
    }

    /// Compares the names in a directory that has changed with those that the parent has at the same path.
    fn names(&mut self, entries: &[Entry], path: &Path) -> Result<()> {
        let mut others: HashMap<CString, (u64, bool)> = match self.parent.open_directory(path) {
            Ok(directory) => self::entries(directory.as_fd())
                .map_err(|errno| failed(errno, "list", path))?
                .into_iter()
                .map(|entry| (entry.name, (entry.number, entry.is_directory)))
                .collect(),
            // All of it is new.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let below = path.join(OsStr::from_bytes(entry.name.to_bytes()));
            match others.remove(&entry.name) {
                Some((number, _)) if number == entry.number => {}
                // Another directory in the place of one: what is in them need not have changed.
                Some((_, true)) if entry.is_directory => self.add(below, Scope::Subtree),
                Some(_) | None => self.add(below, Scope::Entry),
            }
        }
        for name in others.into_keys() {
            self.add(path.join(OsString::from_vec(name.into_bytes())), Scope::Entry);
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, scope: Scope) {
        let noted = self.found.entry(path).or_insert(scope);
        if scope == Scope::Subtree {
            *noted = scope;
        }
    }
}

fn entries(directory: BorrowedFd<'_>) -> Result<Vec<Entry>, Errno> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => kind_of(directory, name)?,
            kind => kind,
        };
        let is_directory = kind == FileType::Directory;
        entries.push(Entry { name: name.to_owned(), number: entry.ino(), is_directory });
    }
    Ok(entries)
}

fn kind_of(directory: BorrowedFd<'_>, name: &CStr) -> Result<FileType, Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode)),
        Err(Errno::NOENT) => Ok(FileType::Unknown),
        Err(errno) => Err(errno),
    }
}

fn failed(errno: Errno, what: &str, path: &Path) -> Error {
    Error::from_errno(errno, what).with_path(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn tree(path: &Path) -> Tree {
        Tree::from_fd(fs::File::open(path).unwrap().into())
    }

    #[test]
    fn changed_inodes_lead_to_paths() {
        let scratch = tempfile::tempdir().unwrap();
        let (layer, parent) = (scratch.path().join("layer"), scratch.path().join("parent"));
        for root in [&layer, &parent] {
            fs::create_dir_all(root.join("a/b")).unwrap();
            fs::create_dir_all(root.join("c/d")).unwrap();
        }
        // The same files in both, as far as their numbers go.
        for name in ["a/b/same", "a/b/edited", "c/kept", "c/d/deep"] {
            fs::write(layer.join(name), "x").unwrap();
            fs::hard_link(layer.join(name), parent.join(name)).unwrap();
        }
        fs::write(parent.join("c/gone"), "x").unwrap();
        fs::write(layer.join("c/new"), "x").unwrap();
        let number = |name: &str| layer.join(name).metadata().unwrap().ino();
        let changed = Changed::from([
            (number("a/b/edited"), 1),
            (number("c"), 1),
            (number("c/new"), 1),
            (3, 0),
            (1 << 40, 0),
        ]);
        let found = paths(&tree(&layer), &tree(&parent), &changed, false).unwrap();
        let shown: Vec<_> =
            found.iter().map(|candidate| (candidate.path.to_str().unwrap(), candidate.scope)).collect();
        assert_eq!(
            shown,
            [
                ("a/b/edited", Scope::Entry),
                ("c", Scope::Entry),
                // Directories have different numbers here, as if one was put in the place of another.
                ("c/d", Scope::Subtree),
                ("c/gone", Scope::Entry),
                ("c/new", Scope::Entry),
            ]
        );
    }

    #[test]
    fn without_changes_nothing_is_looked_at() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("file"), "x").unwrap();
        let tree = tree(scratch.path());
        assert_eq!(paths(&tree, &tree, &Changed::new(), false).unwrap(), []);
    }
}
