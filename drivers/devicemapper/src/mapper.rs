//! device-mapper's calls, with names for what can go wrong.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devicemapper::{DM, DevId, Device, DmError, DmFlags, DmName, DmOptions, errors};
use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// A table of one target: its length in sectors of 512 bytes, its type, its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) sectors: u64,
    pub(crate) target: &'static str,
    pub(crate) parameters: String,
}

/// A device that is there, with its node open: it stays for as long as this is held.
#[derive(Debug)]
pub(crate) struct Active {
    /// The node.
    pub(crate) file: File,
    /// Its path.
    pub(crate) path: PathBuf,
    /// Its number, as tables name it.
    pub(crate) number: String,
}

/// device-mapper.
pub(crate) struct Mapper {
    dm: DM,
    /// Whether devices are to go by themselves when they are no longer open.
    deferred_removal: bool,
}

impl fmt::Debug for Mapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapper").field("deferred_removal", &self.deferred_removal).finish_non_exhaustive()
    }
}

/// How often, and how long apart, a device is looked for again that is just going or coming.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(5);

impl Mapper {
    /// Opens device-mapper.
    ///
    /// # Errors
    /// `Unavailable` without it.
    pub(crate) fn open(deferred_removal: bool) -> Result<Self> {
        let dm = DM::new().map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                "device-mapper is missing: there is no /dev/mapper/control that can be opened; as root, try: modprobe dm-mod",
            )
            .with_source(error)
        })?;
        Ok(Self { dm, deferred_removal })
    }

    /// Whether devices go by themselves when they are no longer open.
    pub(crate) fn removes_by_itself(&self) -> bool {
        self.deferred_removal
    }

    /// Whether the kernel has a target.
    pub(crate) fn has_target(&self, target: &str) -> Result<bool> {
        let versions =
            self.dm.list_versions().map_err(|error| failed(&error, "ask device-mapper for its targets"))?;
        Ok(versions.iter().any(|(name, ..)| name == target))
    }

    /// device-mapper's own version.
    pub(crate) fn version(&self) -> Result<String> {
        let (major, minor, patch) =
            self.dm.version().map_err(|error| failed(&error, "ask device-mapper for its version"))?;
        Ok(format!("{major}.{minor}.{patch}"))
    }

    /// Makes sure that a device is there with this table.
    ///
    /// # Errors
    /// `InUse` where a device of this name with another table is in use.
    pub(crate) fn activate(&self, name: &str, table: &Table) -> Result<Active> {
        let id = dm_name(name)?;
        for _ in 0..TRIES {
            match self.dm.device_info(&DevId::Name(id)) {
                Ok(info) if info.flags().contains(DmFlags::DM_ACTIVE_PRESENT) => {
                    let Some(active) = open_node(info.device(), name)? else {
                        std::thread::sleep(PAUSE);
                        continue;
                    };
                    if self.table(name)?.as_ref() == Some(table) {
                        return self.keep(name, active);
                    }
                    // What is left of a layer that had the same id.
                    drop(active);
                    if !self.try_remove(name)? {
                        std::thread::sleep(PAUSE);
                    }
                }
                // Whoever made it was killed before it had a table.
                Ok(_) => self.remove(name)?,
                Err(error) if errno(&error) == Some(Errno::NXIO) => match self.make(id, table) {
                    Ok(()) => {}
                    Err(error) if errno(&error) == Some(Errno::BUSY) => std::thread::sleep(PAUSE),
                    Err(error) => {
                        return Err(failed(
                            &error,
                            &format!("activate the device {name} ({})", table.target),
                        ));
                    }
                },
                Err(error) => return Err(failed(&error, &format!("look for the device {name}"))),
            }
        }
        let message = format!("a device {name} of another layer or home is still in use");
        Err(Error::new(ErrorKind::InUse, message))
    }

    /// Opens a device that is there; None without it.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Active>> {
        match self.dm.device_info(&DevId::Name(dm_name(name)?)) {
            Ok(info) if info.flags().contains(DmFlags::DM_ACTIVE_PRESENT) => open_node(info.device(), name),
            Ok(_) => Ok(None),
            Err(error) if errno(&error) == Some(Errno::NXIO) => Ok(None),
            Err(error) => Err(failed(&error, &format!("look for the device {name}"))),
        }
    }

    /// The devices that nobody has open and whose names start so.
    pub(crate) fn idle_devices(&self, start: &str) -> Result<Vec<String>> {
        let fail = |error: &DmError| failed(error, "list the devices");
        let mut idle = Vec::new();
        for (name, ..) in self.dm.list_devices().map_err(|error| fail(&error))? {
            let Ok(text) = std::str::from_utf8(name.as_bytes()) else { continue };
            if !text.starts_with(start) {
                continue;
            }
            match self.dm.device_info(&DevId::Name(&name)) {
                Ok(info) if info.open_count() == 0 => idle.push(text.to_owned()),
                Ok(_) => {}
                // It has just gone.
                Err(error) if errno(&error) == Some(Errno::NXIO) => {}
                Err(error) => return Err(fail(&error)),
            }
        }
        Ok(idle)
    }

    fn make(&self, id: &DmName, table: &Table) -> Result<(), DmError> {
        let device = DevId::Name(id);
        self.dm.device_create(id, None, DmOptions::private())?;
        self.dm
            .table_load(&device, &raw(table), DmOptions::default())
            .and_then(|_| self.dm.device_suspend(&device, DmOptions::private()))
            .map(drop)
            .inspect_err(|_| {
                // The first error says what went wrong.
                let _ = self.dm.device_remove(&device, DmOptions::private());
            })
    }

    /// Has the kernel remove a device when the last that has it open closes it.
    pub(crate) fn keep(&self, name: &str, active: Active) -> Result<Active> {
        if self.deferred_removal {
            let options = DmOptions::private().set_flags(DmFlags::DM_DEFERRED_REMOVE);
            self.dm
                .device_remove(&DevId::Name(dm_name(name)?), options)
                .map_err(|error| failed(&error, "leave a device's removal to the kernel"))?;
        }
        Ok(active)
    }

    /// Gives a device another table.
    pub(crate) fn reload(&self, name: &str, table: &Table) -> Result<()> {
        let id = DevId::Name(dm_name(name)?);
        self.dm
            .table_load(&id, &raw(table), DmOptions::default())
            .and_then(|_| self.dm.device_suspend(&id, DmOptions::private()))
            .map(drop)
            .map_err(|error| failed(&error, &format!("change the device {name}")))
    }

    /// Removes a device. False where it is in use; then the kernel removes it later if it was told to.
    pub(crate) fn try_remove(&self, name: &str) -> Result<bool> {
        let flags = if self.deferred_removal { DmFlags::DM_DEFERRED_REMOVE } else { DmFlags::empty() };
        let id = dm_name(name)?;
        match self.dm.device_remove(&DevId::Name(id), DmOptions::private().set_flags(flags)) {
            Ok(_) => match self.dm.device_info(&DevId::Name(id)) {
                Err(error) if errno(&error) == Some(Errno::NXIO) => Ok(true),
                Err(error) => Err(failed(&error, &format!("look for the device {name}"))),
                Ok(_) => Ok(false),
            },
            Err(error) => match errno(&error) {
                Some(Errno::NXIO) => Ok(true),
                Some(Errno::BUSY) => Ok(false),
                _ => Err(failed(&error, &format!("remove the device {name}"))),
            },
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.try_remove(name).map(drop)
    }

    /// Waits for a device to go that is about to: a process that was killed closes it only when it is next scheduled. False
    /// where it stays.
    pub(crate) fn wait_for_removal(&self, name: &str) -> Result<bool> {
        for _ in 0..TRIES {
            if self.try_remove(name)? {
                return Ok(true);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(false)
    }

    /// A device's table; None where it has none.
    pub(crate) fn table(&self, name: &str) -> Result<Option<Table>> {
        let targets = self.targets(name, DmFlags::DM_STATUS_TABLE)?;
        Ok(targets.into_iter().next().map(|(_, sectors, target, parameters)| Table {
            sectors,
            target: ["thin-pool", "thin", "linear"]
                .into_iter()
                .find(|known| *known == target)
                .unwrap_or("other"),
            parameters: parameters.trim_end().to_owned(),
        }))
    }

    /// A device's state in its target's words. Nothing is written for it.
    pub(crate) fn status(&self, name: &str) -> Result<String> {
        let targets = self.targets(name, DmFlags::DM_NOFLUSH)?;
        let status = targets.into_iter().next().map(|(.., status)| status);
        status.ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("the device {name} has no table")))
    }

    fn targets(&self, name: &str, flags: DmFlags) -> Result<Vec<(u64, u64, String, String)>> {
        let id = DevId::Name(dm_name(name)?);
        let status = self.dm.table_status(&id, DmOptions::default().set_flags(flags));
        status.map(|(_, targets)| targets).map_err(|error| failed(&error, &format!("ask the device {name}")))
    }

    /// As [`Mapper::message`], about something that is about to be free.
    pub(crate) fn message_when_free(&self, name: &str, message: &str) -> Result<(), Failure> {
        for _ in 0..TRIES {
            match self.message(name, message) {
                Err(Failure::Busy) => std::thread::sleep(PAUSE),
                sent => return sent,
            }
        }
        self.message(name, message)
    }

    /// Sends a message to a device's target.
    pub(crate) fn message(&self, name: &str, message: &str) -> Result<(), Failure> {
        let id = dm_name(name).map_err(Failure::Other)?;
        match self.dm.target_msg(&DevId::Name(id), Some(0), message) {
            Ok(_) => Ok(()),
            Err(error) => Err(match errno(&error) {
                Some(Errno::EXIST) => Failure::Exists,
                Some(Errno::NODATA | Errno::NOENT) => Failure::Missing,
                Some(Errno::BUSY) => Failure::Busy,
                _ => Failure::Other(failed(&error, &format!("have the pool {name} do \"{message}\""))),
            }),
        }
    }
}

