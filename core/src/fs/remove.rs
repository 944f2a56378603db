//! Removing a tree.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Removes `name` in `parent` and all below it, whatever it is; that it is absent is no error.
///
/// Works on directory descriptors and follows no symbolic link, so nothing outside the tree is touched even if
/// somebody changes the tree meanwhile. `shown` is the path of `parent` for error messages. Holds one descriptor
/// at a time, so any depth will do.
///
/// # Errors
/// What the kernel gives, naming the path.
pub fn remove_tree(parent: impl AsFd, name: &std::ffi::OsStr, shown: &Path) -> Result<()> {
    let top = shown.join(name);
    let fail = |what: &str, errno: Errno| Error::from_errno(errno, what).with_path(top.clone());
    let name = CString::new(name.as_bytes()).map_err(|_| fail("remove", Errno::INVAL))?;
    match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(fail("remove", errno)),
    }
    // Names of the directories between the top and the one being emptied. Going back up is by "..", which cannot
    // lead out: each directory is one that was opened by name below the top, and after a rename by somebody else
    // the device and inode differ, which is checked.
    let open = |at: &dyn AsFd, name: &CString| -> std::result::Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(at.as_fd(), name, flags, Mode::empty())
    };
    let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let mut current = match open(&parent, &name) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(fail("open", errno)),
    };
    let mut above: Vec<(CString, (u64, u64))> = Vec::new();
    loop {
        match empty(&current, &top)? {
            Some(child) => {
                let here = identity(&current).map_err(|errno| fail("inspect", errno))?;
                let next = open(&current, &child).map_err(|errno| fail("open", errno))?;
                above.push((child, here));
                current = next;
            }
            None => {
                let Some((child, expected)) = above.pop() else { break };
                let up = open(&current, &c"..".to_owned()).map_err(|errno| fail("open", errno))?;
                if identity(&up).map_err(|errno| fail("inspect", errno))? != expected {
                    return Err(fail("remove: the tree was moved meanwhile", Errno::AGAIN));
                }
                match rustix::fs::unlinkat(&up, &child, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(fail("remove directory", errno)),
                }
                current = up;
            }
        }
    }
    match rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(fail("remove directory", errno)),
    }
}

/// Removes what is in a directory up to the first subdirectory that is not empty, whose name is returned.
fn empty(directory: &OwnedFd, top: &Path) -> Result<Option<CString>> {
    let fail = |what: &str, name: &std::ffi::CStr, errno: Errno| {
        let name: PathBuf = std::ffi::OsStr::from_bytes(name.to_bytes()).into();
        Error::from_errno(errno, what).with_path(top.join("…").join(name))
    };
    let entries = Dir::read_from(directory).map_err(|errno| fail("list", c"", errno))?;
    for entry in entries {
        let entry = entry.map_err(|errno| fail("list", c"", errno))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(errno) => return Err(fail("remove", name, errno)),
            }
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_owned())),
            Err(errno) => return Err(fail("remove directory", name, errno)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn remove(directory: &Path, name: &str) -> Result<()> {
        remove_tree(fs::File::open(directory).unwrap(), name.as_ref(), directory)
    }

    #[test]
    fn a_deep_and_wide_tree_goes_and_what_it_points_to_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let mut path = scratch.path().join("top");
        for depth in 0..300 {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), "x").unwrap();
            std::os::unix::fs::symlink(&outside, path.join("link")).unwrap();
            fs::create_dir(path.join(format!("empty{depth}"))).unwrap();
            path.push("d");
        }
        remove(scratch.path(), "top").unwrap();
        assert!(!scratch.path().join("top").exists());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn what_is_absent_is_no_error_and_a_file_goes_too() {
        let scratch = tempfile::tempdir().unwrap();
        remove(scratch.path(), "none").unwrap();
        fs::write(scratch.path().join("file"), "x").unwrap();
        remove(scratch.path(), "file").unwrap();
        assert!(!scratch.path().join("file").exists());
    }
}
