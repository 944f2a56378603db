//! Extended attributes of a name in an open directory, the name itself never followed.
//!
//! The kernel has had `*xattrat` calls only since 6.13. Before, `/proc/self/fd/N/NAME` with the `l…xattr` calls does
//! the same: the magic link leads to the directory itself, and the last component is not followed. That takes three
//! times as long (5 µs against 1.6), so the one call that is made for every file of a tree, the listing, is tried
//! the new way first.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::sys;

/// Extended attributes: name and value of each, sorted by name.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// All extended attributes of `name` in `directory` that the kernel lists, sorted by name. `name` may be empty:
/// the directory itself. A file system without extended attributes has none.
///
/// # Errors
/// What the kernel gives.
pub fn list(directory: impl AsFd, name: &CStr) -> Result<Attributes, Errno> {
    let mut names = [0_u8; 1024];
    let names = match list_names(directory.as_fd(), name, &mut names) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => names[..length].to_vec(),
        // 64 KiB is the most that the kernel hands out: XATTR_LIST_MAX in linux/limits.h.
        Err(Errno::RANGE) => {
            let mut all = vec![0_u8; 65536];
            let length = list_names(directory.as_fd(), name, &mut all)?;
            all.truncate(length);
            all
        }
        Err(errno) => return Err(errno),
    };
    let path = proc_path(&directory, name)?;
    let mut found = Vec::new();
    for attribute in names.split(|byte| *byte == 0).filter(|attribute| !attribute.is_empty()) {
        let key = CString::new(attribute).map_err(|_| Errno::INVAL)?;
        match read(&path, &key) {
            Ok(value) => found.push((attribute.to_vec(), value)),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    found.sort();
    Ok(found)
}

/// One extended attribute, None where it is absent or the file system has none at all.
///
/// # Errors
/// What the kernel gives.
pub fn get(directory: impl AsFd, name: &CStr, key: &CStr) -> Result<Option<Vec<u8>>, Errno> {
    match read(&proc_path(&directory, name)?, key) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sets one extended attribute.
///
/// # Errors
/// What the kernel gives.
pub fn set(directory: impl AsFd, name: &CStr, key: &CStr, value: &[u8]) -> Result<(), Errno> {
    rustix::fs::lsetxattr(&proc_path(&directory, name)?, key, value, XattrFlags::empty())
}

/// Removes one extended attribute; that it is absent is no error.
///
/// # Errors
/// What the kernel gives.
pub fn remove(directory: impl AsFd, name: &CStr, key: &CStr) -> Result<(), Errno> {
    match rustix::fs::lremovexattr(&proc_path(&directory, name)?, key) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn read(path: &CStr, key: &CStr) -> Result<Vec<u8>, Errno> {
    let mut value = [0_u8; 1024];
    match rustix::fs::lgetxattr(path, key, &mut value[..]) {
        Ok(length) => Ok(value[..length].to_vec()),
        // XATTR_SIZE_MAX in linux/limits.h.
        Err(Errno::RANGE) => {
            let mut all = vec![0_u8; 65536];
            let length = rustix::fs::lgetxattr(path, key, &mut all[..])?;
            all.truncate(length);
            Ok(all)
        }
        Err(errno) => Err(errno),
    }
}

fn list_names(directory: BorrowedFd<'_>, name: &CStr, names: &mut [u8]) -> Result<usize, Errno> {
    static LACKING: AtomicBool = AtomicBool::new(false);
    if !LACKING.load(Ordering::Relaxed) {
        match sys::list_xattr_at(directory, if name.is_empty() { c"." } else { name }, names) {
            Err(Errno::NOSYS) => LACKING.store(true, Ordering::Relaxed),
            // A seccomp filter that does not know the call. Listing itself needs no privilege.
            Err(Errno::PERM) => {}
            outcome => return outcome,
        }
    }
    rustix::fs::llistxattr(&proc_path(&directory, name)?, names)
}

fn proc_path(directory: &impl AsFd, name: &CStr) -> Result<CString, Errno> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    if name.is_empty() {
        // With the slash the magic link is followed, and the directory itself is meant.
        path.push(b'.');
    }
    path.extend_from_slice(name.to_bytes());
    CString::new(path).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_a_name_and_of_the_directory_itself() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("f"), "x").unwrap();
        let directory = std::fs::File::open(scratch.path()).unwrap();
        let big = vec![7_u8; 2000];
        set(&directory, c"f", c"user.b", &big).unwrap();
        set(&directory, c"f", c"user.a", b"").unwrap();
        set(&directory, c"", c"user.d", b"1").unwrap();
        assert_eq!(
            list(&directory, c"f").unwrap(),
            [(b"user.a".to_vec(), Vec::new()), (b"user.b".to_vec(), big)]
        );
        assert_eq!(get(&directory, c"", c"user.d").unwrap(), Some(b"1".to_vec()));
        remove(&directory, c"f", c"user.a").unwrap();
        remove(&directory, c"f", c"user.a").unwrap();
        assert_eq!(get(&directory, c"f", c"user.a").unwrap(), None);
    }

    #[test]
    fn a_symlink_is_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("f"), "x").unwrap();
        std::os::unix::fs::symlink("f", scratch.path().join("s")).unwrap();
        let directory = std::fs::File::open(scratch.path()).unwrap();
        set(&directory, c"f", c"user.a", b"1").unwrap();
        assert_eq!(list(&directory, c"s").unwrap(), []);
    }
}
