//! A tree as the kernel shows it: the suite's own view, which shares no code with what it judges.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::case::{Stop, Verdict};

/// Everything that a layer must keep of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is, and what only files of that kind have.
    pub kind: Kind,
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// The modification time: seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path, in order, of the same inode, where that is not this one.
    pub same_as: Option<PathBuf>,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file: length and a hash of the content.
    File {
        /// In bytes.
        size: u64,
        /// Of the content.
        hash: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Symlink(Vec<u8>),
    /// A device, a pipe or a socket: its type bits and its device number.
    Special(u32, u64),
}

/// A tree: every path below the root (itself the empty path) with what is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// By path, relative to the root.
    pub nodes: BTreeMap<PathBuf, Node>,
}

impl Snapshot {
    /// Reads the tree at `root`.
    ///
    /// # Errors
    /// Where anything of it cannot be read.
    pub fn read(root: &Path) -> Verdict<Self> {
        let directory = rustix::fs::open(root, DIRECTORY, Mode::empty())
            .map_err(|errno| Stop::failed(format_args!("open {}: {errno}", root.display())))?;
        let mut reader = Reader { snapshot: Self::default(), inodes: BTreeMap::new() };
        let stat = rustix::fs::fstat(&directory)?;
        reader.node(&directory, c".", PathBuf::new(), &stat)?;
        reader.directory(&directory, Path::new(""))?;
        Ok(reader.snapshot)
    }

    /// What is at a path.
    #[must_use]
    pub fn get(&self, path: impl AsRef<Path>) -> Option<&Node> {
        self.nodes.get(path.as_ref())
    }

    /// Every path but the root, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        self.nodes.keys().map(PathBuf::as_path).filter(|path| !path.as_os_str().is_empty()).collect()
    }

    /// Without the root directory's own metadata.
    #[must_use]
    pub fn without_root(mut self) -> Self {
        self.nodes.remove(Path::new(""));
        self
    }

    /// Without the sockets, which a tar leaves out by rule.
    #[must_use]
    pub fn without_sockets(mut self) -> Self {
        let socket = FileType::Socket.as_raw_mode();
        self.nodes.retain(|_, node| !matches!(node.kind, Kind::Special(kind, _) if kind == socket));
        self
    }

    /// What differs, a line each: empty for equal trees.
    #[must_use]
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, node) in &self.nodes {
            match expected.nodes.get(path) {
                None => lines.push(format!("{path:?} must not be there")),
                Some(wanted) if wanted != node => {
                    lines.push(format!("{path:?} is {node:?}, must be {wanted:?}"));
                }
                Some(_) => {}
            }
        }
        for path in expected.nodes.keys().filter(|path| !self.nodes.contains_key(*path)) {
            lines.push(format!("{path:?} is missing"));
        }
        lines
    }

    /// Fails the case where the tree is not as `expected`, listing what differs.
    ///
    /// # Errors
    /// Where they differ.
    #[track_caller]
    pub fn must_equal(&self, expected: &Self, what: &str) -> Verdict {
        let lines = self.differences(expected);
        if lines.is_empty() {
            return Ok(());
        }
        let shown = lines.iter().take(20).fold(String::new(), |mut shown, line| {
            let _ = write!(shown, "\n    {line}");
            shown
        });
        Err(Stop::failed(format_args!("{what}: {} differences:{shown}", lines.len())))
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Reader {
    snapshot: Snapshot,
    inodes: BTreeMap<(u64, u64), PathBuf>,
}

impl Reader {
    fn directory(&mut self, directory: &OwnedFd, path: &Path) -> Verdict {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let here = path.join(OsStr::from_bytes(name.to_bytes()));
            let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| Stop::failed(format_args!("stat {}: {errno}", here.display())))?;
            self.node(directory, &name, here.clone(), &stat)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let child = rustix::fs::openat(directory, &name, DIRECTORY, Mode::empty())?;
                self.directory(&child, &here)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, at: &OwnedFd, name: &std::ffi::CStr, path: PathBuf, stat: &Stat) -> Verdict {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                Kind::File { size: stat.st_size.unsigned_abs(), hash: content(at, name)? }
            }
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink(rustix::fs::readlinkat(at, name, Vec::new())?.into_bytes()),
            other => Kind::Special(other.as_raw_mode(), stat.st_rdev),
        };
        let inode = (stat.st_dev, stat.st_ino);
        let same_as = if stat.st_nlink > 1 && kind != Kind::Directory {
            let first = self.inodes.entry(inode).or_insert_with(|| path.clone());
            (*first != path).then(|| first.clone())
        } else {
            None
        };
        let node = Node {
            kind,
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            mtime: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(-1)),
            xattrs: xattrs(at, name)?,
            same_as,
        };
        self.snapshot.nodes.insert(path, node);
        Ok(())
    }
}

fn content(at: &OwnedFd, name: &std::ffi::CStr) -> Verdict<u64> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(at, name, flags, Mode::empty())?;
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0_u8; 65536];
    loop {
        match rustix::io::read(&file, &mut buffer[..])? {
            0 => return Ok(hasher.finish()),
            length => hasher.write(&buffer[..length]),
        }
    }
}

/// The hash that a [`Snapshot`] has of a file with this content.
#[must_use]
pub fn hash_of(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in content.chunks(65536) {
        hasher.write(part);
    }
    hasher.finish()
}

/// All extended attributes of a name in a directory. What the security module of the host adds to every file
/// (`security.selinux`, …) says nothing of the driver and is left out.
fn xattrs(at: impl AsFd, name: &std::ffi::CStr) -> Verdict<BTreeMap<String, Vec<u8>>> {
    // The magic link leads to the directory itself, whatever its path is and however long.
    let path = [format!("/proc/self/fd/{}/", at.as_fd().as_raw_fd()).as_bytes(), name.to_bytes()].concat();
    let path = CString::new(path).map_err(Stop::failed)?;
    let mut names = vec![0_u8; 65536];
    let length = match rustix::fs::llistxattr(&path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut found = BTreeMap::new();
    for key in names[..length].split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
        let text = String::from_utf8_lossy(key).into_owned();
        if matches!(text.as_str(), "security.selinux" | "security.SMACK64" | "security.ima" | "security.evm")
        {
            continue;
        }
        let key = CString::new(key).map_err(Stop::failed)?;
        let mut value = vec![0_u8; 65536];
        let length = rustix::fs::lgetxattr(&path, &key, &mut value[..])?;
        value.truncate(length);
        found.insert(text, value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn equal_trees_are_equal_and_each_difference_is_a_line() {
        let scratch = tempfile::tempdir().unwrap();
        let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
        for tree in [&one, &two] {
            fs::create_dir(tree).unwrap();
            fs::write(tree.join("a"), "content").unwrap();
            fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
            for name in ["a", "."] {
                let file = fs::File::open(tree.join(name)).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            }
        }
        let first = Snapshot::read(&one).unwrap();
        assert_eq!(first.differences(&Snapshot::read(&two).unwrap()), Vec::<String>::new());
        assert_eq!(first.get("b").unwrap().same_as.as_deref(), Some(Path::new("a")));
        assert_eq!(first.get("a").unwrap().kind, Kind::File { size: 7, hash: hash_of(b"content") });

        fs::remove_file(two.join("b")).unwrap();
        fs::write(two.join("b"), "other").unwrap();
        fs::write(two.join("c"), "").unwrap();
        assert_eq!(first.without_root().differences(&Snapshot::read(&two).unwrap().without_root()).len(), 2);
    }
}
