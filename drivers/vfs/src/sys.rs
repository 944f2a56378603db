//! System calls that ask what a file system can do. None needs unsafe code: rustix has them all.

use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// A minimal ACL, equal to mode 0600: owner rw, group and others nothing (linux/posix_acl_xattr.h).
const ACL: [u8; 28] = [
    2, 0, 0, 0, // version
    1, 0, 6, 0, 255, 255, 255, 255, // the owner
    4, 0, 0, 0, 255, 255, 255, 255, // the group
    32, 0, 0, 0, 255, 255, 255, 255, // others
];

/// Whether the content of `from` can be shared with `to`: `ioctl_ficlone(2)`.
pub(crate) fn can_clone(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool, Errno> {
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::XDEV | Errno::NOSYS | Errno::PERM) => {
            Ok(false)
        }
        Err(errno) => Err(errno),
    }
}

/// Whether a file keeps extended attributes of a name space, for this process.
pub(crate) fn keeps_attributes(file: BorrowedFd<'_>, name_space: &str) -> Result<bool, Errno> {
    let (name, value): (String, &[u8]) = if name_space.starts_with("system.posix_acl") {
        ("system.posix_acl_access".to_owned(), &ACL)
    } else {
        (format!("{name_space}layerstack"), b"1")
    };
    match rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}
