//! What the host and the home's file system must have.

use std::path::Path;

use layerstack_core::capability::{Capabilities, Feature, QuotaKind};
use layerstack_core::fs::FileSystemType;
use layerstack_core::registry::OpenRequest;
use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;

use crate::options::Settings;
use crate::quota::{self, Mode as Quota};

/// Finds out whether the driver can work in a home: on a btrfs that can be written to, with the privilege to look into
/// its trees.
pub(crate) fn probe(request: &OpenRequest<'_>) -> Result<()> {
    Settings::parse(request.options)?;
    let existing = request.home.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let unavailable = |what: String| Error::new(ErrorKind::Unavailable, what).with_path(existing);
    if !existing.is_dir() {
        return Err(unavailable("is no directory; choose another root".to_owned()));
    }
    let kind = FileSystemType::of(existing)?;
    if kind != FileSystemType::BTRFS {
        return Err(unavailable(format!(
            "is on {}, and subvolumes are of btrfs alone; give a root on btrfs (mkfs.btrfs makes one)",
            kind.name()
        )));
    }
    rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK).map_err(|errno| {
        let what = match errno {
            Errno::ROFS => "is on a read-only file system; choose another root",
            _ => "cannot be written to; run as root, or choose another root",
        };
        unavailable(what.to_owned()).with_source(std::io::Error::from(errno))
    })?;
    let opened =
        rustix::fs::open(existing, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::from_errno(errno, "open").with_path(existing))?;
    quota::mode(opened).map(drop).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            unavailable("needs CAP_SYS_ADMIN in the host's user namespace; run as root".to_owned())
                .with_source(error)
        }
        _ => error,
    })
}

/// What the driver offers in an existing home.
pub(crate) fn capabilities(home: &Path, quota: Quota) -> Capabilities {
    let mut capabilities = Capabilities::none("a layer is a snapshot of its parent");
    capabilities.native_diff = Feature::Yes;
    capabilities.fork_live = Feature::Yes;
    capabilities.shares_blocks = Feature::Yes;
    if quota == Quota::Off {
        let reason = quota::how_to_enable(home);
        capabilities.usage_without_walk = Feature::no(reason.as_str());
        capabilities.quota = Feature::no(reason);
    } else {
        capabilities.usage_without_walk = Feature::Yes;
        capabilities.quota = Feature::Yes;
        capabilities.quota_kind = Some(QuotaKind::Added);
    }
    capabilities
}
