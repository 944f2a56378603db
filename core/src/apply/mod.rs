//! Unpacking a layer tar into a layer. The tar is taken to be hostile.
//!
//! # Rules
//! What the OCI image specification (layer.md) says, and where it says nothing, the following; each is the same for
//! every [`LayerForm`], so that a layer has the same tree on every driver.
//!
//! - **Names** are relative to the layer's root, also with a leading `/`. `..` is refused, and so is a name that
//!   starts with `.wh.` and is no whiteout. aufs' own files (`.wh..wh.aufs`, `.wh..wh.plnk`, `.wh..wh.orph`) are
//!   passed over.
//! - **Symbolic links on the way** to an entry are followed inside the layer's tree, the parent's part included:
//!   where the parent has `lib -> usr/lib`, the entry `lib/x` becomes `usr/lib/x`. The last component is not followed.
//! - **Missing directories on the way** are as the parent has them, or else 0755 root:root of 1970. An entry
//!   under something that is no directory is refused.
//! - **What is there already**: a directory over a directory keeps what is in it and gets the entry's metadata, and no
//!   other extended attributes than the entry's; anything else is replaced, a whole tree by a file as well.
//! - **Hard links** are made to what has the target's name in the layer's tree. The metadata of the entry are
//!   ignored. One to a directory, or to nothing, is refused.
//! - **Whiteouts** delete what the lower layers have, wherever in the tar they stand, and never what this tar brought.
//!   One of something that is not there is passed over. A directory that is only on the way to whiteouts
//!   counts as the parent's.
//! - **Directories keep their mtime** when something in them changes; only an entry of their own sets it.
//! - **Refused** besides: character devices 0:0 and the attributes `trusted.overlay.*`, `user.overlay.*`, which
//!   are overlayfs' own; the root as anything but a directory; an attribute, owner or size that the file system
//!   does not take.
//!
//! # How
//! Every call is relative to the descriptor of a directory that was itself reached by name from the root's
//! descriptor, one component at a time, no link followed. A small file costs four calls: open, write, set the
//! time, close; owner and mode are set only where creation could not have given them.

mod content;
mod cover;
mod metadata;
mod name;
mod ours;
mod place;
mod walk;

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::metadata::Identity;
use self::ours::{Key, Ours};
use self::walk::Level;
use crate::archive::{Observer, Reader};
use crate::driver::LayerForm;
use crate::error::{Error, ErrorKind, Result};
use crate::tree::{Names, Tree};

/// How a tar is to be unpacked.
#[derive(Default)]
#[non_exhaustive]
pub struct ApplyRequest<'a> {
    /// Sees every byte of the tar go by; regular files' content as a reference to the file, where it will be found.
    pub observer: Option<&'a mut dyn Observer>,
}

impl<'a> ApplyRequest<'a> {
    /// Unpack, and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With an observer.
    #[must_use]
    pub fn with_observer(mut self, observer: &'a mut dyn Observer) -> Self {
        self.observer = Some(observer);
        self
    }
}

impl fmt::Debug for ApplyRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyRequest").field("observed", &self.observer.is_some()).finish()
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// Entries of the tar, whiteouts included.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// The tar replaced something that it had brought itself, so the layer does not hold all content of the tar:
    /// a file that the observer was referred to may be another one by now.
    pub overwritten: bool,
}

/// Unpacks `tar` into the tree whose root directory is `target`, and reads it to its end.
///
/// `parent` gives the tree of the layer's parent, None for a base layer; it is
/// asked once, and only if something of the parent has to be looked at, which for a [`LayerForm::Whole`] target,
/// where the parent's files are in the target, is never. Nobody else should write to the target meanwhile: that
/// would be safe but the result not sure.
///
/// # Errors
/// `InvalidInput` naming the entry for what is malformed or refused, `NoSpace`, `QuotaExceeded`, or what the kernel
/// gives. The target then holds a part of the tar.
pub fn apply(
    target: impl AsFd,
    form: LayerForm,
    parent: &mut dyn FnMut() -> Result<Option<Tree>>,
    tar: &mut dyn Read,
    request: ApplyRequest<'_>,
) -> Result<Applied> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(target, c".", flags, Mode::empty())
        .map_err(|errno| failed(errno, "open the layer"))?;
    let was_empty = form != LayerForm::Whole
        && Names::of(&root, &mut Vec::with_capacity(64 * 1024))
            .map_err(|errno| failed(errno, "list the layer"))?
            .is_empty();
    let mut applier = Applier {
        form,
        identity: Identity::of_this_process(),
        observed: request.observer.is_some(),
        levels: Vec::new(),
        recent: None,
        recent_path: Vec::new(),
        parent,
        parent_tree: None,
        recent_lower: None,
        ours: Ours::new(was_empty),
        has_whiteouts: !was_empty,
        applied: Applied::default(),
    };
    applier.start(root)?;
    let mut reader = Reader::build(tar, request.observer);
    while let Some(entry) = reader.next_entry()? {
        applier.applied.entries += 1;
        applier
            .entry(&entry, &mut reader)
            .map_err(|error| error.with_path(OsStr::from_bytes(&entry.path)))?;
    }
    applier.leave(0)?;
    Ok(applier.applied)
}

/// The state of an unpacking. Its methods are in the modules beside: [`walk`] finds directories, [`place`] puts
/// entries into them, [`cover`] deletes.
struct Applier<'p> {
    form: LayerForm,
    identity: Identity,
    observed: bool,
    /// The directories from the root down to the last one that was needed.
    levels: Vec<Level>,
    /// The level that `recent_path` led to, while nothing happened that could change that.
    recent: Option<usize>,
    recent_path: Vec<u8>,
    parent: &'p mut dyn FnMut() -> Result<Option<Tree>>,
    /// What `parent` gave, once it was asked.
    parent_tree: Option<Option<Tree>>,
    /// The parent's directory that was looked at last, with the key of the level it shows through.
    recent_lower: Option<(Key, OwnedFd)>,
    ours: Ours,
    /// There may be whiteouts in the target.
    has_whiteouts: bool,
    applied: Applied,
}

/// A system call that failed because of what the entry is, or because of the host.
fn failed(errno: Errno, what: &str) -> Error {
    match errno {
        // A name, link target or path that is too long, a loop of links, a file where a directory should be, too many
        // links to one file, a size or an attribute beyond what the file system takes.
        Errno::NAMETOOLONG
        | Errno::LOOP
        | Errno::NOTDIR
        | Errno::ISDIR
        | Errno::MLINK
        | Errno::FBIG
        | Errno::INVAL
        | Errno::TOOBIG
        | Errno::RANGE
        | Errno::OVERFLOW => Error::new(ErrorKind::InvalidInput, what).with_source(io::Error::from(errno)),
        _ => Error::from_errno(errno, what),
    }
}

#[cfg(test)]
mod tests;
