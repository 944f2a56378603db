//! What a layer occupies: as the file system counts it where quota is on, else by looking at what the layer changed, or,
//! where it has no parent, at all of it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use layerstack_core::driver::{Candidates, Scope, Usage};
use layerstack_core::fs::{sync_file_system, tree_usage};
use layerstack_core::mount::{Access, MountPlan};
use layerstack_core::tree::Tree;
use layerstack_core::{Error, ErrorKind, LayerId, Result};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::layout::Layout;
use crate::quota::{self, Count};
use crate::subvolume::Subvolume;
use crate::{candidates, names, nested};

/// What a layer occupies.
pub(crate) fn of(layout: &Layout, id: &LayerId) -> Result<Usage> {
    let (path, layer) = layout.subvolume(id)?;
    let parent = layout.parent(&layer)?;
    if !layer.read_only {
        // Counted is what was written down.
        sync_file_system(&path)?;
    }
    if let Some(count) = count(layout, &layer)? {
        let bytes = match parent {
            None => count.referenced,
            Some(parent) => {
                // What children of the layer share with it is not exclusive any more.
                let (_, parent) = layout.subvolume(&parent)?;
                let below = self::count(layout, &parent)?.map_or(count.referenced, |below| below.referenced);
                count.exclusive.max(count.referenced.saturating_sub(below))
            }
        };
        let shared = count.referenced.saturating_sub(count.exclusive);
        return Ok(Usage::counted(bytes).with_exclusive(count.exclusive).with_shared(shared));
    }
    match parent {
        None => whole(&path),
        Some(_) => match candidates::of(layout, id)? {
            Candidates::Paths(candidates) => {
                let tree = open(&path)?;
                let mut sum = Usage::new(0, 0);
                for candidate in candidates {
                    let candidate = candidate?;
                    let found = one(&tree, &candidate.path, candidate.scope)?;
                    sum = Usage::new(
                        sum.bytes + found.bytes,
                        sum.inodes.unwrap_or(0) + found.inodes.unwrap_or(0),
                    );
                }
                Ok(sum)
            }
            Candidates::All { .. } => whole(&path),
        },
    }
}

/// The counts of a subvolume and of those in it.
fn count(layout: &Layout, layer: &Subvolume) -> Result<Option<Count>> {
    let Some(mut sum) = quota::count(layout.file_system(), layer.number)? else { return Ok(None) };
    for nested in nested::list(layout.file_system(), layer.number, layer.number)? {
        if let Some(count) = quota::count(layout.file_system(), nested.number)? {
            sum.referenced += count.referenced;
            sum.exclusive += count.exclusive;
        }
    }
    Ok(Some(sum))
}

fn whole(path: &Path) -> Result<Usage> {
    tree_usage(open(path)?.root(), path)
}

/// What is at a path where the layer may differ from its parent.
fn one(tree: &Tree, path: &Path, scope: Scope) -> Result<Usage> {
    let failed = |errno| Error::from_errno(errno, "measure").with_path(path);
    let gone = Usage::new(0, 0);
    let stat = match names::split(path) {
        None => rustix::fs::fstat(tree.root()).map_err(failed)?,
        Some((above, name)) => {
            let above = match tree.open_directory(above) {
                Ok(above) => above,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(gone),
                Err(error) => return Err(error),
            };
            let name = CString::new(name.as_bytes()).map_err(|_| failed(Errno::INVAL))?;
            match rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(gone),
                Err(errno) => return Err(failed(errno)),
            }
        }
    };
    if scope == Scope::Subtree && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return match tree.open_directory(path) {
            Ok(directory) => tree_usage(directory, path),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(gone),
            Err(error) => Err(error),
        };
    }
    // In units of 512 bytes, whatever the file system's blocks are: inode(7).
    Ok(Usage::new(u64::try_from(stat.st_blocks).unwrap_or(0) * 512, 1))
}

fn open(path: &Path) -> Result<Tree> {
    Tree::open(&MountPlan::bind(path, Access::ReadOnly, ""))
}
