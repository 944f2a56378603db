//! Reading a thin pool's metadata: which devices it has, and in which blocks two of them differ.
//!
//! The format is that of the kernel's drivers/md/dm-thin-metadata.c and drivers/md/persistent-data/dm-btree-internal.h:
//! blocks of 4 KiB, all numbers little-endian, each block with a checksum and its own number in it. What is read is a
//! *metadata snapshot*, which the kernel keeps unchanged for as long as it is reserved. A B-tree's nodes are shared
//! between a device and its snapshots until one of them is written to, so two trees are compared at the cost of what
//! differs.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::{Mode, OFlags};

use crate::crc32c::crc32c;

/// THIN_METADATA_BLOCK_SIZE, in bytes.
const BLOCK: usize = 4096;

/// THIN_SUPERBLOCK_MAGIC.
const MAGIC: u64 = 27_022_010;

/// SUPERBLOCK_CSUM_XOR.
const SUPERBLOCK_SALT: u32 = 160_774;

/// BTREE_CSUM_XOR.
const NODE_SALT: u32 = 121_107;

/// `enum node_flags`.
const INTERNAL_NODE: u32 = 1;

/// The length of `struct node_header`.
const NODE_HEADER: usize = 32;

/// What the pool knows of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Details {
    /// Blocks of data that it has.
    pub(crate) mapped_blocks: u64,
    /// The pool's transaction id when it was made.
    pub(crate) transaction_id: u64,
}

/// A metadata snapshot.
#[derive(Debug)]
pub(crate) struct ThinMetadata {
    file: File,
    mapping_root: u64,
    details_root: u64,
}

impl ThinMetadata {
    /// Opens the snapshot at block `root` of the metadata device.
    pub(crate) fn open(device: &Path, root: u64) -> Result<Self> {
        // The kernel writes past the cache of the device's node.
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = rustix::fs::open(device, flags, Mode::empty())
            .map_err(|errno| Error::from_errno(errno, "open the pool's metadata").with_path(device))?;
        let mut metadata = Self { file: file.into(), mapping_root: 0, details_root: 0 };
        let block = metadata.read(root, SUPERBLOCK_SALT)?;
        if number(&block, 32) != MAGIC {
            return Err(corrupt("its superblock has another magic number"));
        }
        metadata.mapping_root = number(&block, 320);
        metadata.details_root = number(&block, 328);
        Ok(metadata)
    }

    /// What the pool knows of a device; None where it has no such device.
    pub(crate) fn details(&self, device: u32) -> Result<Option<Details>> {
        let value = self.look_up(self.details_root, u64::from(device), 24)?;
        Ok(value.map(|value| Details { mapped_blocks: number(&value, 0), transaction_id: number(&value, 8) }))
    }

    /// The blocks, by their number in the devices, in which two devices differ, in order: those that only one has, or
    /// that each has in another place.
    pub(crate) fn differences(&self, one: u32, other: u32) -> Result<Vec<u64>> {
        let root = |device: u32| -> Result<u64> {
            match self.look_up(self.mapping_root, u64::from(device), 8)? {
                Some(value) => Ok(number(&value, 0)),
                None => Err(corrupt(&format!("it has no device {device}"))),
            }
        };
        let (mut ones, mut others) = (vec![root(one)?], vec![root(other)?]);
        let (mut mapped, mut mapped_by_other) = (BTreeMap::new(), BTreeMap::new());
        while !ones.is_empty() || !others.is_empty() {
            // What both have says the same of the same blocks.
            let in_one: HashSet<u64> = ones.iter().copied().collect();
            let in_other: HashSet<u64> = others.iter().copied().collect();
            ones.retain(|block| !in_other.contains(block));
            others.retain(|block| !in_one.contains(block));
            ones = self.step(&ones, &mut mapped)?;
            others = self.step(&others, &mut mapped_by_other)?;
        }
        let mut differing: Vec<u64> = mapped
            .iter()
            .filter(|(block, place)| mapped_by_other.get(*block) != Some(place))
            .map(|(block, _)| *block)
            .chain(mapped_by_other.keys().filter(|block| !mapped.contains_key(*block)).copied())
            .collect();
        differing.sort_unstable();
        Ok(differing)
    }

