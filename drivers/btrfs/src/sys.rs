//! The ioctls of btrfs that libbtrfsutil lacks: linux/btrfs.h and linux/btrfs_tree.h, whose names the comments have.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, Updater, ioctl, opcode};

/// `BTRFS_IOCTL_MAGIC`
const MAGIC: u8 = 0x94;

/// Which items of a tree are searched for; both ends of each range included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// The tree's number: [`ROOTS`], [`QUOTAS`], [`UUIDS`], or a subvolume's.
    pub(crate) tree: u64,
    /// The object that all of the items belong to.
    pub(crate) object: u64,
    /// The type of the items.
    pub(crate) kind: u32,
    /// From and to which offset.
    pub(crate) offsets: (u64, u64),
}

/// The tree of roots: `BTRFS_ROOT_TREE_OBJECTID`.
pub(crate) const ROOTS: u64 = 1;
/// `BTRFS_QUOTA_TREE_OBJECTID`
pub(crate) const QUOTAS: u64 = 8;
/// `BTRFS_UUID_TREE_OBJECTID`
pub(crate) const UUIDS: u64 = 9;

/// One item of a tree. Its data are as they are on disk: packed, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    /// The object that it belongs to.
    object: u64,
    /// Its type.
    pub(crate) kind: u32,
    /// The last part of its key.
    pub(crate) offset: u64,
    /// What it holds.
    pub(crate) data: &'a [u8],
}

impl Item<'_> {
    /// The 64 bits at `at`; None past the end.
    pub(crate) fn number(&self, at: usize) -> Option<u64> {
        self.data.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// `struct btrfs_ioctl_search_key`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct SearchKey {
    tree_id: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: u32,
    unused_too: [u64; 4],
}

/// `struct btrfs_ioctl_search_args_v2` without its buffer, by which the request's number is made.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct SearchHead {
    key: SearchKey,
    buf_size: u64,
}

/// The largest item fits: one is never larger than a node of a tree, and that has at most 64 KiB.
const ROOM: usize = 64 << 10;

/// `struct btrfs_ioctl_search_args_v2` with its buffer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Search {
    head: SearchHead,
    buffer: [u8; ROOM],
}

/// `struct btrfs_ioctl_search_header`: transid, objectid, offset in 64 bits, type and len in 32.
const ITEM_HEAD: usize = 32;

/// `BTRFS_IOC_TREE_SEARCH_V2`
const TREE_SEARCH: Opcode = opcode::read_write::<SearchHead>(MAGIC, 17);

