//! One entry of a tar archive, as both the reader and the writer have it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::fs::xattr::Attributes;

/// What kind of file an entry is. Sockets are left out by rule: a tar cannot hold one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file; its content follows the header.
    File {
        /// The length of the content in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, kept byte for byte.
        target: Vec<u8>,
    },
    /// Another name of a file that an earlier entry or a lower layer has.
    Hardlink {
        /// The other name, relative to the layer's root.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
}

/// A time with nanoseconds; `seconds` may be negative (before 1970) or beyond 2446.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since the epoch, rounded down.
    pub seconds: i64,
    /// Nanoseconds since `seconds`, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// A tar entry's name and metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as the archive has it, byte for byte; not checked.
    pub path: Vec<u8>,
    /// What kind of file it is.
    pub kind: EntryKind,
    /// Permission bits, setuid, setgid and sticky included: `0o7777`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The modification time.
    pub mtime: Timestamp,
    /// Extended attributes, sorted by name; POSIX ACLs are `system.posix_acl_access` and `…_default` in the
    /// kernel's binary form.
    pub xattrs: Attributes,
}

impl Entry {
    /// An entry that belongs to root, without extended attributes, of 1970.
    #[must_use]
    pub fn new(path: impl Into<Vec<u8>>, kind: EntryKind, mode: u32) -> Self {
        let mtime = Timestamp::default();
        Self { path: path.into(), kind, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
    }

    /// The length of a file's content in bytes; 0 for all else.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        match self.kind {
            EntryKind::File { size } => size,
            _ => 0,
        }
    }

    /// The name as an error has it.
    pub(crate) fn shown(&self) -> PathBuf {
        OsStr::from_bytes(&self.path).into()
    }
}
