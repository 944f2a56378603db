//! Opening a path inside a tree.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};

/// The most bytes of a path that one system call takes: `PATH_MAX` in linux/limits.h, less the NUL.
const LONGEST: usize = 4095;

/// Opens `path` below `root`; no component of it may be a symbolic link, unless `flags` ask for the link itself
/// (`O_PATH | O_NOFOLLOW`). Paths longer than [`LONGEST`] are gone through in pieces.
pub(super) fn beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let fail = |errno: Errno| match errno {
        Errno::NOENT | Errno::NOTDIR => {
            Error::new(ErrorKind::NotFound, "no such file in the tree").with_path(path)
        }
        errno => Error::from_errno(errno, "open a file of the tree").with_path(path),
    };
    let invalid = |what: &str| Error::new(ErrorKind::InvalidInput, what).with_path(path);
    let mut pieces: Vec<Vec<u8>> = vec![Vec::new()];
    for component in path.components() {
        let name = match component {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) => name.as_bytes(),
            Component::ParentDir | Component::Prefix(_) => return Err(invalid("a path with ..")),
        };
        if pieces.last().is_some_and(|piece| piece.len() + 1 + name.len() > LONGEST) {
            pieces.push(Vec::new());
        }
        if let Some(piece) = pieces.last_mut() {
            if !piece.is_empty() {
                piece.push(b'/');
            }
            piece.extend_from_slice(name);
        }
    }
    let last = pieces.len() - 1;
    let mut at: Option<OwnedFd> = None;
    for (index, piece) in pieces.into_iter().enumerate() {
        let piece = if piece.is_empty() { c".".to_owned() } else { to_c(piece, invalid)? };
        let flags = if index == last { flags } else { OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC };
        let from = at.as_ref().map_or(root, AsFd::as_fd);
        let next = piecewise(from, &piece, flags).map_err(fail)?;
        at = Some(next);
    }
    at.ok_or_else(|| fail(Errno::NOENT))
}

fn to_c(piece: Vec<u8>, invalid: impl Fn(&str) -> Error) -> Result<CString> {
    CString::new(piece).map_err(|_| invalid("a path with NUL"))
}

/// Opens a relative path of at most [`LONGEST`] bytes: by `openat2(2)`, or a component at a time where the kernel
/// has none (before 5.6) or a seccomp filter keeps it away.
fn piecewise(from: BorrowedFd<'_>, path: &CString, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(from, path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => by_component(from, path, flags),
        // The look-up met a rename and cannot tell whether it stayed inside: openat2(2), "EAGAIN".
        Err(Errno::AGAIN) => by_component(from, path, flags),
        outcome => outcome,
    }
}

fn by_component(from: BorrowedFd<'_>, path: &CString, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut names = path.to_bytes().split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let flags = if names.peek().is_some() {
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
        } else {
            flags | OFlags::NOFOLLOW
        };
        let from = at.as_ref().map_or(from, AsFd::as_fd);
        let next = rustix::fs::openat(from, &name, flags, Mode::empty())?;
        at = Some(next);
    }
    at.ok_or(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_openat2_a_link_in_the_way_is_refused_all_the_same() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(scratch.path().join("a/b")).unwrap();
        std::fs::write(scratch.path().join("a/b/f"), "x").unwrap();
        std::os::unix::fs::symlink("a", scratch.path().join("s")).unwrap();
        let root = OwnedFd::from(std::fs::File::open(scratch.path()).unwrap());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        for open in [piecewise, by_component] {
            assert!(open(root.as_fd(), &c"a/b/f".to_owned(), flags).is_ok());
            assert!(open(root.as_fd(), &c"s/b/f".to_owned(), flags).is_err());
        }
    }
}
