//! Where things are in the driver's home, and what is noted there.
//!
//! ```text
//! <home>/devicemapper/{data,metadata}     the pool's files, where it is on loop devices
//! <home>/metadata/<id>                    what is known of a layer's device
//! <home>/metadata/base                    the same of the device that all base layers are snapshots of
//! <home>/metadata/deviceset-metadata      what is known of the file system on it
//! <home>/metadata/transaction-metadata    what is being made: see transaction.rs
//! <home>/metadata/.deleted-<device id>    a device that is to be deleted
//! <home>/metadata/.tmp                    one of these while it is written
//! <home>/mnt/<id>                         where the layer is mounted if the caller names no other place; its tree, which
//!                                         the file system on the device has in `rootfs`. Absent otherwise
//! <home>/lock                             flock'ed while the pool is changed
//! ```
//! All but the last and the names with a dot in front are Docker's. Docker keeps the names with a dot for its own
//! temporary files and reads none of them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use layerstack_core::fs::sync_directory;
use layerstack_core::{Error, ErrorKind, LayerId, Result, kill_point};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Names in `metadata` that Docker has for other things, or that a device of ours has: a layer with such an id gets a dot in
/// front, which no id has.
const TAKEN: [&str; 4] = ["base", "pool", "deviceset-metadata", "transaction-metadata"];

/// What the notes of devices that are to be deleted start with.
const DELETED: &str = ".deleted-";

/// What a note is written as before it has its name.
const UNFINISHED: &str = ".tmp";

/// What is known of a device: Docker's fields, and the layer's parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceMetadata {
    /// The device's number in the pool, 24 bits.
    pub(crate) device_id: u32,
    /// In bytes.
    pub(crate) size: u64,
    /// The transaction that made it.
    pub(crate) transaction_id: u64,
    /// Whether it has a file system.
    pub(crate) initialized: bool,
    /// Docker's word for a device that is to be deleted.
    #[serde(default)]
    pub(crate) deleted: bool,
    /// The layer's parent. Docker does not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<LayerId>,
}

/// What is known of all devices: Docker's fields, and one of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceSet {
    /// Docker's counter.
    pub(crate) next_device_id: u32,
    /// The UUID of the file system on the base device.
    #[serde(rename = "BaseDeviceUUID")]
    pub(crate) base_uuid: String,
    /// Its type.
    #[serde(rename = "BaseDeviceFilesystem")]
    pub(crate) base_file_system: String,
    /// Whether the base device has a `rootfs` in it, which Docker makes in each layer.
    #[serde(rename = "BaseDeviceRootfs", default)]
    pub(crate) base_has_tree: bool,
}

/// The key of the device that all base layers are snapshots of: see [`key_of`].
pub(crate) const BASE: &str = "base";

/// The key of a layer's device: the name of its note, and what its own name ends in.
pub(crate) fn key_of(id: &LayerId) -> String {
    if TAKEN.contains(&id.as_str()) { format!(".{id}") } else { id.to_string() }
}

/// The key of a device that is to be deleted.
pub(crate) fn deleted_key(device_id: u32) -> String {
    format!("{DELETED}{device_id}")
}

/// The home, opened.
#[derive(Debug)]
pub(crate) struct Layout {
    home: PathBuf,
    metadata: OwnedFd,
    lock: OwnedFd,
}

