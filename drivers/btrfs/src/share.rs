//! How much of a layer was changed, roughly and quickly: whether a send is worth its while.
//!
//! A send takes tens of microseconds for each file that it names, a walk one or two for each that it passes. So where a
//! large share of all files was changed, a walk over everything is what takes less. Each inode says when it was changed
//! last. The blocks of the layer's tree that were written after the layer was made hold the inodes that were changed, and
//! their neighbours. Once these are not few, a sample of all inodes tells where most were changed; else they are counted,
//! and how large the tree is its root says.

use std::os::fd::AsFd;

use layerstack_core::{Error, Result};
use rustix::io::Errno;

use crate::sys::{self, Item, Key};

/// `BTRFS_INODE_ITEM_KEY`
const INODE: u32 = 1;
/// `BTRFS_ROOT_ITEM_KEY`
const ROOT: u32 = 132;

/// So many changes a send tells as quickly as it can be found out whether they are most.
const FEW: u64 = 200;

/// So many changes a send tells as quickly as it can be counted whether they are a large share.
const SOME: u64 = 2000;

/// What an item takes in a block besides its data: `struct btrfs_item`.
const ITEM: u64 = 25;

/// So many inodes are looked at to see whether most were changed.
const SAMPLE: u64 = 32;

/// Whether more than about a sixth of all files in the tree of a subvolume were changed after the transaction `since`.
/// Looks no further than it must to tell.
pub(crate) fn is_large(file_system: impl AsFd, tree: u64, since: u64) -> Result<bool> {
    let is_large = || {
        Ok(is_more(&file_system, tree, since, |seen| seen.changed > FEW)?
            && (is_most(&file_system, tree, since)? || is_a_sixth(&file_system, tree, since)?))
    };
    is_large().map_err(|errno| Error::from_errno(errno, "look for what the layer changed"))
}

/// What was seen of the items of a tree.
#[derive(Debug, Default)]
struct Seen {
    bytes: u64,
    inodes: u64,
    changed: u64,
}

/// Whether there is more than `enough` says, in the blocks written after a transaction.
fn is_more(
    file_system: impl AsFd,
    tree: u64,
    since: u64,
    enough: impl Fn(&Seen) -> bool,
) -> Result<bool, Errno> {
    let (mut seen, mut is_more) = (Seen::default(), false);
    sys::search_newer(file_system, tree, since + 1, |item| {
        seen.bytes += item.data.len() as u64 + ITEM;
        if item.kind == INODE {
            seen.inodes += 1;
            seen.changed += u64::from(is_changed(item, since));
            is_more = enough(&seen);
        }
        !is_more
    })?;
    Ok(is_more)
}

fn is_a_sixth(file_system: impl AsFd, tree: u64, since: u64) -> Result<bool, Errno> {
    let mut used = 0;
    let key = Key { tree: sys::ROOTS, object: tree, kind: ROOT, offsets: (0, u64::MAX) };
    // struct btrfs_root_item: an inode of 160 bytes, four numbers, the bytes that are used.
    sys::search(&file_system, key, |item| used = item.number(192).unwrap_or(0))?;
    is_more(file_system, tree, since, |seen| {
        // Of the blocks that are used a part is never full.
        let [bytes, inodes, changed, used] = [seen.bytes, seen.inodes, seen.changed, used].map(u128::from);
        seen.changed > SOME && changed * bytes * 8 > inodes * used
    })
}

/// Whether most of the files were changed, as far as a few tell that lie at the same distance from each other.
fn is_most(file_system: impl AsFd, tree: u64, since: u64) -> Result<bool, Errno> {
    let last = last_file(&file_system, tree)?;
    let step = (last - sys::FIRST_FILE) / SAMPLE;
    let (mut looked_at, mut changed) = (None, 0);
    for place in 0..SAMPLE {
        let number = sys::FIRST_FILE + place * step;
        // One that stands for many places, between which files have gone, tells of itself alone.
        if looked_at.is_some_and(|found| number <= found) {
            continue;
        }
        looked_at = sys::search_file(&file_system, tree, number, |item| {
            changed += u64::from(is_changed(item, since));
        })?;
    }
    Ok(changed > SAMPLE / 2)
}

/// The largest number of a file in a subvolume.
fn last_file(file_system: impl AsFd, tree: u64) -> Result<u64, Errno> {
    let (mut there, mut beyond) = (sys::FIRST_FILE, u64::MAX);
    while beyond - there > 1 {
        let middle = there + (beyond - there) / 2;
        match sys::search_file(&file_system, tree, middle, |_| ())? {
            Some(found) => there = found,
            None => beyond = middle,
        }
    }
    Ok(there)
}

/// Whether an inode was changed after a transaction.
fn is_changed(inode: &Item<'_>, since: u64) -> bool {
    // struct btrfs_inode_item: the transaction that made it, and that which changed it last.
    inode.number(8).is_some_and(|last| last > since)
}
