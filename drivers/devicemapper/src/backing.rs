//! What the pool lies on: files on loop devices, two block devices, one block device, or nothing of ours.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::layout::Layout;
use crate::loop_device::LoopDevice;
use crate::mapper::{Active, Mapper, Table};
use crate::options::{Settings, Source};
use crate::pool::{PoolStatus, SECTOR, open_device};
use crate::sys;

/// The least that a pool's data and metadata may be, in bytes: what a base device and some layers need, and what the
/// kernel's own tools take for the least.
const LEAST_DATA: u64 = 8 << 20;
const LEAST_METADATA: u64 = 2 << 20;

/// What metadata may become: THIN_METADATA_MAX_SECTORS, in bytes.
const MOST_METADATA: u64 = 16 << 30;

/// What a pool lies on.
#[derive(Debug)]
pub(crate) enum Backing {
    /// Two files of the home.
    Loop(LoopFiles),
    /// Block devices.
    Devices,
    /// Parts of one block device.
    Direct,
    /// A pool that is not ours.
    Lent,
}

/// What a new pool is made of.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) backing: Backing,
    /// The numbers of the devices, as tables name them.
    pub(crate) data: String,
    pub(crate) metadata: String,
    /// In bytes.
    pub(crate) data_size: u64,
    /// Kept open until the pool has them open.
    _held: Vec<Kept>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held, not used")]
enum Kept {
    Loop(LoopDevice),
    Device(File),
    Part(Active),
}

impl Backing {
    /// What the home's pool, which is there, lies on. None where it is another home's.
    pub(crate) fn found(table: &Table, layout: &Layout, settings: &Settings) -> Result<Option<Self>> {
        match &settings.source {
            Source::Loop { data, metadata } => {
                let files = LoopFiles::new(layout, *data, *metadata);
                let ours = loop_of(table, 0)?
                    .is_some_and(|device| device.is_of(&files.metadata).unwrap_or(false))
                    && loop_of(table, 1)?.is_some_and(|device| device.is_of(&files.data).unwrap_or(false));
                Ok(ours.then_some(Self::Loop(files)))
            }
            Source::Devices { data, metadata } => {
                let ours = words(table) == [open_device(metadata)?.0.as_str(), open_device(data)?.0.as_str()];
                Ok(ours.then_some(Self::Devices))
            }
            Source::Direct { .. } => Ok(Some(Self::Direct)),
            Source::Existing(_) => Ok(Some(Self::Lent)),
        }
    }

    /// Gets what a pool is to lie on.
    pub(crate) fn make(mapper: &Mapper, prefix: &str, layout: &Layout, settings: &Settings) -> Result<Made> {
        match &settings.source {
            Source::Loop { data, metadata } => {
                let files = LoopFiles::new(layout, *data, *metadata);
                // A pool that the kernel removes has lost its name while it still writes its metadata. The kernel keeps
                // two pools from one device, but not from two devices of one file.
                LoopDevice::wait_for_none(&files.metadata)?;
                LoopDevice::wait_for_none(&files.data)?;
                files.prepare(settings.block_size)?;
                let (data, metadata) =
                    (LoopDevice::attach(&files.data)?, LoopDevice::attach(&files.metadata)?);
                Ok(Made {
                    data: data.number(),
                    metadata: metadata.number(),
                    data_size: data.size()?,
                    backing: Self::Loop(files),
                    _held: vec![Kept::Loop(data), Kept::Loop(metadata)],
                })
            }
            Source::Devices { data, metadata } => {
                let ((data, data_file), (metadata, metadata_file)) =
                    (open_device(data)?, open_device(metadata)?);
                Ok(Made {
                    data_size: size_of(&data_file)?,
                    data,
                    metadata,
                    backing: Self::Devices,
                    _held: vec![Kept::Device(data_file), Kept::Device(metadata_file)],
                })
            }
            Source::Direct { device, force, data_percent, metadata_percent } => {
                let parts = Parts::of(layout, device, *force, *data_percent, *metadata_percent)?;
                let linear = |what: &str, start: u64, length: u64| {
                    let table = Table {
                        sectors: length / SECTOR,
                        target: "linear",
                        parameters: format!("{} {}", parts.number, start / SECTOR),
                    };
                    mapper.activate(&format!("{prefix}-pool-{what}"), &table)
                };
                let metadata = linear("metadata", parts.metadata_start, parts.metadata_size)?;
                let data = linear("data", parts.data_start, parts.data_size)?;
                Ok(Made {
                    data: data.number.clone(),
                    metadata: metadata.number.clone(),
                    data_size: parts.data_size,
                    backing: Self::Direct,
                    _held: vec![Kept::Part(data), Kept::Part(metadata)],
                })
            }
            Source::Existing(_) => Err(Error::new(ErrorKind::Unavailable, "the pool is to be there already")),
        }
    }
}