/// Why a message was not followed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What it was to make is there.
    Exists,
    /// What it is about is not there.
    Missing,
    /// What it is about is in use.
    Busy,
    /// Anything else.
    Other(Error),
}

impl Failure {
    pub(crate) fn into_error(self, what: &str) -> Error {
        match self {
            Self::Exists => Error::new(ErrorKind::Corrupt, format!("{what}: it is there already")),
            Self::Missing => Error::new(ErrorKind::Corrupt, format!("{what}: it is not there")),
            Self::Busy => Error::new(ErrorKind::InUse, format!("{what}: it is in use")),
            Self::Other(error) => error,
        }
    }
}

fn raw(table: &Table) -> [(u64, u64, String, String); 1] {
    [(0, table.sectors, table.target.to_owned(), table.parameters.clone())]
}

fn dm_name(name: &str) -> Result<&DmName> {
    DmName::new(name).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, format!("\"{name}\" is no name of a device-mapper device"))
            .with_source(error)
    })
}

fn errno(error: &DmError) -> Option<Errno> {
    match error {
        DmError::Core(errors::Error::Ioctl(.., errno)) => Some(Errno::from_raw_os_error(**errno as i32)),
        _ => None,
    }
}

/// What a failed call means: the one place where device-mapper's error numbers become kinds.
fn failed(error: &DmError, what: &str) -> Error {
    match errno(error) {
        Some(Errno::OPNOTSUPP | Errno::ROFS) => {
            let message =
                format!("{what}: the pool takes no changes; it is full or broken, see the kernel's log");
            Error::new(ErrorKind::NoSpace, message)
        }
        Some(Errno::NODATA) => Error::new(ErrorKind::Corrupt, format!("{what}: the pool has no such device")),
        Some(errno) => Error::from_errno(errno, what),
        None => Error::new(ErrorKind::Other, format!("{what}: {error}")),
    }
}

