//! Owners, modes, attributes and times.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::walk::Directory;
use super::{Applier, failed};
use crate::archive::{Entry, EntryKind, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::xattr;
use crate::tree;

const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
const ACCESS_ACL: &CStr = c"system.posix_acl_access";

/// Attributes that say how overlayfs stores a layer; in a layer's tar they would change what other files are.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The security module labels files by its own rules; a directory that is replaced keeps its label.
const LABEL: &[u8] = b"security.selinux";

/// What this process gives to the files that it creates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    uid: u32,
    gid: u32,
    /// The bits of a mode that `open(2)`, `mkdir(2)` and `mknod(2)` leave out.
    umask: u32,
}

impl Identity {
    /// The umask is read, not set: it belongs to the whole process. Where it cannot be read, every mode is set after
    /// the file was made.
    pub(super) fn of_this_process() -> Self {
        let umask = std::fs::read_to_string("/proc/thread-self/status").ok().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        });
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self { uid: uid.as_raw(), gid: gid.as_raw(), umask: umask.unwrap_or(0o777) }
    }
}

/// Refuses entries that would be something else to overlayfs than they say.
pub(super) fn check(entry: &Entry) -> Result<()> {
    let refused = |what: String| Err(Error::new(ErrorKind::InvalidInput, what));
    if entry.kind == (EntryKind::CharDevice { major: 0, minor: 0 }) {
        return refused("a character device 0:0 is overlayfs' whiteout".to_owned());
    }
    for (name, _) in &entry.xattrs {
        if OVERLAY.iter().any(|prefix| name.starts_with(prefix)) {
            return refused(format!("the attribute {} is overlayfs' own", name.escape_ascii()));
        }
    }
    Ok(())
}

/// The mode as the calls that create files take it. The special bits come last, when the owner is right.
pub(super) fn creation_mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o777)
}

impl Identity {
    /// Gives a new regular file its metadata.
    pub(super) fn finish_file(&self, file: &OwnedFd, entry: &Entry, directory: &Directory) -> Result<()> {
        if directory.default_acl {
            remove(file, ACCESS_ACL)?;
        }
        if self.owner_differs(entry, directory) {
            rustix::fs::fchown(file, Some(uid(entry)), Some(gid(entry))).map_err(owner_failed)?;
        }
        if self.mode_differs(entry, directory) {
            rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(mode_failed)?;
        }
        for (name, value) in &entry.xattrs {
            set(name, |name| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))?;
        }
        set_mtime(file, entry.mtime).map_err(time_failed)
    }

    /// Gives a new symbolic link, device or fifo its metadata.
    pub(super) fn finish_name(&self, name: &CStr, entry: &Entry, directory: &Directory) -> Result<()> {
        let is_link = matches!(entry.kind, EntryKind::Symlink { .. });
        if directory.default_acl && !is_link {
            xattr::remove(&directory.fd, name, ACCESS_ACL)
                .map_err(|errno| attribute_failed(errno, ACCESS_ACL))?;
        }
        if self.owner_differs(entry, directory) {
            rustix::fs::chownat(
                &directory.fd,
                name,
                Some(uid(entry)),
                Some(gid(entry)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(owner_failed)?;
        }
        if !is_link && self.mode_differs(entry, directory) {
            // There is no chmod that follows no link before Linux 6.6, and opening a device can do things.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&directory.fd, name, flags, Mode::empty())
                .and_then(|file| {
                    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                    rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode))
                })
                .map_err(mode_failed)?;
        }
        for (key, value) in &entry.xattrs {
            set(key, |key| xattr::set(&directory.fd, name, key, value))?;
        }
        rustix::fs::utimensat(&directory.fd, name, &mtime(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(time_failed)
    }

    fn owner_differs(&self, entry: &Entry, directory: &Directory) -> bool {
        (entry.uid, entry.gid) != (self.uid, directory.group.unwrap_or(self.gid))
    }

    /// Whether the mode that creation gave has to be corrected: because of the umask, of the special bits (which a
    /// change of owner takes away), or because the access list that was inherited had its say.
    fn mode_differs(&self, entry: &Entry, directory: &Directory) -> bool {
        entry.mode & (self.umask | 0o7000) != 0 || directory.default_acl
    }
}

impl Applier<'_> {
    /// Makes the metadata of the open directory at `level` those of `entry`, whatever they are; the mtime is set
    /// when it is left.
    pub(super) fn finish_directory(&mut self, level: usize, entry: &Entry, fresh: bool) -> Result<()> {
        let directory = self.directory(level)?;
        let inherited = fresh && directory.default_acl;
        if !fresh || inherited {
            let found =
                tree::attributes(&directory.fd, c"").map_err(|errno| failed(errno, "list attributes"))?;
            for (name, _) in found {
                if name != LABEL && !entry.xattrs.iter().any(|(kept, _)| *kept == name) {
                    let name = CString::new(name).map_err(|_| failed(Errno::INVAL, "list attributes"))?;
                    remove(&directory.fd, &name)?;
                }
            }
        }
        let found =
            rustix::fs::fstat(&directory.fd).map_err(|errno| failed(errno, "inspect the directory"))?;
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid) {
            rustix::fs::fchown(&directory.fd, Some(uid(entry)), Some(gid(entry))).map_err(owner_failed)?;
        }
        if found.st_mode & 0o7777 != entry.mode {
            rustix::fs::fchmod(&directory.fd, Mode::from_raw_mode(entry.mode)).map_err(mode_failed)?;
        }
        for (name, value) in &entry.xattrs {
            set(name, |name| rustix::fs::fsetxattr(&directory.fd, name, value, XattrFlags::empty()))?;
        }
        directory.group = (entry.mode & libc::S_ISGID != 0).then_some(entry.gid);
        directory.default_acl = entry.xattrs.iter().any(|(name, _)| name == DEFAULT_ACL.to_bytes());
        (directory.mtime, directory.touched) = (entry.mtime, true);
        Ok(())
    }
}

/// Whether new files in the directory get an access list.
pub(super) fn has_default_acl(directory: &OwnedFd) -> Result<bool, Errno> {
    match rustix::fs::fgetxattr_query(directory, DEFAULT_ACL) {
        Ok(length) => Ok(length > 0),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Sets the mtime; the atime stays that of the unpacking.
pub(super) fn set_mtime(file: impl AsFd, time: Timestamp) -> Result<(), Errno> {
    rustix::fs::futimens(file, &mtime(time))
}

fn mtime(time: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
    }
}

fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

fn set(name: &[u8], call: impl FnOnce(&CStr) -> Result<(), Errno>) -> Result<()> {
    let name = CString::new(name)
        .map_err(|_| Error::new(ErrorKind::InvalidInput, "the name of an attribute has a NUL"))?;
    call(&name).map_err(|errno| attribute_failed(errno, &name))
}

fn remove(file: &OwnedFd, name: &CStr) -> Result<()> {
    match rustix::fs::fremovexattr(file, name) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(attribute_failed(errno, name)),
    }
}

fn attribute_failed(errno: Errno, name: &CStr) -> Error {
    failed(errno, &format!("set the attribute {}", name.to_bytes().escape_ascii()))
}

fn owner_failed(errno: Errno) -> Error {
    failed(errno, "set the owner")
}

fn mode_failed(errno: Errno) -> Error {
    failed(errno, "set the mode")
}

fn time_failed(errno: Errno) -> Error {
    failed(errno, "set the time")
}