/// Shows all items in a range to `visit`, by their order. `ENOENT` where there is no such tree. Needs `CAP_SYS_ADMIN`.
pub(crate) fn search(file: impl AsFd, key: Key, mut visit: impl FnMut(&Item<'_>)) -> Result<(), Errno> {
    let first = (key.object, key.kind, key.offsets.0);
    let last = (key.object, key.kind, key.offsets.1);
    search_between(file, key.tree, first, last, 0, |item| {
        visit(item);
        true
    })
}

/// Shows to `visit` the items of all files of a subvolume that lie in a block written in the transaction `since` or
/// later, until it gives false. What else is in such a block is shown too.
pub(crate) fn search_newer(
    file: impl AsFd,
    tree: u64,
    since: u64,
    visit: impl FnMut(&Item<'_>) -> bool,
) -> Result<(), Errno> {
    search_between(file, tree, (FIRST_FILE, 0, 0), LAST_OF_FILES, since, visit)
}

/// Shows to `visit` the first item of a subvolume's file with this number, which is its inode; where there is none, that
/// of the next one. Gives its number, and None past the last.
pub(crate) fn search_file(
    file: impl AsFd,
    tree: u64,
    number: u64,
    visit: impl FnOnce(&Item<'_>),
) -> Result<Option<u64>, Errno> {
    let mut search = Search::new(tree, (number, 0, 0), LAST_OF_FILES, 0);
    if search.run(&file, 1)? == 0 {
        return Ok(None);
    }
    let (item, _) = split_item(&search.buffer).ok_or(Errno::IO)?;
    visit(&item);
    Ok(Some(item.object))
}

/// `BTRFS_FIRST_FREE_OBJECTID`: the first number of a file in a subvolume, that of its root.
pub(crate) const FIRST_FILE: u64 = 256;

/// The last key that the items of a file can have, whose number is at most `BTRFS_LAST_FREE_OBJECTID`.
const LAST_OF_FILES: (u64, u32, u64) = (u64::MAX - 255, u8::MAX as u32, u64::MAX);

/// From the first to the last key, each of an object, a type and an offset.
fn search_between(
    file: impl AsFd,
    tree: u64,
    first: (u64, u32, u64),
    last: (u64, u32, u64),
    since: u64,
    mut visit: impl FnMut(&Item<'_>) -> bool,
) -> Result<(), Errno> {
    let mut search = Search::new(tree, first, last, since);
    loop {
        let found = search.run(&file, u32::MAX)?;
        let mut bytes = &search.buffer[..];
        let mut shown = None;
        for _ in 0..found {
            let (item, rest) = split_item(bytes).ok_or(Errno::IO)?;
            if !visit(&item) {
                return Ok(());
            }
            shown = Some((item.object, item.kind, item.offset));
            bytes = rest;
        }
        // The three parts of a key are one number.
        let next = match shown {
            None => return Ok(()),
            Some((object, kind, offset)) if offset < u64::MAX => (object, kind, offset + 1),
            Some((object, kind, _)) if kind < u32::from(u8::MAX) => (object, kind + 1, 0),
            Some((object, ..)) => (object.saturating_add(1), 0, 0),
        };
        if next > last {
            return Ok(());
        }
        let key = &mut search.head.key;
        (key.min_objectid, key.min_type, key.min_offset) = next;
    }
}

impl Search {
    fn new(tree: u64, first: (u64, u32, u64), last: (u64, u32, u64), since: u64) -> Box<Self> {
        Box::new(Self {
            head: SearchHead {
                key: SearchKey {
                    tree_id: tree,
                    min_objectid: first.0,
                    max_objectid: last.0,
                    min_offset: first.2,
                    max_offset: last.2,
                    min_transid: since,
                    max_transid: u64::MAX,
                    min_type: first.1,
                    max_type: last.1,
                    nr_items: 0,
                    unused: 0,
                    unused_too: [0; 4],
                },
                buf_size: ROOM as u64,
            },
            buffer: [0; ROOM],
        })
    }

    /// Fills the buffer with at most so many items. Gives how many.
    fn run(&mut self, file: impl AsFd, most: u32) -> Result<u32, Errno> {
        self.head.key.nr_items = most;
        // SAFETY: TREE_SEARCH reads and fills a struct btrfs_ioctl_search_args_v2, whose layout Search has, its buffer
        // of the size that buf_size says; any bytes are a valid value of it.
        let request = unsafe { Updater::<TREE_SEARCH, Search>::new(self) };
        // SAFETY: as above; the request borrows the memory for the call.
        unsafe { ioctl(&file, request) }?;
        Ok(self.head.key.nr_items)
    }
}

/// Takes the first item off what a search gave; None where it contradicts itself.
fn split_item(bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(ITEM_HEAD)?;
    // The kernel's own byte order here, unlike in the items.
    let long = |at: usize| Some(u64::from_ne_bytes(*head.get(at..)?.first_chunk()?));
    let short = |at: usize| Some(u32::from_ne_bytes(*head.get(at..)?.first_chunk()?));
    let (data, rest) = rest.split_at_checked(short(28)? as usize)?;
    Some((Item { object: long(8)?, kind: short(24)?, offset: long(16)?, data }, rest))
}

/// `struct btrfs_ioctl_send_args`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct SendArgs {
    send_fd: i64,
    clone_sources_count: u64,
    clone_sources: usize,
    parent_root: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}

/// `BTRFS_IOC_SEND`
const SEND: Opcode = opcode::write::<SendArgs>(MAGIC, 38);
/// `BTRFS_SEND_FLAG_NO_FILE_DATA`
const NO_FILE_DATA: u64 = 1;
/// `BTRFS_SEND_FLAG_VERSION`: kernel 6.0.
const VERSION: u64 = 8;

/// Writes to `sink` by which steps the read-only subvolume numbered `parent` becomes the read-only subvolume
/// `layer`, without the content of files; in the form `version`, from 2 on only where the kernel knows it. Blocks this
/// thread, on which a sink that is closed meanwhile raises no signal any more.
pub(crate) fn send(layer: impl AsFd, sink: &OwnedFd, parent: u64, version: u32) -> Result<(), Errno> {
    ignore_closed_sinks();
    let arguments = SendArgs {
        send_fd: i64::from(sink.as_raw_fd()),
        clone_sources_count: 0,
        clone_sources: 0,
        parent_root: parent,
        flags: if version > 1 { NO_FILE_DATA | VERSION } else { NO_FILE_DATA },
        version: if version > 1 { version } else { 0 },
        reserved: [0; 28],
    };
    // SAFETY: SEND reads a struct btrfs_ioctl_send_args, whose layout SendArgs has; it follows no pointer, since there
    // are no clone sources; the sink is borrowed, so its descriptor is open for the whole call.
    let request = unsafe { Setter::<SEND, SendArgs>::new(arguments) };
    // SAFETY: as above; the request owns the memory that the kernel reads, and outlives the call.
    unsafe { ioctl(layer, request) }
}

/// The kernel writes to a sink on behalf of the thread that sends, and raises `SIGPIPE` in it where nobody reads. Not
/// every program ignores that signal.
fn ignore_closed_sinks() {
    // SAFETY: a sigset_t of zeros is a value of the type; sigemptyset gives it the meaning "none".
    let mut signals: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a local value, valid for writing.
    unsafe { libc::sigemptyset(&raw mut signals) };
    // SAFETY: as above; SIGPIPE is a signal's number.
    unsafe { libc::sigaddset(&raw mut signals, libc::SIGPIPE) };
    // SAFETY: the set is valid for reading; the old mask is not asked for. Touches this thread alone.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) };
}

/// `struct btrfs_ioctl_qgroup_limit_args`, and of `struct btrfs_qgroup_limit` in it the fields in order.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct LimitArgs {
    qgroupid: u64,
    flags: u64,
    max_rfer: u64,
    max_excl: u64,
    rsv_rfer: u64,
    rsv_excl: u64,
}

/// `BTRFS_IOC_QGROUP_LIMIT`, whose number says that it reads while it writes.
const QGROUP_LIMIT: Opcode = opcode::read::<LimitArgs>(MAGIC, 43);
/// `BTRFS_QGROUP_LIMIT_MAX_EXCL`
const MAX_EXCL: u64 = 2;

/// Limits what a quota group has for itself, in bytes.
pub(crate) fn limit_exclusive(file: impl AsFd, group: u64, bytes: u64) -> Result<(), Errno> {
    let mut arguments = LimitArgs {
        qgroupid: group,
        flags: MAX_EXCL,
        max_rfer: 0,
        max_excl: bytes,
        rsv_rfer: 0,
        rsv_excl: 0,
    };
    // SAFETY: QGROUP_LIMIT reads a struct btrfs_ioctl_qgroup_limit_args, whose layout LimitArgs has.
    let request = unsafe { Updater::<QGROUP_LIMIT, LimitArgs>::new(&mut arguments) };
    // SAFETY: as above; the request borrows the memory for the call.
    unsafe { ioctl(file, request) }
}

/// `struct btrfs_ioctl_qgroup_create_args`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct CreateArgs {
    create: u64,
    qgroupid: u64,
}

/// `BTRFS_IOC_QGROUP_CREATE`, which also removes.
const QGROUP_CREATE: Opcode = opcode::write::<CreateArgs>(MAGIC, 42);

/// Removes a quota group. `ENOENT` where there is none, `ENOTCONN` where quota is off, `EBUSY` where the kernel keeps it
/// until the last of what it counts is gone.
pub(crate) fn remove_group(file: impl AsFd, group: u64) -> Result<(), Errno> {
    // SAFETY: QGROUP_CREATE reads a struct btrfs_ioctl_qgroup_create_args, whose layout CreateArgs has.
    let request =
        unsafe { Setter::<QGROUP_CREATE, CreateArgs>::new(CreateArgs { create: 0, qgroupid: group }) };
    // SAFETY: as above; the request owns the memory that the kernel reads, and outlives the call.
    unsafe { ioctl(file, request) }
}

/// Space of one kind: `struct btrfs_ioctl_space_info`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Space {
    /// What it is for: [`DATA`], [`METADATA`], and bits of the kind of redundancy.
    pub(crate) flags: u64,
    /// Bytes set apart for it.
    pub(crate) total: u64,
    /// Bytes of them that are used.
    pub(crate) used: u64,
}

