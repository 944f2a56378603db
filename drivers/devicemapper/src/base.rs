//! The base device: an empty file system that every layer without a parent is a snapshot of.

use layerstack_core::mount::Access;
use layerstack_core::{Error, ErrorKind, Result, kill_point};

use crate::file_system;
use crate::layout::{BASE, DeviceMetadata, DeviceSet, Layout};
use crate::options::{BASE_SIZE, FileSystem, Settings};
use crate::pool::Pool;
use crate::transaction;

/// The base device, and the file system that all layers have.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) device: DeviceMetadata,
    pub(crate) file_system: FileSystem,
}

/// Finds the base device or makes it, and has it grow if it is to be larger. The caller has the home's lock, and nothing
/// is being made.
pub(crate) fn open(layout: &Layout, pool: &Pool, settings: &Settings) -> Result<Base> {
    let (device, set) = match (layout.device(BASE)?, layout.device_set()?) {
        (Some(device), Some(set)) if device.initialized => (device, set),
        (device, set) => {
            refuse_foreign(layout, pool, set.is_some())?;
            if let Some(half_made) = device {
                layout.mark_deleted(BASE, half_made.device_id)?;
                transaction::delete_marked(layout, pool)?;
            }
            make(layout, pool, settings)?
        }
    };
    let file_system = FileSystem::of_name(&set.base_file_system).ok_or_else(|| {
        let message =
            format!("the layers have the file system \"{}\", not ext4 or xfs", set.base_file_system);
        Error::new(ErrorKind::Unsupported, message)
    })?;
    let mut base = Base { device, file_system };
    if !set.base_has_tree {
        // Made by Docker.
        base.make_tree(layout, pool, settings, set)?;
    }
    match settings.base_size {
        Some(size) if size > base.device.size => base.grow(layout, pool, settings, size)?,
        _ => {}
    }
    Ok(base)
}

/// A pool that lies outside the home may be another home's: then its first device has another file system. To be called
/// before anything is changed in the pool. The caller has the home's lock.
pub(crate) fn refuse_other_pool(layout: &Layout, pool: &Pool) -> Result<()> {
    if pool.loop_files().is_some() {
        return Ok(());
    }
    let (Some(device), Some(set)) = (layout.device(BASE)?, layout.device_set()?) else { return Ok(()) };
    let Some(kind) = FileSystem::of_name(&set.base_file_system) else { return Ok(()) };
    let active = pool.activate(BASE, &device)?;
    let found = file_system::uuid(&active, kind)?;
    drop(active);
    put_away(pool, &device)?;
    if found == set.base_uuid {
        return Ok(());
    }
    let message = format!(
        "the pool {} has another base device ({found}) than the home knows ({}): it is another home's pool",
        pool.name(),
        set.base_uuid
    );
    Err(Error::new(ErrorKind::InvalidInput, message))
}

/// A pool that something else was made in is not a new home's.
fn refuse_foreign(layout: &Layout, pool: &Pool, has_layers: bool) -> Result<()> {
    if has_layers {
        return Err(Error::new(ErrorKind::Corrupt, "what is known of the base device is missing"));
    }
    let status = pool.status()?;
    if transaction::last(layout)?.unwrap_or(0) == status.transaction_id {
        return Ok(());
    }
    let message = format!(
        "the pool {} has {} transactions behind it that are not this home's; give an empty pool",
        pool.name(),
        status.transaction_id
    );
    Err(Error::new(ErrorKind::InvalidInput, message))
}

fn make(layout: &Layout, pool: &Pool, settings: &Settings) -> Result<(DeviceMetadata, DeviceSet)> {
    let kind = settings.file_system.unwrap_or(FileSystem::Ext4);
    if !file_system::has_program(kind) {
        return Err(file_system::missing_program(kind));
    }
    let size = settings.base_size.unwrap_or(BASE_SIZE) / pool.block_size() * pool.block_size();
    let mut device = transaction::make(layout, pool, BASE, None, size, None)?;
    kill_point!("devicemapper.base.made");
    let active = pool.activate(BASE, &device)?;
    file_system::make(&active, kind, settings)?;
    let base_uuid = file_system::uuid(&active, kind)?;
    file_system::make_tree(file_system::plan(active, kind, settings, Access::ReadWrite, ""))?;
    put_away(pool, &device)?;
    kill_point!("devicemapper.base.filled");
    let set = DeviceSet {
        next_device_id: device.device_id + 1,
        base_uuid,
        base_file_system: kind.name().to_owned(),
        base_has_tree: true,
    };
    device.initialized = true;
    layout.write_device(BASE, &device)?;
    kill_point!("devicemapper.base.noted");
    layout.write_device_set(&set)?;
    Ok((device, set))
}

fn put_away(pool: &Pool, device: &DeviceMetadata) -> Result<()> {
    if pool.deactivate(BASE, device)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InUse, "the base device is in use by something else"))
}

impl Base {
    fn make_tree(&self, layout: &Layout, pool: &Pool, settings: &Settings, set: DeviceSet) -> Result<()> {
        let active = pool.activate(BASE, &self.device)?;
        file_system::make_tree(file_system::plan(active, self.file_system, settings, Access::ReadWrite, ""))?;
        put_away(pool, &self.device)?;
        layout.write_device_set(&DeviceSet { base_has_tree: true, ..set })
    }

    fn grow(&mut self, layout: &Layout, pool: &Pool, settings: &Settings, size: u64) -> Result<()> {
        let grown =
            DeviceMetadata { size: size / pool.block_size() * pool.block_size(), ..self.device.clone() };
        let active = pool.activate(BASE, &grown)?;
        let plan = file_system::plan(active, self.file_system, settings, Access::ReadWrite, "");
        file_system::grow(plan, self.file_system, grown.size)?;
        put_away(pool, &grown)?;
        layout.write_device(BASE, &grown)?;
        self.device = grown;
        Ok(())
    }
}
