//! The file systems that lie on the devices.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use layerstack_core::mount::{Access, Hold, MountOption, MountPlan, attach_detached};
use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::mapper::Active;
use crate::options::{FileSystem, Settings};
use crate::sys;

/// The directory with the layer's tree, as in Docker's layout.
pub(crate) const TREE: &str = "rootfs";

/// Makes a file system on a new device.
pub(crate) fn make(device: &Active, kind: FileSystem, settings: &Settings) -> Result<()> {
    let mut command = Command::new(format!("mkfs.{}", kind.name()));
    match kind {
        // A new thin device reads as zeros, so nothing has to be written to make it so, now or in each layer.
        FileSystem::Ext4 => {
            command.args(["-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"]);
        }
        FileSystem::Xfs => {
            command.args(["-q", "-f", "-K"]);
        }
    }
    command.args(&settings.mkfs_arguments).arg(&device.path);
    let output = command.output().map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            missing_program(kind)
        } else {
            Error::from_io(error, format!("start {}", shown(&command)))
        }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(Error::new(ErrorKind::Other, format!("{} ended with {}: {said}", shown(&command), output.status)))
}

fn shown(command: &Command) -> String {
    format!("{command:?}").replace('"', "")
}

/// What to say where a file system cannot be made.
pub(crate) fn missing_program(kind: FileSystem) -> Error {
    let (program, package) = match kind {
        FileSystem::Ext4 => ("mkfs.ext4", "e2fsprogs"),
        FileSystem::Xfs => ("mkfs.xfs", "xfsprogs"),
    };
    let message = format!("{program} is missing; get it with the package {package}");
    Error::new(ErrorKind::Unavailable, message)
}

/// The plan to mount a device. The plan holds it.
pub(crate) fn plan(
    device: Active,
    kind: FileSystem,
    settings: &Settings,
    access: Access,
    target: impl AsRef<Path>,
) -> MountPlan {
    let mut plan = MountPlan::bind(&device.path, access, target.as_ref());
    kind.name().clone_into(&mut plan.fstype);
    let own = match kind {
        // The kernel would write zeros where there are zeros, in every layer.
        FileSystem::Ext4 => "noinit_itable",
        // A snapshot has its origin's UUID.
        FileSystem::Xfs => "nouuid",
    };
    plan.options.push(MountOption::Flag(own.to_owned()));
    plan.options.extend(settings.mount_options.iter().map(|option| match option.split_once('=') {
        Some((key, value)) => MountOption::Value(key.to_owned(), value.to_owned()),
        None => MountOption::Flag(option.clone()),
    }));
    if let (FileSystem::Xfs, Some(retries)) = (kind, settings.xfs_retries) {
        // Documentation/admin-guide/xfs.rst, "Error handling". The kernel's name of a device is dm- and its number.
        let minor = device.number.split_once(':').map_or("", |(_, minor)| minor);
        let file = format!("/sys/fs/xfs/dm-{minor}/error/metadata/ENOSPC/max_retries");
        plan.settings.push((file.into(), retries.to_string()));
    }
    plan.subdirectory = Some(TREE.into());
    plan.hold = Hold::new(device.file.into());
    plan
}

/// Makes the directory for the tree in a file system that has none.
pub(crate) fn make_tree(mut plan: MountPlan) -> Result<()> {
    plan.subdirectory = None;
    let root = attach_detached(&plan)?;
    let fail = |errno| Error::from_errno(errno, "make the directory for the layers' trees");
    match rustix::fs::mkdirat(&root, TREE, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(fail(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tree = rustix::fs::openat(&root, TREE, flags, Mode::empty()).map_err(fail)?;
    // Without the process's umask.
    rustix::fs::fchmod(&tree, Mode::from_raw_mode(0o755)).map_err(fail)?;
    rustix::fs::syncfs(&tree).map_err(fail)
}

/// Has the file system on a device take all of the device, which has grown to `size` bytes.
pub(crate) fn grow(mut plan: MountPlan, kind: FileSystem, size: u64) -> Result<()> {
    plan.subdirectory = None;
    let root = attach_detached(&plan)?;
    let fail = |errno| Error::from_errno(errno, "grow the file system");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&root, c".", flags, Mode::empty()).map_err(fail)?;
    let block = rustix::fs::fstatvfs(&root).map_err(fail)?.f_bsize;
    match kind {
        FileSystem::Ext4 => sys::grow_ext4(root.as_fd(), size / block),
        FileSystem::Xfs => sys::grow_xfs(root.as_fd(), size / block),
    }
    .and_then(|()| rustix::fs::syncfs(&root))
    .map_err(fail)
}

/// The UUID of the file system on a device, as Docker notes it.
pub(crate) fn uuid(device: &Active, kind: FileSystem) -> Result<String> {
    // s_uuid of struct ext4_super_block, which starts at 1024; sb_uuid of struct xfs_dsb.
    let offset = match kind {
        FileSystem::Ext4 => 1024 + 0x68,
        FileSystem::Xfs => 32,
    };
    let mut uuid = [0; 16];
    device
        .file
        .read_exact_at(&mut uuid, offset)
        .map_err(|error| Error::from_io(error, "read the file system's UUID").with_path(&device.path))?;
    let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Ok(parts.join("-"))
}

/// Whether the program is there that makes a file system.
pub(crate) fn has_program(kind: FileSystem) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = format!("mkfs.{}", kind.name());
    std::env::split_paths(&path).any(|directory| {
        rustix::fs::accessat(
            CWD,
            directory.join(&program),
            rustix::fs::Access::EXEC_OK,
            rustix::fs::AtFlags::empty(),
        )
        .is_ok()
    })
}
