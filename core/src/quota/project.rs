//! Projects of one file system.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::sys::{self, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::FileSystemType;

/// A project's number; never 0, which is what belongs to no project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(u32);

impl ProjectId {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The limits of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Limits {
    /// The most bytes that may be allocated, rounded up to whole KiB; 0 for no limit.
    pub bytes: u64,
    /// The most inodes; 0 for no limit.
    pub inodes: u64,
}

impl Limits {
    /// A limit of bytes alone.
    #[must_use]
    pub fn of_bytes(bytes: u64) -> Self {
        Self { bytes, inodes: 0 }
    }
}

/// What a project uses, as the file system counts it, and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectUsage {
    /// Bytes allocated.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// What is allowed.
    pub limits: Limits,
}

/// The projects of the file system that holds a home.
#[derive(Debug)]
pub struct ProjectQuota {
    home: OwnedFd,
    path: PathBuf,
    /// The block device, where the kernel cannot be asked by descriptor.
    device: Option<CString>,
}

/// The numbers that we take.
const FIRST: u32 = 1 << 30;
const COUNT: u32 = 1 << 30;

/// `QIF_DQBLKSIZE`: the unit of block limits, in bytes.
const BLOCK: u64 = 1024;
/// `QIF_BLIMITS` and `QIF_ILIMITS`: which fields of a `struct dqblk` are to be set.
const SET_LIMITS: u32 = 1 | 4;

impl ProjectQuota {
    /// Finds out whether project quota works in `home`, an existing directory.
    ///
    /// # Errors
    /// `Unsupported` where it does not; the message says why and what to do, and fits into a
    /// [`Feature`](crate::capability::Feature).
    pub fn probe(home: &Path) -> Result<Self> {
        let kind = FileSystemType::of(home)?.name();
        if !["extfs", "xfs", "f2fs"].contains(&kind.as_str()) {
            return Err(unsupported(format!("{kind} has no project quota; ext4, xfs and f2fs have")));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(home, flags, Mode::empty())
            .map_err(|errno| Error::from_errno(errno, "open the directory").with_path(home))?;
        let mut quota = Self { home: fd, path: home.to_owned(), device: None };
        let mut state = sys::state(&quota.target());
        if state == Err(Errno::NOSYS) {
            // Before 5.14 the call is absent; the same errno says that no quota is on.
            quota.device =
                Some(device_of(&quota.home).map_err(|errno| quota.failed(errno, "find the device"))?);
            state = sys::state(&quota.target());
        }
        match state {
            Ok(flags) if flags & sys::ENFORCED != 0 => Ok(quota),
            Ok(flags) if flags & sys::COUNTED != 0 => Err(unsupported(format!(
                "{kind} at {} counts projects, but does not enforce their limits; {}",
                home.display(),
                remedy(&kind)
            ))),
            Err(Errno::PERM | Errno::ACCESS) => {
                Err(unsupported("asking for project quota needs CAP_SYS_ADMIN on the host".to_owned()))
            }
            _ => Err(unsupported(format!(
                "project quota is off for {kind} at {}; {}",
                home.display(),
                remedy(&kind)
            ))),
        }
    }

    /// Makes an empty directory of the home a project of its own, with limits: all that is made in it counts. `name`
    /// says where to look for a number first; give the layer's id.
    ///
    /// # Errors
    /// `PermissionDenied` outside the host's user namespace; `InvalidInput` for limits that the file system cannot
    /// keep; what the kernel gives.
    pub fn assign(&self, directory: impl AsFd, name: &str, limits: Limits) -> Result<ProjectId> {
        let lock = self.lock()?;
        let project = self.unused(name)?;
        self.set_limits(project, limits)?;
        let attributes = sys::get_attributes(&directory)
            .and_then(|attributes| sys::set_attributes(&directory, attributes.in_project(project.0)))
            .map_err(|errno| self.failed(errno, "set the project of a directory"));
        drop(lock);
        attributes.map(|()| project)
    }

    /// The project of a directory; None where it is of none of ours.
    ///
    /// # Errors
    /// What the kernel gives.
    pub fn project_of(&self, directory: impl AsFd) -> Result<Option<ProjectId>> {
        let attributes = sys::get_attributes(directory)
            .map_err(|errno| self.failed(errno, "read the project of a directory"))?;
        let ours = (FIRST..FIRST + COUNT).contains(&attributes.projid);
        Ok(ours.then_some(ProjectId(attributes.projid)))
    }

    /// What a project uses.
    ///
    /// # Errors
    /// What the kernel gives.
    pub fn usage(&self, project: ProjectId) -> Result<ProjectUsage> {
        match sys::get(&self.target(), project.0) {
            Ok(block) => Ok(ProjectUsage {
                bytes: block.dqb_curspace,
                inodes: block.dqb_curinodes,
                limits: Limits {
                    bytes: block.dqb_bhardlimit.saturating_mul(BLOCK),
                    inodes: block.dqb_ihardlimit,
                },
            }),
            // xfs says so of a project that it has no record of.
            Err(Errno::NOENT) => {
                Ok(ProjectUsage { bytes: 0, inodes: 0, limits: Limits { bytes: 0, inodes: 0 } })
            }
            Err(errno) => Err(self.failed(errno, "read the quota of a project")),
        }
    }

    /// Takes the limits of a project away, once what was in it is gone. Without that nothing breaks: the number is taken
    /// again, and its limits are set anew.
    ///
    /// # Errors
    /// What the kernel gives.
    pub fn clear(&self, project: ProjectId) -> Result<()> {
        self.set_limits(project, Limits::default())
    }

    fn set_limits(&self, project: ProjectId, limits: Limits) -> Result<()> {
        let blocks = limits.bytes.div_ceil(BLOCK);
        let mut block = sys::empty();
        block.dqb_bhardlimit = blocks;
        block.dqb_bsoftlimit = blocks;
        block.dqb_ihardlimit = limits.inodes;
        block.dqb_isoftlimit = limits.inodes;
        block.dqb_valid = SET_LIMITS;
        sys::set(&self.target(), project.0, block).map_err(|errno| match errno {
            Errno::RANGE => Error::new(
                ErrorKind::InvalidInput,
                format!("the file system cannot keep a limit of {} bytes", limits.bytes),
            ),
            errno => self.failed(errno, "set the quota of a project"),
        })
    }

    /// A number that no inode has, the first from where `name` points.
    fn unused(&self, name: &str) -> Result<ProjectId> {
        for number in candidates(name) {
            let project = ProjectId(number);
            if self.usage(project)?.inodes == 0 {
                return Ok(project);
            }
        }
        Err(Error::new(ErrorKind::NoSpace, "all numbers of projects are taken").with_path(&self.path))
    }

    /// Held until the descriptor is closed. Locks belong to the open file, so each call opens the home anew.
    fn lock(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.home, c".", flags, Mode::empty())
            .and_then(|fd| rustix::fs::flock(&fd, FlockOperation::LockExclusive).map(|()| fd))
            .map_err(|errno| self.failed(errno, "lock the home"))
    }

