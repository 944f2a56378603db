//! Making a mount through the new mount interface: `fsopen`, `fsconfig`, `fsmount`, `open_tree`, `move_mount`
//! (kernel 5.2) and `mount_setattr` (5.12).
//!
//! A mount is complete, with its attributes, before it gets a place in the tree of files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::error::{Error, Result};

use super::attach::{errno_of, mount_error, no_file_system};
use super::directory::{on_stage, working_in};
use super::{Access, MountOption, MountPlan, classic, sys};

/// The longest value that fsconfig(2) takes, in bytes: 256 with the zero at the end.
const LONGEST_VALUE: usize = 255;

/// Whether overlayfs takes its layers one by one (`lowerdir+`, kernel 6.7), in which case 500 of them can be
/// stacked whatever their names; found out by trying, once.
///
/// Otherwise they must fit into the option string of mount(2), which is as long as a page of memory.
pub fn appends_layers() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(context) = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return false };
        // A kernel that knows the key misses the directory. One that does not know it says so at once (EINVAL),
        // or, before 6.5, takes any key and complains later.
        fsconfig_set_string(&context, "lowerdir+", "/proc/self/fd/-1") == Err(Errno::NOENT)
    })
}

/// A plan in the terms of this interface.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    plan: &'a MountPlan,
    /// Where relative paths start, if the settings have such: it becomes the working directory of a thread.
    base: Option<&'a Path>,
    settings: Vec<Setting>,
}

/// A key and, unless it is a flag, a value for one call of fsconfig(2).
type Setting = (String, Option<Vec<u8>>);

/// Puts a plan in the terms of this interface; None where it cannot express it. Paths are absolute, since the mount
/// table shows them, unless they are too long for that.
pub(super) fn prepare(plan: &MountPlan) -> Option<Prepared<'_>> {
    if plan.is_bind() {
        return Some(Prepared { plan, base: None, settings: Vec::new() });
    }
    if plan.options.iter().any(|option| matches!(option, MountOption::Layers(..))) && !appends_layers() {
        return None;
    }
    let base = plan.base.as_deref();
    let absolute = settings(plan, base);
    if absolute.iter().all(plain) {
        return Some(Prepared { plan, base: None, settings: absolute });
    }
    let relative = settings(plan, None);
    (base.is_some() && relative.iter().all(plain)).then_some(Prepared { plan, base, settings: relative })
}

impl Prepared<'_> {
    /// Makes the mount, without a place. `ENOSYS` as the source of an error means that the kernel lacks the
    /// interface.
    pub(super) fn make(&self) -> Result<OwnedFd> {
        match self.base {
            _ if self.plan.is_bind() => clone_tree(CWD, &self.plan.source, self.plan.access),
            Some(base) => working_in(base, || self.make_file_system()),
            None => self.make_file_system(),
        }
        .and_then(|mount| match &self.plan.subdirectory {
            Some(subdirectory) => clone_subdirectory(&mount, subdirectory, self.plan.access),
            None => Ok(mount),
        })
    }

    fn make_file_system(&self) -> Result<OwnedFd> {
        let fstype = self.plan.fstype.as_str();
        let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
            Errno::NODEV => no_file_system(fstype),
            errno => mount_error(errno, format!("mount {fstype}")),
        })?;
        let failed = |what: &str| {
            let what = format!("mount {fstype}{what}");
            |errno| context_error(&context, errno, what)
        };
        fsconfig_set_string(&context, "source", &self.plan.source).map_err(failed(": set the source"))?;
        let mut attributes = MountAttrFlags::empty();
        if self.plan.access == Access::ReadOnly {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
            fsconfig_set_flag(&context, "ro").map_err(failed(": set ro"))?;
        }
        for (key, value) in &self.settings {
            match value {
                None => fsconfig_set_flag(&context, key).map_err(failed(&format!(": set {key}")))?,
                Some(value) => fsconfig_set_string(&context, key, value)
                    .map_err(|errno| failed(&format!(": set {key}={}", value.escape_ascii()))(errno))?,
            }
        }
        fsconfig_create(&context).map_err(failed(""))?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed(""))?;
        self.plan.apply_settings()?;
        Ok(mount)
    }
}

/// Gives a mount its place and takes it out of the peer group that it joined there.
pub(super) fn place(mount: BorrowedFd<'_>, target: &Path) -> Result<()> {
    move_mount(mount, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|errno| mount_error(errno, "attach the mount").with_path(target))?;
    let private = match sys::set_private(mount) {
        // Kernels from 5.2 to 5.11 have the one interface without the other.
        Err(Errno::NOSYS) => classic::set_private(target),
        result => result.map_err(|errno| mount_error(errno, "make the mount private").with_path(target)),
    };
    private.inspect_err(|_| classic::take_away(target))
}

/// A mount of one directory of `mount`. Before kernel 6.15 a mount without a place cannot be cloned, so it gets one for
/// a moment.
fn clone_subdirectory(mount: &OwnedFd, subdirectory: &Path, access: Access) -> Result<OwnedFd> {
    match clone_tree(mount.as_fd(), subdirectory, access) {
        Err(error) if errno_of(&error) == Some(Errno::INVAL) => on_stage(|stage| {
            place(mount.as_fd(), stage)?;
            crate::kill_point!("mount.staged");
            let clone = clone_tree(CWD, &stage.join(subdirectory), access);
            // The table outlives the thread by a moment.
            classic::take_away(stage);
            clone
        }),
        cloned => cloned,
    }
}

fn clone_tree(directory: BorrowedFd<'_>, source: &Path, access: Access) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let mount = open_tree(directory, source, flags)
        .map_err(|errno| mount_error(errno, "bind the directory").with_path(source))?;
    if access == Access::ReadOnly {
        sys::set_read_only(&mount)
            .map_err(|errno| mount_error(errno, "make the mount read-only").with_path(source))?;
    }
    Ok(mount)
}

fn settings(plan: &MountPlan, base: Option<&Path>) -> Vec<Setting> {
    let value = |path: &Path| {
        let path = base.map_or_else(|| path.to_owned(), |base| base.join(path));
        Some(path.into_os_string().into_vec())
    };
    let mut settings = Vec::new();
    for option in &plan.options {
        match option {
            MountOption::Flag(key) => settings.push((key.clone(), None)),
            MountOption::Value(key, text) => settings.push((key.clone(), Some(text.clone().into_bytes()))),
            MountOption::Path(key, path) => settings.push((key.clone(), value(path))),
            MountOption::Layers(key, stack) => {
                settings.extend(stack.iter().map(|path| (format!("{key}+"), value(path))));
            }
        }
    }
    settings
}

/// Whether fsconfig(2) takes the value as it is: it is cut off at 255 bytes, and overlayfs reads a backslash in
/// `upperdir` and `workdir` as an escape, but not in `lowerdir+`.
fn plain((_, value): &Setting) -> bool {
    value.as_ref().is_none_or(|value| value.len() <= LONGEST_VALUE && !value.contains(&b'\\'))
}

/// The error of a file system context, with what the kernel has to say about it: each read gives one message,
/// a letter for its weight in front ("e overlay: too many lower directories").
fn context_error(context: &OwnedFd, errno: Errno, what: String) -> Error {
    let mut what = what;
    let mut buffer = [0_u8; 1024];
    while let Ok(length @ 1..) = rustix::io::read(context.as_fd(), &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        let text = text.trim_end();
        what.push_str(": ");
        what.push_str(text.strip_prefix(['e', 'w', 'i']).map_or(text, str::trim_start));
    }
    mount_error(errno, what)
}
