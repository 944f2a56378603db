//! What the kernel says of one file: one `statx(2)`, and where needed its attributes and link target.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::archive::Timestamp;
use crate::fs::xattr::{self, Attributes};

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A socket.
    Socket,
}

/// The metadata of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What kind of file it is.
    pub kind: FileKind,
    /// Permission bits, setuid, setgid and sticky included: `0o7777`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The major and minor number that a device file stands for; zeros otherwise.
    pub rdev: (u32, u32),
    /// The length in bytes; of a directory whatever the file system says.
    pub size: u64,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// When the content or the metadata last changed; no system call can set it.
    pub ctime: Timestamp,
    /// The device (major and minor number) and the inode number: equal for two names of one file.
    pub identity: ((u32, u32), u64),
    /// How many names the file has.
    pub links: u32,
}

impl Metadata {
    /// Of `name` in `directory`; a symbolic link's own. None where nothing is there. `name` may be empty: the
    /// directory itself.
    ///
    /// # Errors
    /// What the kernel gives.
    pub fn at(directory: impl AsFd, name: &CStr) -> Result<Option<Self>, Errno> {
        let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        if name.is_empty() {
            flags |= AtFlags::EMPTY_PATH;
        }
        match rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => Self::from_statx(&stat).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Of an open file.
    ///
    /// # Errors
    /// What the kernel gives.
    pub fn of(file: impl AsFd) -> Result<Self, Errno> {
        Self::from_statx(&rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?)
    }

    /// The ctime in nanoseconds since the epoch, as [`crate::driver::CtimeWindow`] has it.
    #[must_use]
    pub fn ctime_ns(&self) -> i128 {
        i128::from(self.ctime.seconds) * 1_000_000_000 + i128::from(self.ctime.nanoseconds)
    }

    fn from_statx(stat: &Statx) -> Result<Self, Errno> {
        let mode = u32::from(stat.stx_mode);
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::File,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFLNK => FileKind::Symlink,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFCHR => FileKind::CharDevice,
            libc::S_IFBLK => FileKind::BlockDevice,
            libc::S_IFSOCK => FileKind::Socket,
            // No file system of Linux has any other.
            _ => return Err(Errno::INVAL),
        };
        Ok(Self {
            kind,
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            rdev: match kind {
                FileKind::CharDevice | FileKind::BlockDevice => (stat.stx_rdev_major, stat.stx_rdev_minor),
                _ => (0, 0),
            },
            size: stat.stx_size,
            mtime: Timestamp { seconds: stat.stx_mtime.tv_sec, nanoseconds: stat.stx_mtime.tv_nsec },
            ctime: Timestamp { seconds: stat.stx_ctime.tv_sec, nanoseconds: stat.stx_ctime.tv_nsec },
            identity: ((stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino),
            links: stat.stx_nlink,
        })
    }
}

/// The extended attributes of `name` in `directory` (empty: the directory itself), sorted by name; without those
/// that overlayfs keeps for itself (`trusted.overlay.`, `user.overlay.`), which say how a layer is stored and not
/// what is in it.
///
/// # Errors
/// What the kernel gives.
pub fn attributes(directory: impl AsFd, name: &CStr) -> Result<Attributes, Errno> {
    let mut found = xattr::list(directory, name)?;
    found.retain(|(key, _)| !key.starts_with(b"trusted.overlay.") && !key.starts_with(b"user.overlay."));
    Ok(found)
}

/// Where the symbolic link `name` in `directory` points, byte for byte.
///
/// # Errors
/// What the kernel gives.
pub fn link_target(directory: impl AsFd, name: &CStr) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(directory, name, Vec::new()).map(std::ffi::CString::into_bytes)
}