    /// Goes one step down: the children of inner nodes are returned, the entries of leaves added to `mapped`.
    fn step(&self, nodes: &[u64], mapped: &mut BTreeMap<u64, u64>) -> Result<Vec<u64>> {
        let mut children = Vec::new();
        for block in nodes {
            let node = self.node(*block, 8)?;
            if node.is_inner {
                children.extend((0..node.count).map(|index| number(node.value(index), 0)));
            } else {
                // The time of the mapping is in the low 24 bits: pack_block_time().
                mapped.extend(
                    (0..node.count).map(|index| (node.key(index), number(node.value(index), 0) >> 24)),
                );
            }
        }
        Ok(children)
    }

    fn look_up(&self, root: u64, key: u64, value_size: usize) -> Result<Option<Vec<u8>>> {
        let mut block = root;
        // A tree of 2^64 keys is not as deep.
        for _ in 0..16 {
            let node = self.node(block, value_size)?;
            let Some(index) = (0..node.count).rev().find(|index| node.key(*index) <= key) else {
                return Ok(None);
            };
            if !node.is_inner {
                return Ok((node.key(index) == key).then(|| node.value(index).to_vec()));
            }
            block = number(node.value(index), 0);
        }
        Err(corrupt("a tree is too deep"))
    }

    fn node(&self, block: u64, value_size: usize) -> Result<Node> {
        Node::parse(self.read(block, NODE_SALT)?, value_size)
    }

    /// Reads a block and checks that it is what it should be.
    fn read(&self, number_of_block: u64, salt: u32) -> Result<Vec<u8>> {
        // O_DIRECT wants memory and file aligned to the device's blocks, which are no larger than these.
        let mut buffer = vec![0; BLOCK * 2];
        let start = buffer.as_ptr().align_offset(BLOCK);
        let offset =
            number_of_block.checked_mul(BLOCK as u64).ok_or_else(|| corrupt("a block is out of reach"))?;
        let part = buffer.get_mut(start..start + BLOCK).ok_or_else(|| corrupt("memory cannot be aligned"))?;
        self.file
            .read_exact_at(part, offset)
            .map_err(|error| Error::from_io(error, "read the pool's metadata"))?;
        let block = part.to_vec();
        if crc32c(!0, &block[4..]) ^ salt != small(&block, 0) {
            return Err(corrupt(&format!("block {number_of_block} has another checksum")));
        }
        if number(&block, 8) != number_of_block {
            return Err(corrupt(&format!("block {number_of_block} is another block")));
        }
        Ok(block)
    }
}

/// A node of a B-tree.
#[derive(Debug)]
struct Node {
    block: Vec<u8>,
    is_inner: bool,
    count: usize,
    most: usize,
    value_size: usize,
}

impl Node {
    /// `value_size` is that of a leaf; the values of inner nodes are blocks.
    fn parse(block: Vec<u8>, value_size: usize) -> Result<Self> {
        let is_inner = small(&block, 4) & INTERNAL_NODE != 0;
        let count = small(&block, 16) as usize;
        let most = small(&block, 20) as usize;
        let wanted = if is_inner { 8 } else { value_size };
        let fits = most.checked_mul(8 + wanted).is_some_and(|length| length <= BLOCK - NODE_HEADER);
        if count > most || !fits || small(&block, 24) as usize != wanted {
            return Err(corrupt("a node of a tree contradicts itself"));
        }
        Ok(Self { block, is_inner, count, most, value_size: wanted })
    }

    fn key(&self, index: usize) -> u64 {
        number(&self.block, NODE_HEADER + index * 8)
    }

    fn value(&self, index: usize) -> &[u8] {
        let start = NODE_HEADER + self.most * 8 + index * self.value_size;
        &self.block[start..start + self.value_size]
    }
}

/// The number of 64 bits at an offset.
fn number(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(number)
}

