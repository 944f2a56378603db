//! Finding out whether overlayfs works on this host, in the place where the home is to be.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layerstack_core::fs::{FileSystemType, remove_tree};
use layerstack_core::mount::{Access, MountOption, MountPlan, attach_detached};
use layerstack_core::registry::OpenRequest;
use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, FileType, FlockOperation};

use crate::options::Settings;
use crate::sys::Directory;

/// Mounts a small overlay beside or in the home, changes it, and looks at what came of it.
pub(crate) fn probe(request: &OpenRequest<'_>) -> Result<()> {
    let settings = Settings::parse(request.options, in_user_namespace())?;
    let place = existing(request.home);
    let kind = FileSystemType::of(place)?;
    if [FileSystemType::OVERLAY, FileSystemType::AUFS, FileSystemType::NFS].contains(&kind) {
        return Err(unavailable(format!(
            "overlayfs cannot keep layers on {}; give a root on ext4, xfs or btrfs",
            kind.name()
        ))
        .with_path(place));
    }
    let scratch = Scratch::new(place)?;
    try_out(&scratch, &settings, &kind.name()).map_err(|error| match error.kind() {
        ErrorKind::Unavailable | ErrorKind::NoSpace => error,
        _ => unavailable(format!("overlayfs does not work on {} here", kind.name())).with_source(error),
    })
}

/// Whether this process is in another user namespace than the host's, where overlayfs keeps its own attributes in the
/// name space `user.` (`userxattr`, kernel 5.11).
pub(crate) fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    // The host's namespace maps all ids to themselves: user_namespaces(7).
    !map.is_empty() && map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

fn try_out(scratch: &Scratch, settings: &Settings, kind: &str) -> Result<()> {
    let directory = &scratch.directory;
    for name in ["lower1", "lower2", "upper", "work"] {
        directory.make(name, 0o755)?;
    }
    directory.write("lower1/deleted", b"")?;
    directory.write("lower2/kept", b"")?;
    if directory.entries()?.iter().any(|(_, kind)| *kind == FileType::Unknown) {
        return Err(unavailable(format!(
            "{kind} does not tell the type of a file in a directory (d_type) here; make it anew with: mkfs.xfs -n \
             ftype=1, or mkfs.ext4 -O filetype"
        )));
    }
    let mut plan = MountPlan::bind("overlay", Access::ReadWrite, "/");
    plan.fstype = "overlay".to_owned();
    plan.base = Some(directory.path().to_owned());
    plan.options = vec![
        MountOption::Layers("lowerdir".to_owned(), vec!["lower1".into(), "lower2".into()]),
        MountOption::Path("upperdir".to_owned(), "upper".into()),
        MountOption::Path("workdir".to_owned(), "work".into()),
    ];
    plan.options.extend(settings.mount_options(Access::ReadWrite, false, in_user_namespace()));
    let root = attach_detached(&plan)?;
    let failed = |what: &'static str| move |errno| Error::from_errno(errno, what);
    rustix::fs::statat(&root, c"kept", AtFlags::empty()).map_err(failed("find a file of a lower layer"))?;
    rustix::fs::unlinkat(root.as_fd(), c"deleted", AtFlags::empty())
        .map_err(failed("delete a file of a lower layer"))?;
    let whiteout = directory.stat("upper/deleted")?;
    if whiteout.is_none_or(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice) {
        return Err(unavailable(format!("overlayfs cannot write a whiteout on {kind} here")));
    }
    Ok(())
}

/// The nearest directory on the way to `path` that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/"))
}

fn unavailable(message: String) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

/// The directory in which the probe works. One process has it at a time, and it goes with all it holds.
struct Scratch {
    /// Locked as long as it is open, so that what lies in it is of this probe or of a process that was killed.
    directory: Directory,
    parent: PathBuf,
}

impl Scratch {
    /// With a dot first it is no layer's.
    const NAME: &str = ".layerstack-probe";

    fn new(parent: &Path) -> Result<Self> {
        let above = Directory::open(parent)?;
        let directory = loop {
            above.make_if_absent(Self::NAME, 0o700)?;
            let Some(directory) = above.enter(Self::NAME)? else { continue };
            let failed = |errno| Error::from_errno(errno, "lock").with_path(directory.path());
            rustix::io::retry_on_intr(|| rustix::fs::flock(&directory, FlockOperation::LockExclusive))
                .map_err(failed)?;
            // Whoever had it before has removed it, and another may have made it anew.
            let opened = rustix::fs::fstat(&directory).map_err(failed)?;
            if above.stat(Self::NAME)?.is_some_and(|named| named.st_ino == opened.st_ino) {
                break directory;
            }
        };
        let scratch = Self { directory, parent: parent.to_owned() };
        for (name, _) in scratch.directory.entries()? {
            let name = OsStr::from_bytes(name.to_bytes());
            remove_tree(&scratch.directory, name, scratch.directory.path())?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = Directory::open(&self.parent)
            .and_then(|above| remove_tree(&above, Self::NAME.as_ref(), &self.parent));
        if let Err(error) = removed {
            tracing::warn!(?error, "what the probe made could not be removed");
        }
    }
}
