//! Loop devices: block devices made of files.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::sys::{self, LoopBacking};

/// The major number of loop devices: Documentation/admin-guide/devices.txt.
const MAJOR: u32 = 7;

/// How often another process may be quicker with a free device.
const TRIES: u32 = 100;

/// How often, and how long apart, it is looked whether a file is still behind a loop device.
const LOOKS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(5);

/// A loop device, open. It frees itself when nothing has it open any more.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    file: File,
    number: u32,
}

impl LoopDevice {
    /// Puts a file behind a free loop device.
    ///
    /// # Errors
    /// `Unavailable` without loop devices.
    pub(crate) fn attach(backing: &Path) -> Result<Self> {
        let control = File::open("/dev/loop-control").map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                "loop devices are missing: there is no /dev/loop-control that can be opened; as root, try: modprobe loop",
            )
            .with_source(error)
        })?;
        let opened = File::options().read(true).write(true).open(backing);
        let backing_file = opened.map_err(|error| Error::from_io(error, "open").with_path(backing))?;
        for _ in 0..TRIES {
            let number = sys::free_loop_device(&control)
                .map_err(|errno| Error::from_errno(errno, "find a free loop device"))?;
            let file = open_node(number)?;
            match sys::attach_loop(&file, &backing_file) {
                Ok(()) => return Ok(Self { file, number }),
                Err(Errno::BUSY) => {}
                Err(errno) => {
                    return Err(Error::from_errno(errno, "make a loop device of").with_path(backing));
                }
            }
        }
        Err(Error::new(ErrorKind::InUse, "others take every free loop device"))
    }

    /// The loop device with this number as tables name it, `7:0`; None where it is no loop device.
    pub(crate) fn open(number: &str) -> Result<Option<Self>> {
        let Some(minor) = number.strip_prefix("7:").and_then(|minor| minor.parse().ok()) else {
            return Ok(None);
        };
        Ok(Some(Self { file: open_node(minor)?, number: minor }))
    }

    /// Its number, as tables name it.
    pub(crate) fn number(&self) -> String {
        format!("{MAJOR}:{}", self.number)
    }

    /// Whether a file is behind it.
    pub(crate) fn is_of(&self, file: &Path) -> Result<bool> {
        Ok(self.backing(file)?.is_some())
    }

    /// What is behind it, if it is this file.
    fn backing(&self, file: &Path) -> Result<Option<LoopBacking>> {
        let Ok(wanted) = file.metadata() else { return Ok(None) };
        let found = sys::loop_backing(&self.file)
            .map_err(|errno| Error::from_errno(errno, "ask a loop device for its file"))?;
        Ok(found.filter(|found| found.file == (kernels_number(wanted.dev()), wanted.ino())))
    }

    /// Waits until no loop device has a file behind it. One that would keep it for good, since who made it was killed
    /// before it said that it is to be freed, is told so.
    ///
    /// # Errors
    /// `InUse` where one keeps it.
    pub(crate) fn wait_for_none(file: &Path) -> Result<()> {
        let mut found = None;
        for _ in 0..LOOKS {
            found = Self::with(file)?;
            if found.is_none() {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        let number = found.unwrap_or_default();
        let message = format!(
            "it is in use as /dev/loop{number}, and the home has no pool on it: find who has that open"
        );
        Err(Error::new(ErrorKind::InUse, message).with_path(file))
    }

    /// The number of a loop device that has a file behind it.
    fn with(file: &Path) -> Result<Option<u32>> {
        const DEVICES: &str = "/sys/block";
        let fail = |error| Error::from_io(error, "list the block devices").with_path(DEVICES);
        for entry in std::fs::read_dir(DEVICES).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok());
            let Some(number) = number else { continue };
            if !entry.path().join("loop/backing_file").exists() {
                continue;
            }
            // One that goes meanwhile has nothing behind it.
            let Ok(opened) = open_node(number) else { continue };
            let device = Self { file: opened, number };
            if let Some(backing) = device.backing(file)? {
                if !backing.is_freed_when_closed {
                    sys::free_when_closed(&device.file)
                        .map_err(|errno| Error::from_errno(errno, "have a loop device free itself"))?;
                }
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Its size, in bytes.
    pub(crate) fn size(&self) -> Result<u64> {
        sys::device_size(&self.file)
            .map_err(|errno| Error::from_errno(errno, "ask a loop device for its size"))
    }

    /// Takes notice that its file has grown.
    pub(crate) fn grow(&self) -> Result<()> {
        sys::loop_takes_new_length(&self.file).map_err(|errno| Error::from_errno(errno, "grow a loop device"))
    }
}

/// A device's number as the kernel's own calls have it: new_encode_dev() of linux/kdev_t.h.
fn kernels_number(device: u64) -> u64 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    u64::from((minor & 0xFF) | major << 8 | (minor & !0xFF) << 12)
}

fn open_node(number: u32) -> Result<File> {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let fail = |errno| Error::from_errno(errno, "open the loop device").with_path(&path);
    let open = || rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    match open() {
        // Without devtmpfs nobody else makes it.
        Err(Errno::NOENT) => {
            let device = rustix::fs::makedev(MAJOR, number);
            match rustix::fs::mknodat(CWD, &path, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device) {
                Ok(()) | Err(Errno::EXIST) => open().map(File::from).map_err(fail),
                Err(errno) => Err(fail(errno)),
            }
        }
        opened => opened.map(File::from).map_err(fail),
    }
}
