//! What the host can do.

use std::path::Path;

use layerstack_core::registry::OpenRequest;
use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::Access;
use rustix::io::Errno;

use crate::file_system;
use crate::mapper::Mapper;
use crate::options::{FileSystem, Settings, Source};

/// Finds out whether the driver can work in a home.
pub(crate) fn probe(request: &OpenRequest<'_>) -> Result<()> {
    let settings = Settings::parse(request.options)?;
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
    })?;
    let mapper = Mapper::open(settings.deferred_removal)?;
    if !mapper.has_target("thin-pool")? {
        let message = "device-mapper has no target \"thin-pool\" here; as root, try: modprobe dm-thin-pool";
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    if matches!(settings.source, Source::Loop { .. }) && !Path::new("/dev/loop-control").exists() {
        let message =
            "loop devices are missing; as root, try: modprobe loop; or name a pool with dm.thinpooldev";
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    // A home that is there says itself which file system its layers have.
    if !request.home.join("metadata/deviceset-metadata").exists() {
        let kind = settings.file_system.unwrap_or(FileSystem::Ext4);
        if !file_system::has_program(kind) {
            return Err(file_system::missing_program(kind));
        }
    }
    Ok(())
}
