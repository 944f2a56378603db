//! Comparing what two trees have at one path.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::driver::CtimeWindow;
use crate::error::Result;
use crate::tree::{FileKind, Metadata, attributes, link_target};

use super::walk::failed;

/// How two entries of the same kind differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// They are one and the same file: nothing below differs either.
    Same,
    /// In nothing that is looked at.
    Equal,
    /// Directories, in their mtime alone.
    DirectoryTime,
    /// In more than that.
    Changed,
}

/// When files with equal metadata are read to see whether their contents are equal too.
#[derive(Debug, Clone, Copy)]
pub(super) enum Contents {
    /// Equal metadata means equal content.
    Trusted,
    /// Only when the layer's file was touched outside the window, inside of which nothing else is compared either.
    OutsideOf(CtimeWindow),
    /// Always.
    Compared,
}

/// One name in a directory of each tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    /// The name; empty for the directories themselves.
    pub(super) name: &'a CStr,
    /// The path, for messages.
    pub(super) path: &'a [u8],
    /// The directory in the layer.
    pub(super) layer: BorrowedFd<'a>,
    /// The directory in the base.
    pub(super) base: BorrowedFd<'a>,
}

/// Compares two entries of the same kind; what costs least first.
pub(super) fn compare(
    pair: Pair<'_>,
    layer: &Metadata,
    base: &Metadata,
    contents: Contents,
) -> Result<Difference> {
    if layer.identity == base.identity {
        return Ok(Difference::Same);
    }
    let directory = layer.kind == FileKind::Directory;
    let owner = |file: &Metadata| (file.mode, file.uid, file.gid, file.rdev);
    if owner(layer) != owner(base) || (!directory && (layer.size, layer.mtime) != (base.size, base.mtime)) {
        return Ok(Difference::Changed);
    }
    let equal =
        if directory && layer.mtime != base.mtime { Difference::DirectoryTime } else { Difference::Equal };
    if let Contents::OutsideOf(window) = contents
        && window.contains(layer.ctime_ns())
    {
        return Ok(equal);
    }
    let read = |what: &'static str, errno: Errno| failed(errno, what, pair.path);
    if layer.kind == FileKind::Symlink {
        let target = |directory| link_target(directory, pair.name);
        let targets = (target(pair.layer), target(pair.base));
        if or_vanished(targets.0).map_err(|errno| read("read the link", errno))?
            != or_vanished(targets.1).map_err(|errno| read("read the link", errno))?
        {
            return Ok(Difference::Changed);
        }
    }
    let of = |directory| or_vanished(attributes(directory, pair.name));
    if of(pair.layer).map_err(|errno| read("read the attributes", errno))?
        != of(pair.base).map_err(|errno| read("read the attributes", errno))?
    {
        return Ok(Difference::Changed);
    }
    if layer.kind == FileKind::File
        && !matches!(contents, Contents::Trusted)
        && !same_content(pair, layer.size)?
    {
        return Ok(Difference::Changed);
    }
    Ok(equal)
}

/// What vanished meanwhile has nothing; it differs, and whoever looks next finds it gone.
fn or_vanished<T>(outcome: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Opens a regular file for reading without leaving an access time behind, and without waiting at a FIFO that took
/// its place.
pub(super) fn open(directory: BorrowedFd<'_>, name: &CStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(directory, name, flags, Mode::empty()).map(File::from),
        outcome => outcome.map(File::from),
    }
}

fn same_content(pair: Pair<'_>, size: u64) -> Result<bool> {
    if size == 0 {
        return Ok(true);
    }
    let fail = |errno: Errno| failed(errno, "open to compare", pair.path);
    let Some(layer) = or_vanished(open(pair.layer, pair.name)).map_err(fail)? else { return Ok(false) };
    let base = open(pair.base, pair.name).map_err(fail)?;
    let length = usize::try_from(size).map_or(MOST_COMPARED, |size| size.min(MOST_COMPARED));
    let mut buffers = (vec![0; length], vec![0; length]);
    let mut offset = 0;
    loop {
        let here = fill(&layer, &mut buffers.0, offset, pair.path)?;
        let there = fill(&base, &mut buffers.1, offset, pair.path)?;
        if buffers.0[..here] != buffers.1[..there] {
            return Ok(false);
        }
        offset += length as u64;
        if here < length || offset >= size {
            return Ok(true);
        }
    }
}

/// How much of two files is compared at a time, in bytes.
const MOST_COMPARED: usize = 128 * 1024;

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], offset: u64, path: &[u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(
                    crate::Error::from_io(error, "read to compare").with_path(super::walk::shown(path))
                );
            }
        }
    }
    Ok(filled)
}