impl Layout {
    /// Opens a home, making it where it is absent.
    pub(crate) fn open(home: &Path) -> Result<Self> {
        if let Some(parent) = home.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| Error::from_io(error, "make the directory").with_path(parent))?;
        }
        let passable = Mode::RWXU | Mode::XGRP;
        let opened = make_directory(home, passable)?;
        make_directory(&home.join("devicemapper"), Mode::RWXU)?;
        make_directory(&home.join("mnt"), passable)?;
        let metadata = make_directory(&home.join("metadata"), Mode::RWXU)?;
        sync_directory(opened, home)?;
        let path = home.join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| Error::from_errno(errno, "open").with_path(path))?;
        Ok(Self { home: home.to_owned(), metadata, lock })
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The file that is locked while the pool is changed.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// The file with the pool's data, where it is on loop devices.
    pub(crate) fn data_file(&self) -> PathBuf {
        self.home.join("devicemapper/data")
    }

    /// The same for its metadata.
    pub(crate) fn metadata_file(&self) -> PathBuf {
        self.home.join("devicemapper/metadata")
    }

    /// The path at which a layer is mounted if the caller names none.
    pub(crate) fn mount_point(&self, id: &LayerId) -> PathBuf {
        self.home.join("mnt").join(id.as_str())
    }

    /// What is known of a device; None where there is no such note.
    pub(crate) fn device(&self, key: &str) -> Result<Option<DeviceMetadata>> {
        self.read(key)
    }

    /// What is known of a layer's device.
    ///
    /// # Errors
    /// `Corrupt` where nothing is.
    pub(crate) fn layer(&self, id: &LayerId) -> Result<DeviceMetadata> {
        let key = key_of(id);
        self.device(&key)?.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "what is known of the layer's device is missing")
                .with_path(self.path(&key))
        })
    }

    /// Notes a device durably.
    pub(crate) fn write_device(&self, key: &str, device: &DeviceMetadata) -> Result<()> {
        self.write(key, &to_json(device))
    }

    /// What is known of all devices; None in a new home.
    pub(crate) fn device_set(&self) -> Result<Option<DeviceSet>> {
        self.read("deviceset-metadata")
    }

    pub(crate) fn write_device_set(&self, set: &DeviceSet) -> Result<()> {
        self.write("deviceset-metadata", &to_json(set))
    }

    /// Takes a device's name away, durably: in one step the layer is gone. Its number stays noted until
    /// [`Layout::forget_deleted`].
    pub(crate) fn mark_deleted(&self, key: &str, device_id: u32) -> Result<()> {
        rustix::fs::renameat(&self.metadata, key, &self.metadata, deleted_key(device_id))
            .map_err(|errno| Error::from_errno(errno, "rename").with_path(self.path(key)))?;
        self.sync()
    }

    /// The numbers of the devices that are to be deleted.
    pub(crate) fn deleted(&self) -> Result<Vec<u32>> {
        let names = self.names()?;
        Ok(names.iter().filter_map(|name| name.strip_prefix(DELETED)?.parse().ok()).collect())
    }

    /// What is known of a device that is to be deleted.
    pub(crate) fn deleted_device(&self, device_id: u32) -> Result<Option<DeviceMetadata>> {
        self.read(&deleted_key(device_id))
    }

    /// Forgets a device that was deleted.
    pub(crate) fn forget_deleted(&self, device_id: u32) -> Result<()> {
        self.unlink(&deleted_key(device_id))
    }

    /// Forgets a device, durably. That nothing is known of it is no error.
    pub(crate) fn forget_device(&self, key: &str) -> Result<()> {
        self.unlink(key)?;
        self.sync()
    }

    /// The ids of all layers of which a device is known.
    pub(crate) fn layers(&self) -> Result<Vec<LayerId>> {
        let mut ids = Vec::new();
        for name in self.names()? {
            let id = match name.strip_prefix('.') {
                Some(id) if TAKEN.contains(&id) => id,
                None if !TAKEN.contains(&name.as_str()) || name == "pool" => &name,
                _ => continue,
            };
            // A name that is no id is not ours.
            ids.extend(LayerId::new(id));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Opens the file that says what is being made, making it where it is absent.
    pub(crate) fn open_transaction(&self) -> Result<File> {
        let path = self.path("transaction-metadata");
        let open = |flags| {
            rustix::fs::openat(&self.metadata, "transaction-metadata", flags, Mode::from_raw_mode(0o600))
        };
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match open(flags) {
            Err(Errno::NOENT) => {
                let file = open(flags | OFlags::CREATE)
                    .map_err(|errno| Error::from_errno(errno, "make").with_path(path))?;
                self.sync()?;
                Ok(file.into())
            }
            opened => {
                opened.map(File::from).map_err(|errno| Error::from_errno(errno, "open").with_path(path))
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.join("metadata").join(name)
    }

    fn sync(&self) -> Result<()> {
        sync_directory(&self.metadata, &self.home.join("metadata"))
    }

    fn names(&self) -> Result<Vec<String>> {
        let path = self.home.join("metadata");
        let fail = |errno| Error::from_errno(errno, "list").with_path(&path);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.metadata).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if let Ok(name) = entry.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = match rustix::fs::openat(&self.metadata, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::from_errno(errno, "open").with_path(self.path(name))),
        };
        let mut json = Vec::new();
        file.read_to_end(&mut json)
            .map_err(|error| Error::from_io(error, "read").with_path(self.path(name)))?;
        let noted = serde_json::from_slice(&json).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "what is known of a device cannot be read")
                .with_path(self.path(name))
                .with_source(error)
        })?;
        Ok(Some(noted))
    }

    /// Takes away what an interrupted write left. The caller has the home's lock.
    pub(crate) fn forget_unfinished(&self) -> Result<()> {
        self.unlink(UNFINISHED)
    }

    /// Writes a file durably: whole, or not at all.
    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let fail = |error| Error::from_io(error, "write").with_path(self.path(name));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.metadata, UNFINISHED, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(file.map_err(|errno| fail(errno.into()))?);
        file.write_all(content).and_then(|()| file.sync_data()).map_err(fail)?;
        kill_point!("devicemapper.note.written");
        rustix::fs::renameat(&self.metadata, UNFINISHED, &self.metadata, name)
            .map_err(|errno| fail(errno.into()))?;
        self.sync()
    }

    fn unlink(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.metadata, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::from_errno(errno, "remove").with_path(self.path(name))),
        }
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("strings and numbers only"))
}

