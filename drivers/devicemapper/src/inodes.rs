//! Which inodes differ between two file systems, one of which is a snapshot of the other.
//!
//! Whatever changes in a file, its inode does: a change of content, size, owner, attributes or names moves its ctime. So
//! the files that differ are those whose inodes lie in blocks that differ, and are not the same there. Only those blocks
//! are read. ext4 has its inodes in tables whose places its group descriptors tell
//! (Documentation/filesystems/ext4/). xfs puts them anywhere, but since version 5 each says its own number, which says
//! where it has to be (Documentation/filesystems/xfs/xfs-self-describing-metadata.rst).
//!
//! When a file was last read says nothing of it, so inodes that differ in that alone count as equal.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::{Mode, OFlags};

use crate::options::FileSystem;
use crate::sys;

/// Inodes that differ, each with how many names it has in the snapshot.
pub(crate) type Changed = HashMap<u64, u32>;

/// The inodes that differ between two devices, which differ in no more than the given blocks of `block_size` bytes. None
/// where the file system has a form that is not read here.
pub(crate) fn changed(
    kind: FileSystem,
    layer: &Device,
    parent: &Device,
    blocks: &[u64],
    block_size: u64,
) -> Result<Option<Changed>> {
    let map: Option<Box<dyn InodeMap>> = match kind {
        FileSystem::Ext4 => Ext4::read(layer)?.map(|map| Box::new(map) as Box<dyn InodeMap>),
        FileSystem::Xfs => Xfs::read(layer)?.map(|map| Box::new(map) as Box<dyn InodeMap>),
    };
    let Some(map) = map else { return Ok(None) };
    let mut changed = Changed::new();
    for block in blocks {
        let start = block * block_size;
        let ranges = map.ranges(start..start + block_size);
        if ranges.is_empty() {
            continue;
        }
        let (new, old) = (layer.read(start, block_size)?, parent.read(start, block_size)?);
        for range in ranges {
            let size = map.inode_size();
            for place in range.step_by(size) {
                let offset = usize::try_from(place - start).unwrap_or(0);
                let (Some(new), Some(old)) = (new.get(offset..offset + size), old.get(offset..offset + size))
                else {
                    continue;
                };
                if new != old && map.differ(new, old, place) {
                    changed.insert(map.number(place), map.links(new));
                }
            }
        }
    }
    Ok(Some(changed))
}

/// Where inodes are and what is in them.
trait InodeMap {
    /// The parts of a range of bytes in which inodes may be; each starts and ends with one.
    fn ranges(&self, range: Range<u64>) -> Vec<Range<u64>>;
    /// In bytes.
    fn inode_size(&self) -> usize;
    /// The number of the inode at a place.
    fn number(&self, place: u64) -> u64;
    /// Whether two states of the inode at a place differ in what is looked at.
    fn differ(&self, new: &[u8], old: &[u8], place: u64) -> bool;
    /// How many names it has.
    fn links(&self, inode: &[u8]) -> u32;
}

/// Whether two states of an inode differ outside the given ranges.
fn differ_outside(new: &[u8], old: &[u8], ignored: &[Range<usize>]) -> bool {
    new.iter()
        .zip(old)
        .enumerate()
        .any(|(offset, (new, old))| new != old && !ignored.iter().any(|range| range.contains(&offset)))
}

/// A device, read past the cache of its node.
#[derive(Debug)]
pub(crate) struct Device {
    file: File,
    size: u64,
}

/// What O_DIRECT wants memory to be aligned to, in bytes: no device has larger blocks.
const ALIGNMENT: usize = 4096;

impl Device {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let fail = |errno| Error::from_errno(errno, "open the device").with_path(path);
        let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(fail)?);
        let size = sys::device_size(&file).map_err(fail)?;
        Ok(Self { file, size })
    }

    /// Reads a part, both ends of which are multiples of [`ALIGNMENT`]. What is beyond the end reads as zeros.
    fn read(&self, start: u64, length: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let there = usize::try_from(self.size.saturating_sub(start)).unwrap_or(usize::MAX).min(length);
        let mut buffer = vec![0; length + ALIGNMENT];
        let offset = buffer.as_ptr().align_offset(ALIGNMENT);
        self.file
            .read_exact_at(&mut buffer[offset..offset + there], start)
            .map_err(|error| Error::from_io(error, "read the device"))?;
        Ok(buffer[offset..offset + length].to_vec())
    }
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the layer's file system cannot be read: {what}"))
}

fn little16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

