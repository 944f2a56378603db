//! The thin pool: found or made, asked, told to make and delete devices.

use std::fs::File;
use std::path::{Path, PathBuf};

use layerstack_core::{Error, ErrorKind, Result};

use crate::backing::{Backing, LoopFiles};
use crate::layout::{DeviceMetadata, Layout};
use crate::mapper::{Active, Failure, Mapper, Table};
use crate::options::{Settings, Source};
use crate::thin_metadata::ThinMetadata;

/// Bytes of a sector, the unit of tables.
pub(crate) const SECTOR: u64 = 512;

/// The numbers of devices in a pool have 24 bits: thin-provisioning.rst.
pub(crate) const MOST_DEVICES: u32 = 1 << 24;

/// A pool that is there.
#[derive(Debug)]
pub(crate) struct Pool {
    mapper: Mapper,
    /// Its name.
    name: String,
    /// What the names of the layers' devices start with: no other home on this host has the same.
    prefix: String,
    /// None only while this is being dropped.
    active: Option<Active>,
    /// The pool's number, as tables name it.
    number: String,
    backing: Backing,
    /// The size of its blocks, in bytes.
    block_size: u64,
    /// The device with its metadata.
    metadata_device: PathBuf,
    min_free: u64,
}

/// A pool's state: thin-provisioning.rst, "Status".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolStatus {
    pub(crate) transaction_id: u64,
    /// In blocks of 4 KiB.
    pub(crate) metadata: Room,
    /// In blocks of the pool.
    pub(crate) data: Room,
    /// Where the reserved metadata snapshot is.
    held_root: Option<u64>,
    /// Whether the pool found no room for what was written.
    pub(crate) is_full: bool,
    /// Whether nothing can be changed in it.
    pub(crate) is_read_only: bool,
}

/// How much of something is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) used: u64,
    pub(crate) total: u64,
}

impl Room {
    pub(crate) fn free(self) -> u64 {
        self.total.saturating_sub(self.used)
    }

    fn parse(text: &str) -> Option<Self> {
        let (used, total) = text.split_once('/')?;
        Some(Self { used: used.parse().ok()?, total: total.parse().ok()? })
    }
}

impl PoolStatus {
    fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let parsed = match words.as_slice() {
            [id, metadata, data, root, mode, ..] => (|| {
                Some(Self {
                    transaction_id: id.parse().ok()?,
                    metadata: Room::parse(metadata)?,
                    data: Room::parse(data)?,
                    held_root: root.parse().ok(),
                    is_full: *mode == "out_of_data_space",
                    is_read_only: *mode == "ro",
                })
            })(),
            _ => None,
        };
        parsed.ok_or_else(|| {
            let message = format!(
                "the pool has failed (its state: {text}); deactivate it, and check its metadata with: thin_check"
            );
            Error::new(ErrorKind::Corrupt, message)
        })
    }
}

impl Pool {
    /// Finds the pool of a home, or makes it. The caller has the home's lock.
    pub(crate) fn open(layout: &Layout, settings: &Settings) -> Result<Self> {
        let mapper = Mapper::open(settings.deferred_removal)?;
        let prefix = prefix(layout.home())?;
        if let Source::Existing(name) = &settings.source {
            let active = mapper.find(name)?.ok_or_else(|| {
                let message = format!("there is no device-mapper device \"{name}\" that could be the pool");
                Error::new(ErrorKind::Unavailable, message)
            })?;
            return Self::of(mapper, name.clone(), prefix, active, Backing::Lent, settings);
        }
        let name = format!("{prefix}-pool");
        if let Some(active) = mapper.find(&name)? {
            let table = pool_table(&mapper, &name)?;
            if let Some(backing) = Backing::found(&table, layout, settings)? {
                let active = mapper.keep(&name, active)?;
                return Self::of(mapper, name, prefix, active, backing, settings);
            }
            drop(active);
        }
        // What has the name is the pool of a home that was deleted, which had the number that this one has now, or has no
        // table in use, since whoever made it was killed; it keeps what it was to lie on.
        if !mapper.wait_for_removal(&name)? {
            let message = format!("the name {name} is taken by the pool of another home; unmount its layers");
            return Err(Error::new(ErrorKind::InUse, message));
        }
        let made = Backing::make(&mapper, &prefix, layout, settings)?;
        let table = Table {
            sectors: made.data_size / settings.block_size * (settings.block_size / SECTOR),
            target: "thin-pool",
            parameters: parameters(&made.metadata, &made.data, settings.block_size),
        };
        let active = mapper.activate(&name, &table)?;
        Self::of(mapper, name, prefix, active, made.backing, settings)
    }