fn make_directory(path: &Path, mode: Mode) -> Result<OwnedFd> {
    let made = match rustix::fs::mkdir(path, mode) {
        // Without the process's umask.
        Ok(()) => rustix::fs::chmod(path, mode),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    made.and_then(|()| rustix::fs::open(path, flags, Mode::empty()))
        .map_err(|errno| Error::from_errno(errno, "make the directory").with_path(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(device_id: u32) -> DeviceMetadata {
        let parent = None;
        DeviceMetadata {
            device_id,
            size: 1 << 30,
            transaction_id: 3,
            initialized: true,
            deleted: false,
            parent,
        }
    }

    #[test]
    fn ids_that_docker_uses_for_other_things_are_layers_too() {
        let scratch = tempfile::tempdir().unwrap();
        let layout = Layout::open(&scratch.path().join("devicemapper")).unwrap();
        let ids: Vec<_> = TAKEN.iter().chain(&["layer"]).map(|id| LayerId::new(*id).unwrap()).collect();
        layout.write_device(BASE, &device(1)).unwrap();
        layout.open_transaction().unwrap();
        assert_eq!(layout.layers().unwrap(), []);
        for (number, id) in (2..).zip(&ids) {
            assert_eq!(layout.device(&key_of(id)).unwrap(), None);
            layout.write_device(&key_of(id), &device(number)).unwrap();
        }
        let mut sorted = ids.clone();
        sorted.sort();
        assert_eq!(layout.layers().unwrap(), sorted);
        for (number, id) in (2..).zip(&ids) {
            assert_eq!(layout.layer(id).unwrap(), device(number));
            layout.mark_deleted(&key_of(id), number).unwrap();
            assert_eq!(layout.layer(id).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        assert_eq!(layout.layers().unwrap(), []);
        assert_eq!(layout.deleted().unwrap().len(), 5);
        layout.forget_deleted(2).unwrap();
        assert_eq!(layout.deleted().unwrap().len(), 4);
        assert_eq!(layout.device(BASE).unwrap(), Some(device(1)));
    }

    #[test]
    fn dockers_notes_are_read() {
        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().join("devicemapper");
        let layout = Layout::open(&home).unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.join("metadata").join(name), text).unwrap();
        write(
            "f00",
            r#"{"device_id":7,"size":10737418240,"transaction_id":9,"initialized":false,"deleted":false}"#,
        );
        write(
            "deviceset-metadata",
            r#"{"next_device_id":8,"BaseDeviceUUID":"u","BaseDeviceFilesystem":"xfs"}"#,
        );
        assert_eq!(layout.layer(&LayerId::new("f00").unwrap()).unwrap().device_id, 7);
        assert!(!layout.device_set().unwrap().unwrap().base_has_tree);
        write("bad", "{");
        assert_eq!(layout.layer(&LayerId::new("bad").unwrap()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
