//! Subvolumes inside a layer: a container may make some, as `machinectl`, Docker or snapper do. A snapshot does not
//! hold them: where one was there is an empty directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layerstack_core::mount::{Access, MountPlan};
use layerstack_core::tree::Tree;
use layerstack_core::{Error, ErrorKind, Result, kill_point};
use rustix::fs::{AtFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::layout::Layout;
use crate::names::{self, Names};
use crate::subvolume;
use crate::sys::{self, Key};

/// `BTRFS_ROOT_REF_KEY`: from a subvolume (the object) to one in it (the offset).
const CHILD: u32 = 156;

/// A subvolume inside another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nested {
    /// Where it is, from the root of the outermost.
    pub(crate) path: PathBuf,
    /// Its number.
    pub(crate) number: u64,
}

/// The subvolumes in the subvolume numbered `outer`, at any depth, each after the one that it is in. `frozen` is the
/// number of the tree in which the directories of `outer` are looked up: its own, or that of a snapshot of it.
pub(crate) fn list(file_system: impl AsFd, outer: u64, frozen: u64) -> Result<Vec<Nested>> {
    let file_system = file_system.as_fd();
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::new(), outer, frozen)];
    while let Some((above, outer, tree)) = open.pop() {
        let key = Key { tree: sys::ROOTS, object: outer, kind: CHILD, offsets: (0, u64::MAX) };
        let mut children = Vec::new();
        sys::search(file_system, key, |item| {
            // struct btrfs_root_ref: the directory, 64 bits of sequence, 16 of length, the name.
            let name = item.data.get(16..).and_then(names::name).map(|(name, _)| name);
            children.push((item.offset, item.number(0).zip(name)));
        })
        .map_err(|errno| Error::from_errno(errno, "find the subvolumes in the layer"))?;
        let mut names = Names::new(file_system, tree);
        for (number, reference) in children {
            let (directory, name) = reference.ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, format!("the name of subvolume {number} cannot be read"))
            })?;
            // Without the directory: made since the snapshot.
            let Some(directory) = names.directory(directory)? else { continue };
            let path = above.join(directory).join(OsStr::from_bytes(&name));
            found.push(Nested { path: path.clone(), number });
            open.push((path, number, number));
        }
    }
    Ok(found)
}

/// Puts snapshots of the subvolumes in the layer `from` in the place of the empty directories that a snapshot `to` of it
/// has for them. Nobody else knows of `to` yet. Gives how many there are.
pub(crate) fn copy(file_system: impl AsFd, from: (&Path, u64), to: (&Path, u64)) -> Result<usize> {
    let nested = list(file_system, from.1, to.1)?;
    let count = nested.len();
    if count == 0 {
        return Ok(0);
    }
    let (source, target) = (open(from.0)?, open(to.0)?);
    for Nested { path, number } in nested {
        let Some((above, name)) = names::split(&path) else { continue };
        // The layer may be changed meanwhile. Whatever is opened is inside it; whether it is the subvolume that was
        // found its number tells.
        let Ok(subvolume) = source.open_directory(&path) else { continue };
        let subvolume = subvolume::path_of(&subvolume);
        if subvolume::containing(&subvolume)? != number {
            continue;
        }
        let above = target.open_directory(above)?;
        let path = &path;
        let failed = |what: &'static str| move |errno| Error::from_errno(errno, what).with_path(path);
        let stat = rustix::fs::fstat(&above).map_err(failed("inspect the directory of"))?;
        rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR).map_err(failed("make room for"))?;
        subvolume::snapshot(&subvolume, &subvolume::path_of(&above).join(name), false)?;
        set_times(&above, &stat).map_err(failed("set the times of the directory of"))?;
        kill_point!("btrfs.create.nested");
    }
    Ok(count)
}

/// Deletes the subvolumes in a layer that nobody uses any more, the innermost first.
pub(crate) fn delete(layout: &Layout, outer: (&Path, u64)) -> Result<()> {
    // What was renamed a moment ago may have two names in the tree until it is written down.
    subvolume::commit(outer.0)?;
    let nested = list(layout.file_system(), outer.1, outer.1)?;
    subvolume::set_read_only(outer.0, false)?;
    let tree = open(outer.0)?;
    for Nested { path, .. } in &nested {
        let inside = tree.open_directory(path)?;
        subvolume::set_read_only(&subvolume::path_of(&inside), false)?;
    }
    for Nested { path, number } in nested.into_iter().rev() {
        let Some((above, name)) = names::split(&path) else { continue };
        let above = tree.open_directory(above)?;
        if !layout.delete(&subvolume::path_of(&above).join(name), number)? {
            return Err(
                Error::new(ErrorKind::InUse, "a subvolume appeared in the layer meanwhile").with_path(path)
            );
        }
        kill_point!("btrfs.remove.nested");
    }
    Ok(())
}

fn open(path: &Path) -> Result<Tree> {
    Tree::open(&MountPlan::bind(path, Access::ReadOnly, ""))
}

fn set_times(directory: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanoseconds(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat.st_mtime_nsec) },
    };
    rustix::fs::futimens(directory, &times)
}

/// The kernel gives 0 to 999,999,999, in a type that differs between architectures.
fn nanoseconds(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(0)
}