    fn of(
        mapper: Mapper,
        name: String,
        prefix: String,
        active: Active,
        backing: Backing,
        settings: &Settings,
    ) -> Result<Self> {
        let table = pool_table(&mapper, &name)?;
        let words: Vec<&str> = table.parameters.split_whitespace().collect();
        let block_size = words.get(2).and_then(|sectors| sectors.parse::<u64>().ok()).unwrap_or(0) * SECTOR;
        if block_size == 0 {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the table of the pool {name} makes no sense"),
            ));
        }
        let metadata_device = device_node(words[0])?;
        let min_free = settings.min_free;
        let number = active.number.clone();
        let active = Some(active);
        Ok(Self { mapper, name, prefix, active, number, backing, block_size, metadata_device, min_free })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn mapper(&self) -> &Mapper {
        &self.mapper
    }

    /// The size of its blocks, in bytes.
    pub(crate) fn block_size(&self) -> u64 {
        self.block_size
    }

    /// The devices under it: that of the metadata, that of the data.
    pub(crate) fn devices(&self) -> Result<[String; 2]> {
        let table = pool_table(&self.mapper, &self.name)?;
        let mut words = table.parameters.split_whitespace();
        let mut next =
            || device_node(words.next().unwrap_or_default()).map(|path| path.display().to_string());
        Ok([next()?, next()?])
    }

    /// The name of a device, which no other home on this host has.
    pub(crate) fn device_name(&self, key: &str, device: &DeviceMetadata) -> String {
        // DM_NAME_LEN of linux/dm-ioctl.h is 128, the zero at the end included.
        if self.prefix.len() + 1 + key.len() <= 127 {
            format!("{}-{key}", self.prefix)
        } else {
            // No id has an @.
            format!("{}-{}@{}", self.prefix, &key[..64], device.device_id)
        }
    }

    /// Removes the devices of the home's layers that nobody has open: a process was killed before it could leave their
    /// removal to the kernel. The caller has the home's lock, under which devices are made and opened.
    pub(crate) fn remove_idle_devices(&self) -> Result<()> {
        let start = format!("{}-", self.prefix);
        for name in self.mapper.idle_devices(&start)? {
            if name != self.name {
                self.mapper.try_remove(&name)?;
            }
        }
        Ok(())
    }

    pub(crate) fn status(&self) -> Result<PoolStatus> {
        PoolStatus::parse(&self.mapper.status(&self.name)?)
    }

    /// Has a device there for as long as what is returned is held, or anything else has it open.
    pub(crate) fn activate(&self, key: &str, device: &DeviceMetadata) -> Result<Active> {
        let table = Table {
            sectors: device.size / SECTOR,
            target: "thin",
            parameters: format!("{} {}", self.number, device.device_id),
        };
        self.mapper.activate(&self.device_name(key, device), &table)
    }

    /// Makes an empty device, or a snapshot of another one. The caller has noted it as being made.
    pub(crate) fn make(&self, device_id: u32, origin: Option<u32>) -> Result<(), Failure> {
        let message = match origin {
            None => format!("create_thin {device_id}"),
            Some(origin) => format!("create_snap {device_id} {origin}"),
        };
        self.mapper.message(&self.name, &message)
    }

    /// Deletes a device, which is not active. False where there is none.
    pub(crate) fn delete(&self, device_id: u32) -> Result<bool, Failure> {
        // What the kernel removes by itself has lost its name while the pool still has it open.
        match self.mapper.message_when_free(&self.name, &format!("delete {device_id}")) {
            Ok(()) => Ok(true),
            Err(Failure::Missing) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Counts a transaction as done.
    pub(crate) fn set_transaction_id(&self, old: u64, new: u64) -> Result<()> {
        self.mapper
            .message(&self.name, &format!("set_transaction_id {old} {new}"))
            .map_err(|failure| failure.into_error("count the transaction"))
    }

    /// Looks at the pool's metadata as they are now. The caller has the home's lock.
    pub(crate) fn with_metadata<T>(&self, look: impl FnOnce(&ThinMetadata) -> Result<T>) -> Result<T> {
        let failed = |failure: Failure| failure.into_error("take a snapshot of the pool's metadata");
        match self.mapper.message(&self.name, "reserve_metadata_snap") {
            // That of a process that was killed; nobody else takes one of our pool.
            Err(Failure::Busy) => {
                self.mapper.message(&self.name, "release_metadata_snap").map_err(failed)?;
                self.mapper.message(&self.name, "reserve_metadata_snap").map_err(failed)?;
            }
            result => result.map_err(failed)?,
        }
        let looked = self
            .status()
            .and_then(|status| {
                status
                    .held_root
                    .ok_or_else(|| Error::new(ErrorKind::Other, "the pool took no snapshot of its metadata"))
            })
            .and_then(|root| ThinMetadata::open(&self.metadata_device, root))
            .and_then(|metadata| look(&metadata));
        self.mapper.message(&self.name, "release_metadata_snap").map_err(failed)?;
        looked
    }

    /// Makes sure that there is room for something new, growing the pool if it can. The caller has the home's lock.
    ///
    /// # Errors
    /// `NoSpace` where less than the least part of the data or of the metadata is free.
    pub(crate) fn check_room(&self) -> Result<PoolStatus> {
        let mut status = self.status()?;
        if self.lack(&status)?.is_some() && self.grow()? {
            status = self.status()?;
        }
        match self.lack(&status)? {
            None => Ok(status),
            Some(lack) => Err(Error::new(ErrorKind::NoSpace, lack)),
        }
    }

    /// What there is too little of.
    ///
    /// # Errors
    /// Where what the pool lies on cannot be asked.
    pub(crate) fn lack(&self, status: &PoolStatus) -> Result<Option<String>> {
        if status.is_full || status.is_read_only {
            return Ok(Some(format!("the pool {} is full", self.name)));
        }
        let total = status.data.total * self.block_size;
        let mut free = status.data.free() * self.block_size;
        if let Backing::Loop(files) = &self.backing {
            free = free.min(files.backed(status.data.used * self.block_size)?);
        }
        let too_little =
            |free: u64, total: u64| u128::from(free) * 100 < u128::from(total) * u128::from(self.min_free);
        let least = self.min_free;
        if too_little(free, total) {
            return Ok(Some(format!(
                "{} MiB of the {} MiB of data in the pool {} are free, less than {least}% (dm.min_free_space)",
                free >> 20,
                total >> 20,
                self.name
            )));
        }
        // The kernel keeps a tenth, at most 16 MiB, for itself: __set_metadata_reserve() of dm-thin-metadata.c.
        let reserve = (status.metadata.total / 10).min(4096);
        let free = status.metadata.free().saturating_sub(reserve);
        if free == 0 || too_little(free, status.metadata.total) {
            return Ok(Some(format!(
                "{free} of the {} blocks of metadata in the pool {} are free, less than {least}% (dm.min_free_space)",
                status.metadata.total, self.name
            )));
        }
        Ok(None)
    }

    /// Grows a pool on loop devices as far as it may and what it lies on has room. Whether it did.
    pub(crate) fn grow(&self) -> Result<bool> {
        let Backing::Loop(files) = &self.backing else { return Ok(false) };
        let old = pool_table(&self.mapper, &self.name)?;
        if !files.grow(&old, &self.status()?, self.block_size)? {
            return Ok(false);
        }
        let sectors = files.data_size()? / self.block_size * (self.block_size / SECTOR);
        self.mapper.reload(&self.name, &Table { sectors, ..old })?;
        Ok(true)
    }

    /// Removes a layer's device, if it is there. False where it is in use.
    pub(crate) fn deactivate(&self, key: &str, device: &DeviceMetadata) -> Result<bool> {
        self.mapper.wait_for_removal(&self.device_name(key, device))
    }

    /// The two files under the pool, where it is on loop devices.
    pub(crate) fn loop_files(&self) -> Option<&LoopFiles> {
        match &self.backing {
            Backing::Loop(files) => Some(files),
            _ => None,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.active = None;
        // Otherwise the kernel does it, or somebody else.
        if !self.mapper.removes_by_itself()
            && !matches!(self.backing, Backing::Lent)
            && let Err(error) = self.mapper.try_remove(&self.name)
        {
            tracing::warn!(pool = %self.name, ?error, "the pool could not be deactivated");
        }
    }
}

/// What a pool is made of: `error_if_no_space`, so that who writes to a full pool gets an error and does not hang.
fn parameters(metadata: &str, data: &str, block_size: u64) -> String {
    format!("{metadata} {data} {} 1 1 error_if_no_space", block_size / SECTOR)
}

fn pool_table(mapper: &Mapper, name: &str) -> Result<Table> {
    match mapper.table(name)? {
        Some(table) if table.target == "thin-pool" => Ok(table),
        _ => Err(Error::new(ErrorKind::InvalidInput, format!("the device {name} is no thin pool"))),
    }
}

/// What the names of a home's devices start with, as Docker has it: the number of the home's directory, which no other
/// directory has.
fn prefix(home: &Path) -> Result<String> {
    let stat = rustix::fs::stat(home).map_err(|errno| Error::from_errno(errno, "inspect").with_path(home))?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    Ok(format!("docker-{major}:{minor}-{}", stat.st_ino))
}

/// The node of a device, by its number as tables name it.
pub(crate) fn device_node(number: &str) -> Result<PathBuf> {
    let path = format!("/sys/dev/block/{number}/uevent");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::from_io(error, "find the device").with_path(&path))?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map(|name| Path::new("/dev").join(name))
        .ok_or_else(|| Error::new(ErrorKind::Other, "the device has no name").with_path(path))
}

/// The number of a block device, as tables name it, and the device opened.
pub(crate) fn open_device(path: &Path) -> Result<(String, File)> {
    let fail = |error| Error::from_io(error, "open the block device").with_path(path);
    let file = File::options().read(true).write(true).open(path).map_err(fail)?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| fail(errno.into()))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::BlockDevice {
        return Err(Error::new(ErrorKind::InvalidInput, "is no block device").with_path(path));
    }
    Ok((format!("{}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_state_is_read() {
        let text = "5 21/1024 34/800 - rw discard_passdown error_if_no_space - 1024";
        let status = PoolStatus::parse(text).unwrap();
        assert_eq!(status.transaction_id, 5);
        assert_eq!((status.metadata, status.data.free()), (Room { used: 21, total: 1024 }, 766));
        assert!(!status.is_full && !status.is_read_only && status.held_root.is_none());
        let status = PoolStatus::parse("0 9/64 8/8 77 out_of_data_space x y -").unwrap();
        assert!(status.is_full && status.held_root == Some(77));
        assert!(PoolStatus::parse("1 9/64 8/8 - ro x y needs_check").unwrap().is_read_only);
        for text in ["Fail", "Error", "", "x 1/2 1/2 - rw"] {
            assert_eq!(PoolStatus::parse(text).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }
    }
}
