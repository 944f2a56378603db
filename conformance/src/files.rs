//! Making files of every kind, by the kernel's calls.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::case::Verdict;

/// Writes a file, replacing its content.
///
/// # Errors
/// What the kernel gives.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Verdict {
    Ok(fs::write(path, content)?)
}

/// Makes a directory and those above it.
///
/// # Errors
/// What the kernel gives.
pub fn directory(path: &Path) -> Verdict {
    Ok(fs::create_dir_all(path)?)
}

/// Sets the permission bits, the umask not asked.
///
/// # Errors
/// What the kernel gives.
pub fn mode(path: &Path, mode: u32) -> Verdict {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Sets the owner of a path itself.
///
/// # Errors
/// What the kernel gives.
pub fn owner(path: &Path, uid: u32, gid: u32) -> Verdict {
    Ok(lchown(path, Some(uid), Some(gid))?)
}

/// Sets the modification time (and the access time) of a path itself.
///
/// # Errors
/// What the kernel gives.
pub fn mtime(path: &Path, seconds: i64, nanoseconds: i64) -> Verdict {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets an extended attribute of a path itself.
///
/// # Errors
/// What the kernel gives.
pub fn xattr(path: &Path, key: &str, value: impl AsRef<[u8]>) -> Verdict {
    Ok(rustix::fs::lsetxattr(path, key, value.as_ref(), XattrFlags::empty())?)
}

/// Makes a device, a pipe or a socket.
///
/// # Errors
/// What the kernel gives.
pub fn special(path: &Path, kind: FileType, device: u64) -> Verdict {
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device)?)
}

/// A small tree with something of most kinds: what many cases start from.
///
/// # Errors
/// What the kernel gives.
pub fn sample(root: &Path) -> Verdict {
    directory(&root.join("etc/init"))?;
    write(&root.join("etc/passwd"), "root:x:0:0\n")?;
    write(&root.join("etc/init/one"), "1")?;
    write(&root.join("etc/init/two"), "2")?;
    directory(&root.join("usr/bin"))?;
    write(&root.join("usr/bin/tool"), vec![0x7f; 9000])?;
    mode(&root.join("usr/bin/tool"), 0o4755)?;
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/alias"))?;
    symlink("usr/bin", root.join("bin"))?;
    directory(&root.join("tmp"))?;
    mode(&root.join("tmp"), 0o1777)?;
    write(&root.join("empty"), "")?;
    owner(&root.join("empty"), 1000, 1001)
}

/// The paths of [`sample`], in order.
pub const SAMPLE: [&str; 12] = [
    "bin",
    "empty",
    "etc",
    "etc/init",
    "etc/init/one",
    "etc/init/two",
    "etc/passwd",
    "tmp",
    "usr",
    "usr/bin",
    "usr/bin/alias",
    "usr/bin/tool",
];
