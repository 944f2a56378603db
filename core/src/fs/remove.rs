//! Removing a tree.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// How many directories are held open at once; deeper trees open the upper ones again on the way back.
const OPEN_AT_MOST: usize = 128;

/// Removes `name` in `parent` and all below it, whatever it is; that it is absent is no error.
///
/// Works on directory descriptors and follows no symbolic link, so nothing outside the tree is touched even if
/// somebody changes the tree meanwhile. `shown` is the path of `parent` for error messages. Any depth will do.
///
/// # Errors
/// What the kernel gives, naming the tree.
pub fn remove_tree(parent: impl AsFd, name: &OsStr, shown: &Path) -> Result<()> {
    let top = shown.join(name);
    let name = CString::new(name.as_bytes())
        .map_err(|_| Error::from_errno(Errno::INVAL, "remove").with_path(&top))?;
    remove(parent.as_fd(), &name).map_err(|(what, errno)| Error::from_errno(errno, what).with_path(top))
}

type Failure = (&'static str, Errno);

/// A directory that is being emptied.
struct Level {
    /// Its name in the directory above.
    name: CString,
    /// Device and inode, by which it is known again.
    identity: (u64, u64),
    /// None while too many others are open.
    entries: Option<Dir>,
}

fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Failure> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // The latter is what POSIX asks for.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(("remove", errno)),
    }
    let mut levels = match descend(parent, name) {
        Ok(level) => vec![level],
        Err((_, Errno::NOENT)) => return Ok(()),
        Err(failure) => return Err(failure),
    };
    while let Some(mut level) = levels.pop() {
        let Some(mut entries) = level.entries.take() else { continue };
        let full = empty(&mut entries)?;
        let here = entries.fd().map_err(|errno| ("open", errno))?;
        if let Some(child) = full {
            let below = descend(here, &child)?;
            level.entries = Some(entries);
            levels.push(level);
            levels.push(below);
            if let Some(upper) = levels.len().checked_sub(OPEN_AT_MOST) {
                levels[upper].entries = None;
            }
            continue;
        }
        let Some(above) = levels.last_mut() else {
            return unlink_directory(parent, name);
        };
        if above.entries.is_none() {
            // ".." cannot lead out of the tree unseen: it must be the very directory that was come from.
            let up = descend(here, c"..")?;
            if up.identity != above.identity {
                return Err(("remove: the tree was moved meanwhile", Errno::AGAIN));
            }
            above.entries = up.entries;
        }
        if let Some(up) = &above.entries {
            unlink_directory(up.fd().map_err(|errno| ("open", errno))?, &level.name)?;
        }
    }
    Ok(())
}

fn descend(at: BorrowedFd<'_>, name: &CStr) -> Result<Level, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(at, name, flags, Mode::empty()).map_err(|errno| ("open", errno))?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| ("inspect", errno))?;
    let entries = Dir::new(fd).map_err(|errno| ("list", errno))?;
    Ok(Level { name: name.to_owned(), identity: (stat.st_dev, stat.st_ino), entries: Some(entries) })
}

/// Removes what is in a directory up to the first subdirectory that is not empty, whose name is returned.
fn empty(entries: &mut Dir) -> Result<Option<CString>, Failure> {
    // A file system may pass over entries while others are removed: only a reading from the start that finds nothing
    // says that nothing is left.
    let mut from_start = false;
    loop {
        let mut removed = false;
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| ("list", errno))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            removed = true;
            let directory = entries.fd().map_err(|errno| ("open", errno))?;
            if entry.file_type() != FileType::Directory {
                match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR) => {}
                    Err(errno) => return Err(("remove", errno)),
                }
            }
            match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_owned())),
                Err(errno) => return Err(("remove directory", errno)),
            }
        }
        if from_start && !removed {
            return Ok(None);
        }
        entries.rewind();
        from_start = true;
    }
}

fn unlink_directory(at: BorrowedFd<'_>, name: &CStr) -> Result<(), Failure> {
    match rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(("remove directory", errno)),
    }
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
