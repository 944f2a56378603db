//! One entry of a directory: making it, its metadata, hard links.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::content::{Content, Failure};
use super::walk::{Node, Pair, Walk};
use super::{Reflink, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::xattr;

/// setuid, setgid, sticky. Kept from a file until all else is done: chown and write take the first two away.
const SPECIAL: u32 = 0o7000;

/// Room for the names that one `getdents64(2)` gives, in bytes.
const NAMES: usize = 32 << 10;

/// The most that the kernel hands out as names or as value of extended attributes, in bytes: `XATTR_LIST_MAX` and
/// `XATTR_SIZE_MAX` in linux/limits.h.
const ATTRIBUTE: usize = 65536;

/// Copies of files that have several names, by device and inode of the original.
type LinkMap = HashMap<(u64, u64), Link>;

/// The multiply linked files met so far of which names may still come.
#[derive(Debug, Default)]
pub(super) struct Links(Mutex<LinkMap>);

#[derive(Debug)]
struct Link {
    directory: Arc<Node>,
    name: CString,
    /// How many names the original has that were not met yet.
    left: libc::nlink_t,
}

/// What a system call was for, with its errno.
type Attempt<T = ()> = Result<T, (&'static str, Errno)>;

/// Names an errno's call.
fn during<T>(what: &'static str, result: Result<T, Errno>) -> Attempt<T> {
    result.map_err(|errno| (what, errno))
}

/// One thread's part in a copy.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    walk: &'a Walk<'a>,
    links: &'a Links,
    content: Content<'a>,
    /// Whether files get the mode that they are created with.
    exact_modes: bool,
    /// Owner and group that files are created with.
    owner: (u32, u32),
    names: Vec<MaybeUninit<u8>>,
    attribute: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        walk: &'a Walk<'a>,
        links: &'a Links,
        reflink: Reflink,
        cloning: &'a AtomicBool,
        exact_modes: bool,
    ) -> Self {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let content = Content::new(reflink, cloning);
        let names = vec![MaybeUninit::uninit(); NAMES];
        let attribute = vec![0; ATTRIBUTE];
        Self { walk, links, content, exact_modes, owner, names, attribute }
    }

    /// Makes the entries of a directory, then gives the directory its metadata.
    pub(super) fn copy_directory(&mut self, node: &Arc<Node>) -> Result<()> {
        let pair = self.walk.pair(node)?;
        let walk = self.walk;
        let fail = |(what, errno)| Error::from_errno(errno, what).with_path(walk.path(node, c""));
        let mut names = std::mem::take(&mut self.names);
        let mut listing = RawDir::new(&pair.from, &mut names);
        while let Some(entry) = listing.next() {
            let entry = during("list", entry).map_err(fail)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                self.copy_entry(node, &pair, entry.file_name())?;
            }
        }
        self.names = names;
        let stat = during("inspect", rustix::fs::fstat(&pair.from)).map_err(fail)?;
        self.finish(pair.from.as_fd(), pair.to.as_fd(), &stat).map_err(fail)
    }

    fn copy_entry(&mut self, node: &Arc<Node>, pair: &Pair, name: &CStr) -> Result<()> {
        let walk = self.walk;
        let fail = |(what, errno)| Error::from_errno(errno, what).with_path(walk.path(node, name));
        let stat = rustix::fs::statat(&pair.from, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = during("inspect", stat).map_err(fail)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            // Nobody else may look in before it has its owner and mode.
            let made = rustix::fs::mkdirat(&pair.to, name, Mode::RWXU);
            during("make the copy of", made).map_err(fail)?;
            walk.found(node, name);
            return Ok(());
        }
        let Some(made) = self.make_or_link(node, pair, name, &stat)? else { return Ok(()) };
        let Some(to) = made else {
            return self.finish_special(pair, name, &stat).map_err(fail);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = open_quietly(pair.from.as_fd(), name, flags);
        let from = during("open", from).map_err(fail)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // In units of 512 bytes, whatever the file system's blocks are.
        let dense = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) >= size;
        match self.content.copy(from.as_fd(), to.as_fd(), size, dense) {
            Ok(()) => {}
            Err(Failure::Call(what, errno)) => return Err(fail((what, errno))),
            Err(Failure::Short) => {
                let error = Error::new(ErrorKind::Corrupt, "the file has less content than its size says");
                return Err(error.with_path(walk.path(node, name)));
            }
        }
        self.finish(from.as_fd(), to.as_fd(), &stat).map_err(fail)
    }

    /// Makes what is not a directory, or links it where its inode was copied under another name (None). A regular
    /// file is returned open.
    fn make_or_link(
        &self,
        node: &Arc<Node>,
        pair: &Pair,
        name: &CStr,
        stat: &Stat,
    ) -> Result<Option<Option<rustix::fd::OwnedFd>>> {
        let fail = |(what, errno)| Error::from_errno(errno, what).with_path(self.walk.path(node, name));
        if stat.st_nlink < 2 {
            return make(pair, name, stat).map(Some).map_err(fail);
        }
        // Held until the file is there, so that another thread can link to it, if not yet read from it.
        let mut links = lock(&self.links.0);
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(link) = links.get_mut(&inode) {
            let directory = self.walk.pair(&link.directory)?;
            let linked = rustix::fs::linkat(&directory.to, &link.name, &pair.to, name, AtFlags::empty());
            during("link the copy of", linked).map_err(fail)?;
            link.left -= 1;
            if link.left == 0 {
                links.remove(&inode);
            }
            return Ok(None);
        }
        let made = make(pair, name, stat).map_err(fail)?;
        let left = stat.st_nlink - 1;
        links.insert(inode, Link { directory: Arc::clone(node), name: name.to_owned(), left });
        Ok(Some(made))
    }

    /// Gives an open file or directory the metadata of its original.
    fn finish(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> Attempt {
        if (stat.st_uid, stat.st_gid) != self.owner {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            during("set the owner of", rustix::fs::fchown(to, Some(uid), Some(gid)))?;
        }
        copy_attributes(from, to, &mut self.attribute)?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if directory || !self.exact_modes || stat.st_mode & SPECIAL != 0 {
            during("set the mode of", rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)))?;
        }
        during("set the times of", rustix::fs::futimens(to, &times(stat)))
    }

    /// Gives what cannot be opened (symbolic link, device, pipe, socket) the metadata of its original.
    fn finish_special(&self, pair: &Pair, name: &CStr, stat: &Stat) -> Attempt {
        if (stat.st_uid, stat.st_gid) != self.owner {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            let done = rustix::fs::chownat(&pair.to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            during("set the owner of", done)?;
        }
        for (key, value) in during("list the attributes of", xattr::list(&pair.from, name))? {
            let key = during("set an attribute of", CString::new(key).map_err(|_| Errno::INVAL))?;
            during("set an attribute of", xattr::set(&pair.to, name, &key, &value))?;
        }
        let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if !link && (!self.exact_modes || stat.st_mode & SPECIAL != 0) {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            during("set the mode of", rustix::fs::chmodat(&pair.to, name, mode, AtFlags::empty()))?;
        }
        let done = rustix::fs::utimensat(&pair.to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW);
        during("set the times of", done)
    }
}