    fn target(&self) -> Target<'_, OwnedFd> {
        match &self.device {
            None => Target::Open(&self.home),
            Some(device) => Target::Device(device),
        }
    }

    fn failed(&self, errno: Errno, what: &str) -> Error {
        Error::from_errno(errno, what).with_path(&self.path)
    }
}

/// All our numbers once, from one that `name` points to.
fn candidates(name: &str) -> impl Iterator<Item = u32> {
    // FNV-1a, 32 bits: short, and the same for all times.
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..COUNT).map(move |step| FIRST + (hash % COUNT + step) % COUNT)
}

/// The link to the block device that udev makes.
fn device_of(directory: &OwnedFd) -> Result<CString, Errno> {
    let device = rustix::fs::fstat(directory)?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    CString::new(format!("/dev/block/{major}:{minor}")).map_err(|_| Errno::INVAL)
}

fn remedy(kind: &str) -> &'static str {
    match kind {
        "xfs" => "mount it with: -o pquota",
        "f2fs" => "make it with: mkfs.f2fs -O extra_attr,quota,project_quota, and mount it with: -o prjquota",
        _ => "unmount it, run: tune2fs -O quota,project -Q prjquota DEVICE, and mount it with: -o prjquota",
    }
}

fn unsupported(message: String) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ours_and_follow_from_the_name() {
        let first = |name: &str| candidates(name).next().unwrap();
        assert_eq!(first("a"), first("a"));
        assert_ne!(first("a"), first("b"));
        for name in ["", "a", "some-layer", &"z".repeat(128)] {
            assert!(candidates(name).take(1000).all(|number| (FIRST..=0x7fff_ffff).contains(&number)));
        }
    }

    #[test]
    fn a_file_system_without_project_quota_says_so() {
        let error = ProjectQuota::probe(Path::new("/dev/shm")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("tmpfs has no project quota"), "{error}");
    }
}
