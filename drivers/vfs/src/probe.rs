//! What the host and the home's file system can do.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use layerstack_core::capability::{Capabilities, Feature};
use layerstack_core::fs::{FileSystemType, Reflink};
use layerstack_core::registry::OpenRequest;
use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;

use crate::options::Settings;
use crate::sys;

/// Finds out whether the driver can work in a home: it can wherever it can write.
pub(crate) fn probe(request: &OpenRequest<'_>) -> Result<()> {
    Settings::parse(request.options)?;
    let existing = request.home.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let unavailable = |what: &str| Error::new(ErrorKind::Unavailable, what).with_path(existing);
    if !existing.is_dir() {
        return Err(unavailable("is no directory; choose another root"));
    }
    rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK).map_err(|errno| {
        let what = match errno {
            Errno::ROFS => "is on a read-only file system; choose another root",
            _ => "cannot be written to; run as root, or choose another root",
        };
        unavailable(what).with_source(std::io::Error::from(errno))
    })
}

/// What the driver offers in an existing home.
pub(crate) fn capabilities(home: &Path, reflink: Reflink) -> Result<Capabilities> {
    let tried =
        try_out(home).map_err(|errno| Error::from_errno(errno, "probe the file system").with_path(home))?;
    let file_system = FileSystemType::of(home)?.name();
    let mut capabilities = Capabilities::none("every layer is a copy of its parent's whole tree");
    capabilities.fork_live = Feature::no("a copy of a tree that is written to meanwhile is of no one moment");
    capabilities.shares_blocks = match (reflink, tried.clones) {
        (Reflink::Never, _) => Feature::no("turned off by vfs.reflink=never"),
        (_, true) => Feature::Yes,
        (Reflink::Always, false) => {
            let what =
                format!("{file_system} has no reflinks, which vfs.reflink=always asks for; use xfs or btrfs");
            return Err(Error::new(ErrorKind::Unavailable, what).with_path(home));
        }
        (Reflink::Auto, false) => Feature::no(format!("{file_system} has no reflinks; xfs and btrfs have")),
    };
    capabilities.usage_without_walk = Feature::no("the file system does not count by directory");
    capabilities.max_name = tried.longest_name;
    capabilities.xattrs = tried.xattrs;
    Ok(capabilities)
}

#[derive(Debug)]
struct Tried {
    clones: bool,
    xattrs: Vec<&'static str>,
    longest_name: u32,
}

/// Tries with two files that lose their names at once.
fn try_out(home: &Path) -> Result<Tried, Errno> {
    let (from, to) = (nameless_file(home)?, nameless_file(home)?);
    rustix::io::write(&from, &[b'x'; 4096])?;
    let clones = sys::can_clone(from.as_fd(), to.as_fd())?;
    let mut xattrs = Vec::new();
    for name_space in Capabilities::none("").xattrs {
        if sys::keeps_attributes(to.as_fd(), name_space)? {
            xattrs.push(name_space);
        }
    }
    let longest_name = u32::try_from(rustix::fs::fstatvfs(&from)?.f_namemax).unwrap_or(u32::MAX);
    Ok(Tried { clones, xattrs, longest_name })
}

fn nameless_file(home: &Path) -> Result<OwnedFd, Errno> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    // Not O_TMPFILE, which network file systems do not have.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = home.join(format!(".probe-{}-{number}", std::process::id()));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::unlink(&path)?;
    Ok(file)
}
