//! Making a mount through mount(2), for kernels without the new interface and for what that cannot express.

use std::ffi::CString;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};

use crate::error::{Error, ErrorKind, Result};

use super::attach::{mount_error, no_file_system};
use super::directory::{PrivateDirectory, working_in};
use super::plan::escaped;
use super::{Access, MountOption, MountPlan};

/// Mounts a plan at `target`. Where it takes a mount in a private directory first, which only kernels without the new
/// interface come to here, a kill at that moment leaves it there: a mount cannot go from one table to another.
pub(super) fn mount_at(plan: &MountPlan, target: &Path) -> Result<()> {
    if let Some(subdirectory) = &plan.subdirectory {
        let stage = PrivateDirectory::new()?;
        mount_file_system(plan, stage.path())?;
        // The mount of the directory takes over the flags of the one that it is made of.
        let bound = bind(&stage.path().join(subdirectory), target);
        take_away(stage.path());
        bound?;
    } else if !plan.is_bind() {
        mount_file_system(plan, target)?;
    } else if plan.access == Access::ReadOnly {
        bind_read_only(&plan.source, target)?;
    } else {
        bind(&plan.source, target)?;
    }
    set_private(target).inspect_err(|_| take_away(target))
}

/// Takes a mount out of its peer group.
pub(super) fn set_private(target: &Path) -> Result<()> {
    mount_change(target, MountPropagationFlags::PRIVATE)
        .map_err(|errno| mount_error(errno, "make the mount private").with_path(target))
}

/// Unmounts what was mounted a moment ago. In use or not, it leaves the tree of files.
pub(super) fn take_away(target: &Path) {
    if let Err(errno) = unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        tracing::warn!(path = %target.display(), %errno, "a mount could not be taken away");
    }
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount_bind(source, target)
        .map_err(|errno| mount_error(errno, format!("bind {}", source.display())).with_path(target))
}

/// MS_BIND ignores MS_RDONLY, so a bind is writable until it is remounted. That happens in a private directory; a
/// bind of that mount is read-only from its first moment, since it takes over the flags of the mount it is made of.
fn bind_read_only(source: &Path, target: &Path) -> Result<()> {
    let stage = PrivateDirectory::new()?;
    bind(source, stage.path())?;
    let result = kept_flags(stage.path())
        .and_then(|flags| mount_remount(stage.path(), flags | MountFlags::BIND | MountFlags::RDONLY, c""))
        .map_err(|errno| mount_error(errno, "make the mount read-only").with_path(source))
        .and_then(|()| bind(stage.path(), target));
    take_away(stage.path());
    result
}

/// The flags of a mount that a remount would drop if they were not given again.
fn kept_flags(path: &Path) -> Result<MountFlags, Errno> {
    let flags = rustix::fs::statvfs(path)?.f_flag;
    Ok([
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ]
    .into_iter()
    .filter(|(set, _)| flags.contains(*set))
    .map(|(_, flag)| flag)
    .collect())
}

fn mount_file_system(plan: &MountPlan, target: &Path) -> Result<()> {
    let options = option_string(plan, rustix::param::page_size() - 1)?;
    let flags = match plan.access {
        Access::ReadOnly => MountFlags::RDONLY,
        Access::ReadWrite => MountFlags::empty(),
    };
    let target = std::path::absolute(target).map_err(|error| Error::from_io(error, "find the target"))?;
    let call = || {
        mount(&plan.source, &target, plan.fstype.as_str(), flags, options.as_c_str()).map_err(|errno| {
            match errno {
                Errno::NODEV => no_file_system(&plan.fstype),
                errno => mount_error(errno, format!("mount {}", plan.fstype)).with_path(&target),
            }
        })
    };
    match &plan.base {
        Some(base) => working_in(base, call),
        None => call(),
    }?;
    plan.apply_settings().inspect_err(|_| take_away(&target))
}

/// The options as one string of at most `room` bytes, paths as the plan has them. The kernel copies one page and
/// takes no more.
fn option_string(plan: &MountPlan, room: usize) -> Result<CString> {
    let mut text: Vec<u8> = Vec::new();
    let mut stacked = 0;
    for option in &plan.options {
        if !text.is_empty() {
            text.push(b',');
        }
        match option {
            MountOption::Flag(key) => text.extend_from_slice(key.as_bytes()),
            MountOption::Value(key, value) => text.extend_from_slice(format!("{key}={value}").as_bytes()),
            MountOption::Path(key, path) => {
                text.extend_from_slice(format!("{key}=").as_bytes());
                text.append(&mut escaped(path));
            }
            MountOption::Layers(key, paths) => {
                stacked = paths.len();
                let paths: Vec<_> = paths.iter().map(|path| escaped(path)).collect();
                text.extend_from_slice(format!("{key}=").as_bytes());
                text.append(&mut paths.join(&b':'));
            }
        }
    }
    if text.len() > room {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the mount options of {stacked} layers take {} bytes and this kernel takes {room}; it would need \
                 \"lowerdir+\" of overlayfs (Linux 6.7)",
                text.len()
            ),
        ));
    }
    CString::new(text)
        .map_err(|_| Error::new(ErrorKind::InvalidInput, "a mount option has a zero byte in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_string_escapes_paths_and_knows_its_limit() {
        let mut plan = MountPlan::bind("overlay", Access::ReadWrite, "/t");
        plan.fstype = "overlay".to_owned();
        plan.options = vec![
            MountOption::Layers("lowerdir".into(), vec!["l/A".into(), "/x:y,z\\".into()]),
            MountOption::Path("upperdir".into(), "a/diff".into()),
            MountOption::Value("index".into(), "off".into()),
            MountOption::Flag("volatile".into()),
        ];
        let expected = c"lowerdir=l/A:/x\\:y\\,z\\\\,upperdir=a/diff,index=off,volatile";
        let length = expected.to_bytes().len();
        assert_eq!(option_string(&plan, length).unwrap().as_c_str(), expected);
        let error = option_string(&plan, length - 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("2 layers"), "{error}");
    }
}
