//! Making a device in the pool, so that pool and home never disagree.
//!
//! The pool counts transactions. To make a device:
//!
//! 1. the intent is written and flushed: the number that the transaction will have, one more than the pool's, and the
//!    device that will be made;
//! 2. the pool makes the device, which it makes durable itself;
//! 3. the device is noted in the home, durably;
//! 4. the pool counts the transaction.
//!
//! An intent whose number the pool has not reached is of a transaction that was interrupted. It is taken back before
//! anything else happens, by the same process or the next: whether its device is in the pool is looked up there, and it is
//! deleted only if the pool says that it was made since the last transaction. So a device that somebody else has under
//! the same number is never deleted, and none is lost.
//!
//! To delete a device its note is renamed, durably; then the pool deletes it; then the note goes. A number is used again
//! only after that.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use layerstack_core::{Error, ErrorKind, LayerId, Result, kill_point};
use serde::{Deserialize, Serialize};

use crate::layout::{DeviceMetadata, Layout, deleted_key};
use crate::mapper::Failure;
use crate::pool::{MOST_DEVICES, Pool};

/// What is being made: Docker's fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Intent {
    /// The number that the pool will have counted to afterwards.
    open_transaction_id: u64,
    /// The name of the note that the device will have.
    device_hash: String,
    /// The device's number in the pool.
    device_id: u32,
}

/// The length of the intent's file. It is written in place: a sector reaches the disk whole or not at all, and one that
/// did not was never acted upon.
const LENGTH: usize = 512;

impl Intent {
    fn read(layout: &Layout) -> Result<(File, Option<Self>)> {
        let mut file = layout.open_transaction()?;
        let mut json = Vec::new();
        file.read_to_end(&mut json).map_err(|error| Error::from_io(error, "read what is being made"))?;
        Ok((file, serde_json::from_slice(&json).ok()))
    }

    fn write(&self, file: &File) -> Result<()> {
        let mut json = serde_json::to_vec(self).unwrap_or_else(|_| unreachable!("strings and numbers only"));
        json.resize(LENGTH, b' ');
        file.write_all_at(&json, 0)
            .and_then(|()| file.sync_data())
            .map_err(|error| Error::from_io(error, "note what is being made"))
    }
}

/// The number that the pool had counted to when the home last had something made in it; None in a new home.
pub(crate) fn last(layout: &Layout) -> Result<Option<u64>> {
    Ok(Intent::read(layout)?.1.map(|intent| intent.open_transaction_id))
}

/// Takes back what was interrupted. The caller has the home's lock.
pub(crate) fn settle(layout: &Layout, pool: &Pool) -> Result<()> {
    layout.forget_unfinished()?;
    let (file, intent) = Intent::read(layout)?;
    let Some(mut intent) = intent else { return Ok(()) };
    let counted = pool.status()?.transaction_id;
    if intent.open_transaction_id <= counted {
        return Ok(());
    }
    if intent.open_transaction_id > counted + 1 {
        let message = format!(
            "the pool is at transaction {counted}, and the home has seen {}: it is another pool, or an older state of it",
            intent.open_transaction_id - 1
        );
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    let found = pool.with_metadata(|metadata| metadata.details(intent.device_id))?;
    if found.is_some_and(|details| details.transaction_id == counted) {
        if let Some(noted) = layout.device(&intent.device_hash)?
            && noted.device_id == intent.device_id
        {
            pool.deactivate(&intent.device_hash, &noted)?;
        }
        pool.delete(intent.device_id)
            .map_err(|failure| failure.into_error("delete a device whose making was interrupted"))?;
    }
    kill_point!("devicemapper.settle.deleted");
    if layout.device(&intent.device_hash)?.is_some_and(|noted| noted.device_id == intent.device_id) {
        layout.forget_device(&intent.device_hash)?;
    }
    intent.open_transaction_id = counted;
    intent.write(&file)
}

/// Makes a device: an empty one, or a snapshot of `origin`. The caller has the home's lock.
pub(crate) fn make(
    layout: &Layout,
    pool: &Pool,
    key: &str,
    origin: Option<u32>,
    size: u64,
    parent: Option<&LayerId>,
) -> Result<DeviceMetadata> {
    settle(layout, pool)?;
    let (file, last) = Intent::read(layout)?;
    let counted = pool.status()?.transaction_id;
    let mut device_id = last.map_or(0, |intent| intent.device_id);
    for _ in 0..MOST_DEVICES {
        // Docker starts with 1.
        device_id = if device_id + 1 < MOST_DEVICES { device_id + 1 } else { 1 };
        let intent = Intent { open_transaction_id: counted + 1, device_hash: key.to_owned(), device_id };
        intent.write(&file)?;
        kill_point!("devicemapper.make.intended");
        match pool.make(device_id, origin) {
            Ok(()) => {}
            // Of a layer that is as old as the numbers.
            Err(Failure::Exists) => continue,
            Err(failure) => return Err(failure.into_error("make a device in the pool")),
        }
        kill_point!("devicemapper.make.made");
        let device = DeviceMetadata {
            device_id,
            size,
            transaction_id: counted + 1,
            initialized: origin.is_some(),
            deleted: false,
            parent: parent.cloned(),
        };
        layout.write_device(key, &device)?;
        kill_point!("devicemapper.make.noted");
        pool.set_transaction_id(counted, counted + 1)?;
        return Ok(device);
    }
    Err(Error::new(ErrorKind::NoSpace, "the pool has as many devices as it can have"))
}

/// Deletes the devices that are to be deleted and that nobody uses any more. How many are left. The caller has the home's
/// lock.
pub(crate) fn delete_marked(layout: &Layout, pool: &Pool) -> Result<usize> {
    let mut left = 0;
    for device_id in layout.deleted()? {
        let noted = layout.deleted_device(device_id)?;
        // A device that has the number by now was made later.
        let is_it = match &noted {
            Some(noted) => {
                let found = pool.with_metadata(|metadata| metadata.details(device_id))?;
                found.is_some_and(|details| details.transaction_id + 1 == noted.transaction_id)
            }
            None => false,
        };
        if is_it {
            // Whoever was giving its space back was killed.
            let idle = match &noted {
                Some(noted) => pool.deactivate(&deleted_key(device_id), noted)?,
                None => true,
            };
            left += usize::from(!idle || !delete(layout, pool, device_id)?);
        } else {
            layout.forget_deleted(device_id)?;
        }
    }
    Ok(left)
}

/// Deletes a device whose note says that it is to be deleted. False where it is in use. The caller has the home's lock.
pub(crate) fn delete(layout: &Layout, pool: &Pool, device_id: u32) -> Result<bool> {
    match pool.delete(device_id) {
        Ok(_) => {}
        Err(Failure::Busy) => return Ok(false),
        Err(failure) => return Err(failure.into_error("delete a device")),
    }
    kill_point!("devicemapper.delete.deleted");
    layout.forget_deleted(device_id)?;
    Ok(true)
}
