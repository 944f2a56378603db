//! From the number of an inode to its paths, by the references that the tree of its subvolume holds.
//!
//! The kernel has ioctls for that too (`BTRFS_IOC_INO_LOOKUP`, `BTRFS_IOC_INO_PATHS`), but they give no path longer than
//! 4 KiB, and of a file with many names not all.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layerstack_core::{Error, ErrorKind, Result};

use crate::subvolume::ROOT_INODE;
use crate::sys::{self, Key};

/// `BTRFS_INODE_REF_KEY`: from an inode (the object) in a directory (the offset), all names.
const REFERENCE: u32 = 12;
/// `BTRFS_INODE_EXTREF_KEY`: the same where they are too many for one item.
const MORE_REFERENCES: u32 = 13;

/// The paths in one subvolume, which must not change meanwhile.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    file_system: BorrowedFd<'a>,
    tree: u64,
    /// Those of directories that were asked for. None where there is no such directory.
    directories: HashMap<u64, Option<PathBuf>>,
}

impl<'a> Names<'a> {
    /// Of the subvolume with this number.
    pub(crate) fn new(file_system: BorrowedFd<'a>, tree: u64) -> Self {
        Self { file_system, tree, directories: HashMap::from([(ROOT_INODE, Some(PathBuf::new()))]) }
    }

    /// All paths of an inode, relative to the subvolume's root, in any order; none where it is absent.
    pub(crate) fn of(&mut self, inode: u64) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for (directory, name) in self.references(inode)? {
            if let Some(above) = self.directory(directory)? {
                paths.push(above.join(OsStr::from_bytes(&name)));
            }
        }
        Ok(paths)
    }

    /// The path of a directory; None where it is absent.
    pub(crate) fn directory(&mut self, inode: u64) -> Result<Option<PathBuf>> {
        // From the directory up to one whose path is known.
        let mut unknown: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut next = inode;
        let mut path = loop {
            if let Some(known) = self.directories.get(&next) {
                break known.clone();
            }
            // A directory has one name.
            let Some((above, name)) = self.references(next)?.pop() else { break None };
            if unknown.iter().any(|(seen, _)| *seen == next) {
                return Err(Error::new(ErrorKind::Corrupt, format!("directory {next} is in itself")));
            }
            unknown.push((next, name));
            next = above;
        };
        for (directory, name) in unknown.into_iter().rev() {
            path = path.map(|above| above.join(OsStr::from_bytes(&name)));
            self.directories.insert(directory, path.clone());
        }
        Ok(path)
    }

    /// In which directories an inode has which names.
    fn references(&self, inode: u64) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut found = Vec::new();
        for (kind, parse) in [(REFERENCE, references as Parse), (MORE_REFERENCES, more_references)] {
            let key = Key { tree: self.tree, object: inode, kind, offsets: (0, u64::MAX) };
            let mut whole = true;
            sys::search(self.file_system, key, |item| match parse(item.offset, item.data) {
                Some(names) => found.extend(names),
                None => whole = false,
            })
            .map_err(|errno| Error::from_errno(errno, format!("find the names of inode {inode}")))?;
            if !whole {
                let message = format!("the names of inode {inode} cannot be read");
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
        }
        Ok(found)
    }
}

type Parse = fn(u64, &[u8]) -> Option<Vec<(u64, Vec<u8>)>>;

/// `struct btrfs_inode_ref`, one after the other: 64 bits of index, 16 of length, the name.
fn references(directory: u64, mut data: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let mut names = Vec::new();
    while !data.is_empty() {
        let (name, rest) = name(data.get(8..)?)?;
        names.push((directory, name));
        data = rest;
    }
    Some(names)
}

/// `struct btrfs_inode_extref`, one after the other: the directory, 64 bits of index, 16 of length, the name.
fn more_references(_hash: u64, mut data: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let mut names = Vec::new();
    while !data.is_empty() {
        let directory = u64::from_le_bytes(*data.first_chunk()?);
        let (name, rest) = name(data.get(16..)?)?;
        names.push((directory, name));
        data = rest;
    }
    Some(names)
}

/// A length in 16 bits, and as many bytes; and what follows.
pub(crate) fn name(data: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (length, rest) = data.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    Some((name.to_vec(), rest))
}

/// The directory that a path is in, and its last component. None for the root.
pub(crate) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_broken_ones_refused() {
        let mut data = Vec::new();
        for name in [b"a".as_slice(), b"\xffbc"] {
            data.extend(5_u64.to_le_bytes());
            data.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            data.extend(name);
        }
        assert_eq!(references(300, &data), Some(vec![(300, b"a".to_vec()), (300, b"\xffbc".to_vec())]));
        for cut in [1, 9, 10, 12, data.len() - 1] {
            assert_eq!(references(300, &data[..cut]), None, "{cut}");
        }
        let mut data = 400_u64.to_le_bytes().to_vec();
        data.extend(5_u64.to_le_bytes());
        data.extend(2_u16.to_le_bytes());
        data.extend(b"xy");
        assert_eq!(more_references(1, &data), Some(vec![(400, b"xy".to_vec())]));
        assert_eq!(more_references(1, &data[..19]), None);
    }
}