/// Opens a device's node, making one where nobody else does. None where the device has just gone.
fn open_node(device: Device, name: &str) -> Result<Option<Active>> {
    let number = rustix::fs::makedev(device.major, device.minor);
    // The kernel's own name, by devtmpfs; else one of ours where libdevmapper would have it.
    let kernels = PathBuf::from(format!("/dev/dm-{}", device.minor));
    let path = if is_node(&kernels, number) {
        kernels
    } else {
        let ours = Path::new("/dev/mapper").join(name);
        if !is_node(&ours, number) {
            make_node(&ours, number)?;
        }
        ours
    };
    match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => Ok(Some(Active { file: file.into(), path, number: device.to_string() })),
        Err(Errno::NXIO | Errno::NOENT | Errno::NODEV) => {
            if path.starts_with("/dev/mapper") {
                // The node that was just made leads nowhere; it may have gone already.
                let _ = rustix::fs::unlink(&path);
            }
            Ok(None)
        }
        Err(errno) => Err(Error::from_errno(errno, "open").with_path(path)),
    }
}

fn is_node(path: &Path, number: u64) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice && stat.st_rdev == number
    })
}

fn make_node(path: &Path, number: u64) -> Result<()> {
    let fail = |errno| Error::from_errno(errno, "make the device node").with_path(path);
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(fail(errno)),
    }
    match rustix::fs::mknodat(CWD, path, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, number) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(fail(errno)),
    }
}