/// `BTRFS_BLOCK_GROUP_DATA`
pub(crate) const DATA: u64 = 1;
/// `BTRFS_BLOCK_GROUP_METADATA`
pub(crate) const METADATA: u64 = 4;
/// `BTRFS_SPACE_INFO_GLOBAL_RSV`: a part of the metadata, kept back, with a line of its own.
pub(crate) const RESERVE: u64 = 1 << 49;

/// Kinds that fit: there are three, mixed ones, the reserve, and each once more while it is converted.
const KINDS: usize = 32;

/// `struct btrfs_ioctl_space_args` without its buffer, by which the request's number is made.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct SpaceHead {
    slots: u64,
    count: u64,
}

/// `struct btrfs_ioctl_space_args` with its buffer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct SpaceArgs {
    head: SpaceHead,
    spaces: [Space; KINDS],
}

/// `BTRFS_IOC_SPACE_INFO`
const SPACE_INFO: Opcode = opcode::read_write::<SpaceHead>(MAGIC, 20);

/// What the file system has set apart, by kind.
pub(crate) fn spaces(file: impl AsFd) -> Result<Vec<Space>, Errno> {
    let mut arguments =
        SpaceArgs { head: SpaceHead { slots: KINDS as u64, count: 0 }, spaces: [Space::default(); KINDS] };
    // SAFETY: SPACE_INFO fills a struct btrfs_ioctl_space_args, whose layout SpaceArgs has, with room for as many as
    // `slots` says; any bytes are a valid value of it.
    let request = unsafe { Updater::<SPACE_INFO, SpaceArgs>::new(&mut arguments) };
    // SAFETY: as above; the request borrows the memory for the call.
    unsafe { ioctl(file, request) }?;
    let count = usize::try_from(arguments.head.count).unwrap_or(KINDS).min(KINDS);
    Ok(arguments.spaces[..count].to_vec())
}

