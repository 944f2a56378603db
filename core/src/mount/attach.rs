//! Attaching a plan, and taking a mount away.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::error::{Error, ErrorKind, Result};

use super::directory::on_stage;
use super::lookup::{id_of, mounted_at};
use super::{MountId, MountPlan, classic, fsmount};

/// Which of the kernel's two interfaces makes a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// `fsopen`, `fsconfig`, `fsmount`, `move_mount`: kernel 5.2, overlayfs with many layers 6.7.
    Fsmount,
    /// mount(2), the options as one string of at most a page.
    Classic,
}

/// A mount that was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attached {
    /// Where it is.
    pub target: PathBuf,
    /// Its number, by which it is told from whatever is mounted there later. None before kernel 5.8 where the mount
    /// table cannot be read.
    pub id: Option<MountId>,
}

/// Mounts a plan at `target`, an existing directory; through the new interface where the kernel has what the plan
/// needs, through mount(2) otherwise.
///
/// # Errors
/// - `Unavailable` where the kernel lacks the file system, `PermissionDenied` without `CAP_SYS_ADMIN`.
/// - `Unsupported` where the kernel cannot stack so many layers.
/// - `InUse` where a device or directory of the plan is taken.
/// - Otherwise what the kernel gives, with what it says about it. Nothing is mounted then.
pub fn attach(plan: &MountPlan, target: &Path) -> Result<Attached> {
    if let Some(prepared) = fsmount::prepare(plan) {
        match through_fsmount(&prepared, target) {
            Err(error) if lacks_interface(&error) => {}
            result => return result,
        }
    }
    through_classic(plan, target)
}

/// As [`attach`], through a given interface.
///
/// # Errors
/// As [`attach`]; `Unsupported` also where the interface cannot express the plan.
pub fn attach_through(interface: Interface, plan: &MountPlan, target: &Path) -> Result<Attached> {
    match interface {
        Interface::Fsmount => through_fsmount(&prepared(plan)?, target),
        Interface::Classic => through_classic(plan, target),
    }
}

/// Makes the mount of a plan without a place in the tree of files: a descriptor (`O_PATH`) of its root. The mount
/// goes when the last descriptor of anything in it is closed.
///
/// # Errors
/// As [`attach`].
pub fn attach_detached(plan: &MountPlan) -> Result<OwnedFd> {
    if let Some(prepared) = fsmount::prepare(plan) {
        match prepared.make() {
            Err(error) if lacks_interface(&error) => {}
            result => return result,
        }
    }
    detached_through_classic(plan)
}

/// As [`attach_detached`], through a given interface.
///
/// # Errors
/// As [`attach_through`].
pub fn attach_detached_through(interface: Interface, plan: &MountPlan) -> Result<OwnedFd> {
    match interface {
        Interface::Fsmount => prepared(plan)?.make(),
        Interface::Classic => detached_through_classic(plan),
    }
}

/// How often, and how long apart, a busy mount is tried again. A process that is just being forked by another thread
/// holds all descriptors of this one until it executes its program.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// Unmounts `target`.
///
/// # Errors
/// - `InUse` where something in the mount stays open or a working directory; it stays mounted.
/// - `NotFound` where nothing is mounted there.
pub fn detach(target: &Path) -> Result<()> {
    let unmount = || rustix::mount::unmount(target, UnmountFlags::NOFOLLOW);
    let mut result = unmount();
    for _ in 1..TRIES {
        if result != Err(Errno::BUSY) {
            break;
        }
        std::thread::sleep(PAUSE);
        result = unmount();
    }
    result.map_err(|errno| {
        let error = match errno {
            Errno::INVAL | Errno::NOENT | Errno::NOTDIR => {
                Error::new(ErrorKind::NotFound, "nothing is mounted there")
            }
            Errno::BUSY => Error::new(
                ErrorKind::InUse,
                "the mount is in use: a file in it is open, a process works in it, or something is mounted in it",
            ),
            errno => mount_error(errno, "unmount"),
        };
        error.with_path(target)
    })
}

/// A failed call of the mount interface. A lack of privilege is named.
pub(super) fn mount_error(errno: Errno, what: impl Into<String>) -> Error {
    let mut what = what.into();
    if errno == Errno::PERM {
        what.push_str(": this needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace");
    }
    Error::from_errno(errno, what)
}

pub(super) fn no_file_system(fstype: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the kernel has no file system \"{fstype}\"; try: modprobe {fstype}"),
    )
}

fn prepared(plan: &MountPlan) -> Result<fsmount::Prepared<'_>> {
    fsmount::prepare(plan).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("fsmount(2) cannot express this mount of {}", plan.fstype))
    })
}

fn through_fsmount(prepared: &fsmount::Prepared<'_>, target: &Path) -> Result<Attached> {
    let mount = prepared.make()?;
    let id = id_of(&mount)?;
    fsmount::place(mount.as_fd(), target)?;
    Ok(Attached { target: target.to_owned(), id })
}

fn through_classic(plan: &MountPlan, target: &Path) -> Result<Attached> {
    classic::mount_at(plan, target)?;
    let id = mounted_at(target).inspect_err(|_| classic::take_away(target))?;
    Ok(Attached { target: target.to_owned(), id })
}

/// Whether the kernel, or a filter in front of it, has no such system call.
fn lacks_interface(error: &Error) -> bool {
    errno_of(error) == Some(Errno::NOSYS)
}

/// What the kernel said.
pub(super) fn errno_of(error: &Error) -> Option<Errno> {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.and_then(Errno::from_io_error)
}

/// Mounts the plan out of sight, opens it and unmounts it lazily: the descriptor keeps the mount.
fn detached_through_classic(plan: &MountPlan) -> Result<OwnedFd> {
    on_stage(|stage| {
        classic::mount_at(plan, stage)?;
        crate::kill_point!("mount.staged");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(stage, flags, Mode::empty())
            .map_err(|errno| Error::from_errno(errno, "open the mount"));
        // The table outlives the thread by a moment.
        classic::take_away(stage);
        root
    })
}