fn words(table: &Table) -> Vec<&str> {
    table.parameters.split_whitespace().take(2).collect()
}

fn loop_of(table: &Table, word: usize) -> Result<Option<LoopDevice>> {
    words(table).get(word).map_or(Ok(None), |number| LoopDevice::open(number))
}

fn size_of(device: &File) -> Result<u64> {
    sys::device_size(device).map_err(|errno| Error::from_errno(errno, "ask a block device for its size"))
}

/// The two files of a pool on loop devices.
///
/// The file with the metadata is allocated, so that the pool never finds no room for them. That with the data has
/// holes; it is never longer than what the file system under it has room for, so that it is the pool that is full first,
/// which is an orderly state, and not the file system under it.
#[derive(Debug)]
pub(crate) struct LoopFiles {
    pub(crate) data: PathBuf,
    pub(crate) metadata: PathBuf,
    most_data: u64,
    most_metadata: u64,
}

impl LoopFiles {
    fn new(layout: &Layout, most_data: u64, most_metadata: u64) -> Self {
        let most_metadata = most_metadata.min(MOST_METADATA);
        Self { data: layout.data_file(), metadata: layout.metadata_file(), most_data, most_metadata }
    }

    /// Makes the files, or has them grow before they are used.
    fn prepare(&self, block_size: u64) -> Result<()> {
        let data = self.room_for_data(block_size)?.max(length(&self.data)?);
        if data < LEAST_DATA {
            let message = format!("{} MiB are free, and a pool needs {} MiB", data >> 20, LEAST_DATA >> 20);
            return Err(Error::new(ErrorKind::NoSpace, message).with_path(&self.data));
        }
        allocate(&self.metadata, metadata_for(data, block_size).clamp(LEAST_METADATA, self.most_metadata))?;
        // What the metadata took is gone.
        lengthen(&self.data, self.room_for_data(block_size)?.max(LEAST_DATA))
    }

    /// How long the file with the data may be, in bytes.
    fn room_for_data(&self, block_size: u64) -> Result<u64> {
        let room = (allocated(&self.data)? + self.free()?).min(self.most_data);
        Ok(room / block_size * block_size)
    }

    /// What the file system under the files has free for them, in bytes.
    fn free(&self) -> Result<u64> {
        let directory = self.data.parent().unwrap_or(Path::new("/"));
        let found = rustix::fs::statvfs(directory)
            .map_err(|errno| Error::from_errno(errno, "ask for the free space").with_path(directory))?;
        // Some of it is for the home's other files, and for the file system's own notes of where the blocks are.
        let reserve = (found.f_blocks * found.f_frsize / 50).max(1 << 20);
        Ok((found.f_bavail * found.f_frsize).saturating_sub(reserve))
    }

    /// How much of what the pool has free the file system under it has room for, in bytes.
    pub(crate) fn backed(&self, used: u64) -> Result<u64> {
        Ok(allocated(&self.data)?.saturating_sub(used) + self.free()?)
    }

    /// The length of the file with the data, in bytes.
    pub(crate) fn data_size(&self) -> Result<u64> {
        length(&self.data)
    }

    /// Lengthens the files and their loop devices as far as is allowed and of use. Whether anything grew.
    pub(crate) fn grow(&self, table: &Table, status: &PoolStatus, block_size: u64) -> Result<bool> {
        let (Some(metadata_device), Some(data_device)) = (loop_of(table, 0)?, loop_of(table, 1)?) else {
            return Ok(false);
        };
        let (data, metadata) = (length(&self.data)?, length(&self.metadata)?);
        let more_data = self.room_for_data(block_size)?;
        let mut grown = false;
        // Steps of less than a 16th are not worth the pool's attention.
        if more_data > data + data / 16 {
            lengthen(&self.data, more_data)?;
            data_device.grow()?;
            grown = true;
        }
        let scarce = status.metadata.free() * 4 < status.metadata.total;
        let more_metadata = if scarce { metadata * 2 } else { metadata_for(more_data, block_size) };
        let more_metadata = more_metadata.min(self.most_metadata);
        if more_metadata > metadata + metadata / 16 {
            match allocate(&self.metadata, more_metadata) {
                Ok(()) => {
                    metadata_device.grow()?;
                    grown = true;
                }
                // Then they stay as they are.
                Err(error) if error.kind() == ErrorKind::NoSpace => {}
                Err(error) => return Err(error),
            }
        }
        Ok(grown)
    }
}

/// How many bytes of metadata a pool should have: thin-provisioning.rst says 48 bytes a block, and snapshots share less
/// and less of them as they are written to.
fn metadata_for(data: u64, block_size: u64) -> u64 {
    (data / block_size * 48 * 3).next_multiple_of(1 << 20)
}

fn length(path: &Path) -> Result<u64> {
    match path.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::from_io(error, "inspect").with_path(path)),
    }
}

