//! How much of a layer was changed, roughly and quickly: whether a send is worth its while.
//!
//! A send takes tens of microseconds for each file that it names, a walk one or two for each that it passes. So where a
//! large share of all files was changed, a walk over everything is what takes less. The blocks of the layer's tree that
//! were written after the layer was made hold the inodes that were changed, and their neighbours; each inode says when
//! it was changed last. How large the tree is its root says.

use std::os::fd::AsFd;

use layerstack_core::{Error, Result};

use crate::sys::{self, Key};

/// `BTRFS_INODE_ITEM_KEY`
const INODE: u32 = 1;
/// `BTRFS_ROOT_ITEM_KEY`
const ROOT: u32 = 132;

/// So many changes a send tells as quickly as it can be found out whether there are more.
const FEW: u64 = 2000;

/// What an item takes in a block besides its data: `struct btrfs_item`.
const ITEM: u64 = 25;

/// Whether more than about a sixth of all files in the tree of a subvolume were changed after the transaction `since`.
/// Looks no further than it must to tell.
pub(crate) fn is_large(file_system: impl AsFd, tree: u64, since: u64) -> Result<bool> {
    let failed = |errno| Error::from_errno(errno, "look for what the layer changed");
    let mut used = 0;
    let key = Key { tree: sys::ROOTS, object: tree, kind: ROOT, offsets: (0, u64::MAX) };
    // struct btrfs_root_item: an inode of 160 bytes, four numbers, the bytes that are used.
    sys::search(&file_system, key, |item| used = item.number(192).unwrap_or(0)).map_err(failed)?;
    let (mut bytes, mut inodes, mut changed) = (0_u64, 0_u64, 0_u64);
    let mut large = false;
    sys::search_newer(&file_system, tree, since + 1, |item| {
        bytes += item.data.len() as u64 + ITEM;
        if item.kind == INODE {
            inodes += 1;
            // struct btrfs_inode_item: the transaction that made it, and that which changed it last.
            changed += u64::from(item.number(8).is_some_and(|last| last > since));
            // Of the blocks that are used a part is never full.
            large = changed > FEW
                && u128::from(changed) * u128::from(bytes) * 8 > u128::from(inodes) * u128::from(used);
        }
        !large
    })
    .map_err(failed)?;
    Ok(large)
}