fn little32(bytes: &[u8], offset: usize) -> u32 {
    u32::from(little16(bytes, offset)) | u32::from(little16(bytes, offset + 2)) << 16
}

fn big(bytes: &[u8], range: Range<usize>) -> u64 {
    bytes[range].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The tables of an ext4.
#[derive(Debug)]
struct Ext4 {
    inode_size: usize,
    inodes_per_group: u64,
    /// Where each group's table starts, with the group, in order.
    tables: Vec<(u64, u64)>,
}

impl Ext4 {
    /// `struct ext4_super_block` and `struct ext4_group_desc`: Documentation/filesystems/ext4/super.rst, group_descr.rst.
    fn read(device: &Device) -> Result<Option<Self>> {
        const META_BG: u32 = 0x10;
        const SIXTY_FOUR_BITS: u32 = 0x80;
        let start = device.read(0, ALIGNMENT as u64)?;
        let superblock = &start[1024..2048];
        if little16(superblock, 0x38) != 0xEF53 {
            return Err(corrupt("it is no ext4"));
        }
        let incompatible = little32(superblock, 0x60);
        if incompatible & META_BG != 0 {
            return Ok(None);
        }
        let shift = little32(superblock, 0x18);
        let (per_group, blocks_per_group) = (little32(superblock, 0x28), little32(superblock, 0x20));
        let inode_size = usize::from(little16(superblock, 0x58));
        if shift > 6 || per_group == 0 || blocks_per_group == 0 || !(128..=4096).contains(&inode_size) {
            return Err(corrupt("its superblock makes no sense"));
        }
        let block = 1024_u64 << shift;
        let wide = incompatible & SIXTY_FOUR_BITS != 0;
        let descriptor = if wide { u64::from(little16(superblock, 0xFE)).max(32) } else { 32 };
        let high = if wide { u64::from(little32(superblock, 0x150)) << 32 } else { 0 };
        let blocks = u64::from(little32(superblock, 0x4)) | high;
        let first = u64::from(little32(superblock, 0x14));
        let groups = blocks.saturating_sub(first).div_ceil(u64::from(blocks_per_group));
        let table = (first + 1) * block;
        let aligned = table / ALIGNMENT as u64 * ALIGNMENT as u64;
        let length = (table - aligned + groups * descriptor).next_multiple_of(ALIGNMENT as u64);
        let descriptors = device.read(aligned, length)?;
        let mut tables = Vec::new();
        for group in 0..groups {
            let offset = usize::try_from(table - aligned + group * descriptor).unwrap_or(usize::MAX);
            let found =
                descriptors.get(offset..offset + 32).ok_or_else(|| corrupt("its groups are out of reach"))?;
            let low = u64::from(little32(found, 8));
            let high = match descriptors.get(offset + 0x28..offset + 0x2C) {
                Some(high) if descriptor >= 64 => u64::from(little32(high, 0)) << 32,
                _ => 0,
            };
            tables.push(((low | high) * block, group));
        }
        tables.sort_unstable();
        Ok(Some(Self { inode_size, inodes_per_group: u64::from(per_group), tables }))
    }

    fn table_length(&self) -> u64 {
        self.inodes_per_group * self.inode_size as u64
    }

    /// The table that a place is in.
    fn table_of(&self, place: u64) -> Option<(u64, u64)> {
        let index = self.tables.partition_point(|(start, _)| *start <= place).checked_sub(1)?;
        self.tables.get(index).copied()
    }
}

impl InodeMap for Ext4 {
    fn ranges(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let first = self.tables.partition_point(|(start, _)| start + self.table_length() <= range.start);
        self.tables[first..]
            .iter()
            .take_while(|(start, _)| *start < range.end)
            .map(|(start, _)| (*start).max(range.start)..(start + self.table_length()).min(range.end))
            .collect()
    }

    fn inode_size(&self) -> usize {
        self.inode_size
    }

    fn number(&self, place: u64) -> u64 {
        let Some((start, group)) = self.table_of(place) else { return 0 };
        group * self.inodes_per_group + (place - start) / self.inode_size as u64 + 1
    }

    fn differ(&self, new: &[u8], old: &[u8], _place: u64) -> bool {
        // Documentation/filesystems/ext4/inodes.rst: i_atime, i_checksum_lo, i_checksum_hi, i_atime_extra.
        differ_outside(new, old, &[0x8..0xC, 0x7C..0x7E, 0x82..0x84, 0x8C..0x90])
    }

    fn links(&self, inode: &[u8]) -> u32 {
        // A directory's count is that of its subdirectories, and 1 for more than 65,000; it has one name.
        match little16(inode, 0) & 0xF000 {
            0x4000 => u32::from(little16(inode, 0x1A) > 0),
            _ => u32::from(little16(inode, 0x1A)),
        }
    }
}

/// The geometry of an xfs.
#[derive(Debug)]
struct Xfs {
    inode_size: usize,
    block_shift: u64,
    inode_shift: u64,
    group_blocks: u64,
    group_shift: u64,
}

impl Xfs {
    /// `struct xfs_dsb` of fs/xfs/libxfs/xfs_format.h.
    fn read(device: &Device) -> Result<Option<Self>> {
        let superblock = device.read(0, ALIGNMENT as u64)?;
        if &superblock[..4] != b"XFSB" {
            return Err(corrupt("it is no xfs"));
        }
        // Before version 5 an inode does not say its number.
        if big(&superblock, 100..102) & 0xF != 5 {
            return Ok(None);
        }
        let map = Self {
            inode_size: usize::try_from(big(&superblock, 104..106)).unwrap_or(0),
            block_shift: u64::from(superblock[120]),
            inode_shift: u64::from(superblock[122]),
            group_blocks: big(&superblock, 84..88),
            group_shift: u64::from(superblock[124]),
        };
        if map.inode_size != 1 << map.inode_shift
            || map.block_shift < map.inode_shift
            || map.group_blocks == 0
        {
            return Err(corrupt("its superblock makes no sense"));
        }
        Ok(Some(map))
    }

    fn is_inode(&self, bytes: &[u8], place: u64) -> bool {
        // XFS_DINODE_MAGIC; di_ino.
        &bytes[..2] == b"IN" && big(bytes, 152..160) == self.number(place)
    }
}

impl InodeMap for Xfs {
    fn ranges(&self, range: Range<u64>) -> Vec<Range<u64>> {
        vec![range]
    }

    fn inode_size(&self) -> usize {
        self.inode_size
    }

    fn number(&self, place: u64) -> u64 {
        let per_block = self.block_shift - self.inode_shift;
        let block = place >> self.block_shift;
        let (group, in_group) = (block / self.group_blocks, block % self.group_blocks);
        let index = (place & ((1 << self.block_shift) - 1)) >> self.inode_shift;
        group << (self.group_shift + per_block) | in_group << per_block | index
    }

    fn differ(&self, new: &[u8], old: &[u8], place: u64) -> bool {
        // di_atime, di_next_unlinked, di_crc, di_lsn of struct xfs_dinode.
        (self.is_inode(new, place) || self.is_inode(old, place))
            && differ_outside(new, old, &[32..40, 96..104, 112..120])
    }

    fn links(&self, inode: &[u8]) -> u32 {
        // di_mode, di_nlink.
        let links = u32::try_from(big(inode, 16..20)).unwrap_or(u32::MAX);
        if big(inode, 2..4) & 0xF000 == 0x4000 { links.min(1) } else { links }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ext4_inode_is_found_by_its_place() {
        let map = Ext4 { inode_size: 256, inodes_per_group: 16, tables: vec![(65_536, 1), (69_632, 0)] };
        assert_eq!(map.number(65_536), 17);
        assert_eq!(map.number(69_632 + 256), 2);
        assert_eq!(map.ranges(0..65_536), []);
        assert_eq!(map.ranges(65_536..131_072), [65_536..69_632, 69_632..73_728]);
        assert_eq!(map.ranges(69_888..70_144).first(), Some(&(69_888..70_144)));
    }

    #[test]
    fn an_xfs_inode_is_found_by_its_place() {
        // mkfs.xfs' defaults for a gigabyte: four groups of 65,536 blocks of 4 KiB, inodes of 512 bytes.
        let map =
            Xfs { inode_size: 512, block_shift: 12, inode_shift: 9, group_blocks: 65_536, group_shift: 16 };
        assert_eq!(map.number(16 * 4096), 128);
        assert_eq!(map.number((65_536 + 16) * 4096 + 512), (1 << 19) + 129);
    }

    #[test]
    fn only_the_time_of_access_does_not_count() {
        let map = Ext4 { inode_size: 256, inodes_per_group: 16, tables: vec![] };
        let old = vec![0; 256];
        for (offset, differs) in [
            (0, true),
            (7, true),
            (8, false),
            (11, false),
            (12, true),
            (0x7D, false),
            (0x8C, false),
            (0x90, true),
            (255, true),
        ] {
            let mut new = old.clone();
            new[offset] = 1;
            assert_eq!(map.differ(&new, &old, 0), differs, "{offset}");
        }
    }
}