fn allocated(path: &Path) -> Result<u64> {
    match path.metadata() {
        Ok(metadata) => Ok(metadata.blocks() * 512),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::from_io(error, "inspect").with_path(path)),
    }
}

fn open(path: &Path) -> Result<File> {
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
    opened.map_err(|error| Error::from_io(error, "open").with_path(path))
}

/// Makes a file as long as this, if it is shorter, without taking room.
fn lengthen(path: &Path, size: u64) -> Result<()> {
    if length(path)? >= size {
        return Ok(());
    }
    let file = open(path)?;
    file.set_len(size)
        .and_then(|()| file.sync_all())
        .map_err(|error| Error::from_io(error, "lengthen").with_path(path))
}

/// Makes a file as long as this, if it is shorter, and takes the room for it.
fn allocate(path: &Path, size: u64) -> Result<()> {
    if length(path)? >= size {
        return Ok(());
    }
    let file = open(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
        Ok(()) => {}
        // A file system without it; then holes have to do.
        Err(Errno::OPNOTSUPP) => {
            file.set_len(size).map_err(|error| Error::from_io(error, "lengthen").with_path(path))?;
        }
        Err(errno) => return Err(Error::from_errno(errno, "allocate").with_path(path)),
    }
    file.sync_all().map_err(|error| Error::from_io(error, "flush").with_path(path))
}

/// The parts of one block device.
#[derive(Debug)]
struct Parts {
    number: String,
    metadata_start: u64,
    metadata_size: u64,
    data_start: u64,
    data_size: u64,
}

/// Parts start and end at multiples of this, in bytes.
const ALIGNMENT: u64 = 1 << 20;

/// Written to the first block of a device of which both parts are made.
const LABEL: &[u8; 32] = b"layerstack devicemapper parts 1\n";

impl Parts {
    /// Divides a device. One that is not divided yet must hold nothing, unless it is taken by force.
    fn of(
        layout: &Layout,
        path: &Path,
        force: bool,
        data_percent: u64,
        metadata_percent: u64,
    ) -> Result<Self> {
        let (number, device) = open_device(path)?;
        let size = size_of(&device)?;
        let fail = |error| Error::from_io(error, "read the block device").with_path(path);
        let mut label = [0; 64];
        device.read_exact_at(&mut label, 0).map_err(fail)?;
        if !label.starts_with(LABEL) {
            if layout.device_set()?.is_some() {
                let message = "the device is not the one that the home's layers are on";
                return Err(Error::new(ErrorKind::InvalidInput, message).with_path(path));
            }
            if !force && !is_blank(&device, size).map_err(fail)? {
                let message = "the device holds something; to lose it, set dm.directlvm_device_force=true";
                return Err(Error::new(ErrorKind::InvalidInput, message).with_path(path));
            }
        }
        let part = |percent: u64| size / 100 * percent / ALIGNMENT * ALIGNMENT;
        let metadata_size = part(metadata_percent).clamp(LEAST_METADATA, MOST_METADATA);
        let data_start = ALIGNMENT + metadata_size;
        let data_size = part(data_percent).min(size.saturating_sub(data_start) / ALIGNMENT * ALIGNMENT);
        if data_size < LEAST_DATA {
            return Err(Error::new(ErrorKind::InvalidInput, "the device is too small").with_path(path));
        }
        let parts = Self { number, metadata_start: ALIGNMENT, metadata_size, data_start, data_size };
        if !label.starts_with(LABEL) {
            // A pool is new where its superblock is all zeros.
            let write = |bytes: &[u8], offset| device.write_all_at(bytes, offset);
            write(&[0; 4096], ALIGNMENT)
                .and_then(|()| write(LABEL, 0))
                .and_then(|()| device.sync_all())
                .map_err(|error| Error::from_io(error, "write to the block device").with_path(path))?;
        }
        Ok(parts)
    }
}

/// Whether a device holds nothing where file systems, partition tables, RAID and LVM have their marks: in its first
/// four megabytes and in its last.
fn is_blank(device: &File, size: u64) -> std::io::Result<bool> {
    let mut buffer = vec![0; 1 << 20];
    for offset in [0, 1 << 20, 2 << 20, 3 << 20, size.saturating_sub(1 << 20)] {
        let length = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let part = &mut buffer[..length];
        device.read_exact_at(part, offset)?;
        if part.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_follow_the_data() {
        assert_eq!(metadata_for(100 << 30, 64 << 10), 225 << 20);
        assert_eq!(metadata_for(64 << 20, 64 << 10), 1 << 20);
    }

    #[test]
    fn a_blank_device_has_zeros_at_both_ends() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        assert!(is_blank(&file, 8 << 20).unwrap());
        for offset in [0, 0x438, (4 << 20) - 1, (8 << 20) - 1] {
            file.write_all_at(b"x", offset).unwrap();
            assert!(!is_blank(&file, 8 << 20).unwrap(), "{offset}");
            file.write_all_at(b"\0", offset).unwrap();
        }
    }
}
