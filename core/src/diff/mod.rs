//! What a layer changed against its parent.
//!
//! Both are looked at as whole trees: an overlay layer through an overlay mount, so that whiteouts, opaque
//! directories and the like do not appear. A driver narrows down where to look ([`Candidates`]); each candidate is
//! then compared, so the outcome is the same as that of walking both trees, only sooner.
//!
//! # What is a change
//! | in the layer and in the parent | is a change when |
//! |---|---|
//! | anything | the type, the permissions, the owner, the group or an extended attribute differ |
//! | a file, a symbolic link, a device, a FIFO, a socket | also when size, mtime, target or device number differ |
//! | a file of which all that is equal | also when the content differs, as far as that is looked at: see [`Candidates`] |
//! | a directory | *not* when only its mtime differs (docker's rule) |
//!
//! The directories above a change count as modified, and come before it; the root does not. Where a directory took
//! the place of a file or a file that of a directory, the path is modified; of what was below a directory that is
//! gone nothing is said. The order is depth first, siblings by their bytes.
//!
//! # What is in the tar
//! All changes, and what besides them makes the parent's tree equal to the layer's when it is applied:
//! - a directory of which only the mtime differs;
//! - the root (`./`), as the directory above every change: unpacking into it would leave it with another mtime;
//! - files whose metadata and content are equal but which share an inode otherwise than in the parent. The
//!   first name in the archive has the content, the others are links to it, so that no link leads to a lower
//!   layer: not every applier can follow one there. A file of which another name is gone is left out. Where only
//!   the end of the walk shows that such a name has to be there, it comes at the end, after the directories it is in.
//!
//! A deletion is an empty file `.wh.NAME` in the place that the name itself would have. Whole directories are
//! not made opaque (image-spec, layer.md: explicit whiteouts are preferred). Sockets are left out: a tar cannot hold
//! one; a socket in the place of something else is a deletion. The bytes depend on the two trees alone.
//!
//! # A layer that is written to meanwhile
//! What vanishes between being listed and being looked at counts as absent. A file is written with the size that it
//! has when it is opened; one that becomes shorter while it is read is an error, as is one that cannot be read.

mod change;

mod compare;

mod export;

mod links;

mod list;

mod walk;

pub use change::{Change, ChangeKind};

use std::io::Write;

use crate::driver::Candidates;
use crate::error::Result;
use crate::tree::Tree;

/// What an export wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct DiffSummary {
    /// The number of entries in the tar, whiteouts included.
    pub entries: u64,
    /// The bytes of file content in it, without headers and padding.
    pub bytes: u64,
}

/// The changes of a layer against `base`, in order. Without a base all that is in the layer is added, and the
/// candidates are not looked at.
///
/// # Errors
/// What reading the trees or the candidates gives, naming the path.
pub fn changes(layer: &Tree, base: Option<&Tree>, candidates: Candidates) -> Result<Vec<Change>> {
    let mut list = list::List::default();
    walk::walk(layer, base, candidates, &mut list)?;
    Ok(list.into_changes())
}

/// Writes the changes of a layer against `base` as an OCI layer tar. Without a base that is the whole layer, and
/// the candidates are not looked at. After an error `out` holds an incomplete archive.
///
/// # Errors
/// What reading the trees or the candidates and what writing gives, naming the path; `InvalidInput` for a changed
/// file whose name starts with `.wh.`: a layer tar cannot hold it.
pub fn export(
    layer: &Tree,
    base: Option<&Tree>,
    candidates: Candidates,
    out: &mut dyn Write,
) -> Result<DiffSummary> {
    let mut export = export::Export::new(layer, out);
    walk::walk(layer, base, candidates, &mut export)?;
    export.finish()
}

#[cfg(test)]
mod tests;