/// `struct btrfs_ioctl_fs_info_args`, of which the first two fields matter.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct FsInfo {
    max_id: u64,
    num_devices: u64,
    rest: [u64; 126],
}

/// `struct btrfs_ioctl_dev_info_args`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct DevInfo {
    devid: u64,
    uuid: [u8; 16],
    bytes_used: u64,
    total_bytes: u64,
    unused: [u64; 379],
    path: [u8; 1024],
}

/// `BTRFS_IOC_FS_INFO`
const FS_INFO: Opcode = opcode::read::<FsInfo>(MAGIC, 31);
/// `BTRFS_IOC_DEV_INFO`
const DEV_INFO: Opcode = opcode::read_write::<DevInfo>(MAGIC, 30);

/// Bytes of the devices that are not set apart for anything yet.
pub(crate) fn unallocated(file: impl AsFd) -> Result<u64, Errno> {
    // SAFETY: FS_INFO fills a struct btrfs_ioctl_fs_info_args, whose size FsInfo has; any bytes are a valid value.
    let request = unsafe { Getter::<FS_INFO, FsInfo>::new() };
    // SAFETY: as above; the request owns the memory that the kernel fills.
    let found = unsafe { ioctl(&file, request) }?;
    let mut free = 0_u64;
    for devid in 1..=found.max_id {
        let mut device = DevInfo {
            devid,
            uuid: [0; 16],
            bytes_used: 0,
            total_bytes: 0,
            unused: [0; 379],
            path: [0; 1024],
        };
        // SAFETY: DEV_INFO reads and fills a struct btrfs_ioctl_dev_info_args, whose layout DevInfo has; any bytes are a
        // valid value of it.
        let request = unsafe { Updater::<DEV_INFO, DevInfo>::new(&mut device) };
        // SAFETY: as above; the request borrows the memory for the call.
        match unsafe { ioctl(&file, request) } {
            Ok(()) => free += device.total_bytes.saturating_sub(device.bytes_used),
            // A number that no device has (any more).
            Err(Errno::NODEV) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// The sizes and offsets that a C program prints for the kernel's headers.
    #[test]
    fn structures_have_the_kernels_layout() {
        assert_eq!(size_of::<SearchKey>(), 104);
        assert_eq!(size_of::<SearchHead>(), 112);
        assert_eq!(offset_of!(Search, buffer), 112);
        #[cfg(target_pointer_width = "64")]
        assert_eq!((size_of::<SendArgs>(), offset_of!(SendArgs, version)), (72, 40));
        assert_eq!(size_of::<LimitArgs>(), 48);
        assert_eq!(size_of::<CreateArgs>(), 16);
        assert_eq!(size_of::<SpaceHead>(), 16);
        assert_eq!(size_of::<FsInfo>(), 1024);
        assert_eq!(size_of::<DevInfo>(), 4096);
        assert_eq!(offset_of!(DevInfo, total_bytes), 32);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!(TREE_SEARCH, 0xc070_9411);
        assert_eq!(SEND, 0x4048_9426);
        assert_eq!((QGROUP_LIMIT, QGROUP_CREATE), (0x8030_942b, 0x4010_942a));
        assert_eq!((SPACE_INFO, FS_INFO, DEV_INFO), (0xc010_9414, 0x8400_941f, 0xd000_941e));
    }

    #[test]
    fn items_are_taken_apart_and_broken_ones_refused() {
        let mut bytes = vec![0; 8];
        bytes.extend(5_u64.to_ne_bytes());
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend(3_u32.to_ne_bytes());
        bytes.extend(b"abc...");
        let item = Item { object: 5, kind: 1, offset: 7, data: b"abc" };
        assert_eq!(split_item(&bytes), Some((item, &b"..."[..])));
        assert_eq!(split_item(&bytes[..34]), None);
        assert_eq!(split_item(&bytes[..31]), None);
    }
}