/// The number of 32 bits at an offset.
fn small(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the pool's metadata cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A metadata device of as many blocks as are given, each with its number and checksum put in.
    fn device(blocks: Vec<(Vec<u8>, u32)>) -> (tempfile::TempDir, ThinMetadata) {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("metadata");
        let mut content = Vec::new();
        for (place, (mut block, salt)) in (0_u64..).zip(blocks) {
            block.resize(BLOCK, 0);
            block[8..16].copy_from_slice(&place.to_le_bytes());
            let sum = crc32c(!0, &block[4..]) ^ salt;
            block[..4].copy_from_slice(&sum.to_le_bytes());
            content.extend(block);
        }
        std::fs::write(&path, content).unwrap();
        let metadata = ThinMetadata::open(&path, 0).unwrap();
        (scratch, metadata)
    }

    fn superblock(mapping: u64, details: u64) -> (Vec<u8>, u32) {
        let mut block = vec![0; BLOCK];
        block[32..40].copy_from_slice(&MAGIC.to_le_bytes());
        block[320..328].copy_from_slice(&mapping.to_le_bytes());
        block[328..336].copy_from_slice(&details.to_le_bytes());
        (block, SUPERBLOCK_SALT)
    }

    fn node(is_inner: bool, entries: &[(u64, Vec<u64>)]) -> (Vec<u8>, u32) {
        let size = entries.first().map_or(8, |(_, value)| value.len() * 8);
        let most = (BLOCK - NODE_HEADER) / (8 + size);
        let mut block = vec![0; BLOCK];
        let mut put =
            |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(4, &u32::from(if is_inner { 1_u8 } else { 2 }).to_le_bytes());
        put(16, &u32::try_from(entries.len()).unwrap().to_le_bytes());
        put(20, &u32::try_from(most).unwrap().to_le_bytes());
        put(24, &u32::try_from(size).unwrap().to_le_bytes());
        for (index, (key, value)) in entries.iter().enumerate() {
            put(NODE_HEADER + index * 8, &key.to_le_bytes());
            for (part, number) in value.iter().enumerate() {
                put(NODE_HEADER + most * 8 + index * size + part * 8, &number.to_le_bytes());
            }
        }
        (block, NODE_SALT)
    }

    #[test]
    fn two_devices_differ_where_their_trees_do() {
        let place = |block: u64| vec![block << 24 | 7];
        let (_scratch, metadata) = device(vec![
            superblock(1, 2),
            node(false, &[(1, vec![3]), (5, vec![4])]),
            node(false, &[(1, vec![9, 3, 0]), (5, vec![8, 4, 0])]),
            // Device 1: an inner node with two leaves, the first of which it shares with device 5.
            node(true, &[(0, vec![5]), (100, vec![6])]),
            node(true, &[(0, vec![5]), (100, vec![7])]),
            node(false, &[(0, place(40)), (99, place(41))]),
            node(false, &[(100, place(42)), (101, place(43)), (102, place(44))]),
            node(false, &[(100, place(42)), (101, place(50)), (107, place(51))]),
        ]);
        assert_eq!(metadata.differences(1, 5).unwrap(), [101, 102, 107]);
        assert!(metadata.differences(5, 5).unwrap().is_empty());
        let details = Details { mapped_blocks: 8, transaction_id: 4 };
        assert_eq!(metadata.details(5).unwrap(), Some(details));
        assert_eq!(metadata.details(4).unwrap(), None);
        assert_eq!(metadata.details(0).unwrap(), None);
        assert_eq!(metadata.differences(1, 4).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn what_is_damaged_is_an_error() {
        let (scratch, metadata) = device(vec![superblock(1, 1), node(false, &[(1, vec![3])])]);
        let path = scratch.path().join("metadata");
        let whole = std::fs::read(&path).unwrap();
        for offset in [0, 4, 8, 20, 24, 40, 2000] {
            let mut damaged = whole.clone();
            damaged[BLOCK + offset] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(metadata.differences(1, 1).unwrap_err().kind(), ErrorKind::Corrupt, "{offset}");
        }
        let mut damaged = whole;
        damaged[100] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(ThinMetadata::open(&path, 0).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