/// Rids a directory of what it got from the one that it was made in: default ACLs and the set-group-ID bit would
/// go on to everything made in it.
pub(super) fn forget_inherited(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    for acl in [c"system.posix_acl_default", c"system.posix_acl_access"] {
        match rustix::fs::fremovexattr(directory, acl) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::fchown(directory, Some(rustix::process::geteuid()), Some(rustix::process::getegid()))?;
    rustix::fs::fchmod(directory, Mode::RWXU)
}

/// Makes an entry that is no directory; a regular file is returned open.
fn make(pair: &Pair, name: &CStr, stat: &Stat) -> Attempt<Option<rustix::fd::OwnedFd>> {
    const MAKE: &str = "make the copy of";
    let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            during(MAKE, rustix::fs::openat(&pair.to, name, flags, mode)).map(Some)
        }
        FileType::Symlink => {
            let target = during("read the target of", rustix::fs::readlinkat(&pair.from, name, Vec::new()))?;
            during(MAKE, rustix::fs::symlinkat(target, &pair.to, name)).map(|()| None)
        }
        kind => during(MAKE, rustix::fs::mknodat(&pair.to, name, kind, mode, stat.st_rdev)).map(|()| None),
    }
}

/// Opens without leaving a trace in the access time, where the kernel lets us: it does for the owner and root.
fn open_quietly(at: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<rustix::fd::OwnedFd, Errno> {
    match rustix::fs::openat(at, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(at, name, flags, Mode::empty()),
        opened => opened,
    }
}

fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, value: &mut [u8]) -> Attempt {
    const LIST: &str = "list the attributes of";
    let mut room = [0_u8; 1024];
    let mut all = Vec::new();
    let names = match rustix::fs::flistxattr(from, &mut room[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(length) => &room[..length],
        Err(Errno::RANGE) => {
            all.resize(ATTRIBUTE, 0);
            let length = during(LIST, rustix::fs::flistxattr(from, &mut all[..]))?;
            &all[..length]
        }
        Err(errno) => return Err((LIST, errno)),
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = during(LIST, CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL))?;
        let length = during("read an attribute of", rustix::fs::fgetxattr(from, name, &mut value[..]))?;
        let set = rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty());
        during("set an attribute of", set)?;
    }
    Ok(())
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    }
}
