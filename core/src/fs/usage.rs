//! What a tree occupies.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::driver::Usage;
use crate::error::{Error, Result};

/// Bytes allocated and inodes in the directory `root`, itself included; a file with several names counts once.
/// Blocks that a file shares with others (reflinks) count as its own. `shown` is the path of `root` for messages.
///
/// Works on directory descriptors and follows no symbolic link. The tree may change meanwhile: what vanishes is not
/// counted. Holds one descriptor at a time, so any depth will do.
///
/// # Errors
/// What the kernel gives; `EAGAIN` where the directory that the walk is in was moved.
pub fn tree_usage(root: impl AsFd, shown: &Path) -> Result<Usage> {
    walk(&root).map_err(|errno| Error::from_errno(errno, "measure the tree").with_path(shown))
}

fn walk(root: &impl AsFd) -> Result<Usage, Errno> {
    let mut sum = Sum::default();
    let mut current = open(root, c".")?;
    sum.add(&rustix::fs::fstat(&current)?);
    let mut pending = sum.read(&current)?;
    // For each directory above: its identity and its subdirectories not yet visited.
    let mut above: Vec<((u64, u64), Vec<CString>)> = Vec::new();
    loop {
        if let Some(child) = pending.pop() {
            let next = match open(&current, &child) {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(errno),
            };
            above.push((identity(&current)?, std::mem::take(&mut pending)));
            current = next;
            pending = sum.read(&current)?;
        } else {
            let Some((expected, rest)) = above.pop() else { break };
            current = open(&current, c"..")?;
            if identity(&current)? != expected {
                return Err(Errno::AGAIN);
            }
            pending = rest;
        }
    }
    Ok(Usage::new(sum.bytes, sum.inodes))
}

fn open(at: &impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn identity(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    rustix::fs::fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))
}

#[derive(Debug, Default)]
struct Sum {
    bytes: u64,
    inodes: u64,
    /// Files that have other names too.
    linked: HashSet<(u64, u64)>,
}

impl Sum {
    fn add(&mut self, stat: &Stat) {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_nlink > 1 && !directory && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        self.inodes += 1;
        // st_blocks is in units of 512 bytes, whatever the file system's blocks are: inode(7).
        self.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    }

    /// Adds what is in a directory; returns the names of its subdirectories.
    fn read(&mut self, directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
        let mut subdirectories = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    self.add(&stat);
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                        subdirectories.push(name.to_owned());
                    }
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(subdirectories)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_holes_count_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        std::fs::create_dir_all(root.join("a/b/c")).unwrap();
        std::fs::write(root.join("a/file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(root.join("a/file"), root.join("a/b/c/again")).unwrap();
        std::fs::File::create(root.join("hole")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/", root.join("a/link")).unwrap();
        let usage = tree_usage(std::fs::File::open(root).unwrap(), root).unwrap();
        assert_eq!(usage.inodes, Some(7));
        assert!((100_000..1_000_000).contains(&usage.bytes), "{usage:?}");
    }
}
