//! Holding our own writes into a layer to its limit.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{StatVfs, fstatvfs, statvfs};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::error::{Error, ErrorKind, Result};

/// Does work that writes below `directory`, held to the directory's limit as anybody is who writes through a mount, and
/// with `QuotaExceeded` as the error where that limit is what stops it.
///
/// On ext4 and f2fs the kernel lets a process with `CAP_SYS_RESOURCE` exceed a limit (`ignore_hardlimit` of
/// `fs/quota/dquot.c`), so this thread, and what threads it starts meanwhile, go without. On xfs the error at the limit
/// of a project is `ENOSPC`; that it is not the file system that is full shows in `outside`, a place on the same one for
/// which no limit holds.
///
/// # Errors
/// Those of `work`, and where the capability cannot be given up.
pub fn within_limit<T>(directory: impl AsFd, outside: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = {
        let _without = WithoutResource::new()?;
        work()
    };
    done.map_err(|error| match (error.kind(), fstatvfs(directory), statvfs(outside)) {
        (ErrorKind::NoSpace, Ok(inside), Ok(outside)) if is_limit(&inside, &outside) => {
            let path = error.path().map(Path::to_owned);
            let exceeded =
                Error::new(ErrorKind::QuotaExceeded, "the layer would exceed its limit").with_source(error);
            match path {
                Some(path) => exceeded.with_path(path),
                None => exceeded,
            }
        }
        _ => error,
    })
}

/// Whether a limit leaves less than the file system does: a directory with a limit shows as a file system of that size
/// (`xfs_qm_statvfs` of `fs/xfs/xfs_qm_bhv.c`).
fn is_limit(inside: &StatVfs, outside: &StatVfs) -> bool {
    let free = |stat: &StatVfs| stat.f_bavail.saturating_mul(stat.f_frsize);
    inside.f_blocks < outside.f_blocks && free(inside) < free(outside)
}

/// As long as this lives, its thread is without `CAP_SYS_RESOURCE`.
struct WithoutResource {
    had: bool,
}

impl WithoutResource {
    fn new() -> Result<Self> {
        let failed = |errno| Error::from_errno(errno, "give up CAP_SYS_RESOURCE");
        let mut sets = capabilities(None).map_err(failed)?;
        let had = sets.effective.contains(CapabilitySet::SYS_RESOURCE);
        if had {
            sets.effective.remove(CapabilitySet::SYS_RESOURCE);
            set_capabilities(None, sets).map_err(failed)?;
        }
        Ok(Self { had })
    }
}

impl Drop for WithoutResource {
    fn drop(&mut self) {
        if !self.had {
            return;
        }
        let again = capabilities(None).and_then(|mut sets| {
            sets.effective.insert(CapabilitySet::SYS_RESOURCE);
            set_capabilities(None, sets)
        });
        // It is still permitted, so the kernel has no reason to refuse.
        if let Err(errno) = again {
            tracing::warn!(%errno, "CAP_SYS_RESOURCE could not be taken back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_back_afterwards() {
        let effective = || capabilities(None).unwrap().effective;
        let before = effective();
        let place = tempfile::tempdir().unwrap();
        let during =
            within_limit(std::fs::File::open(&place).unwrap(), place.path(), || Ok(effective())).unwrap();
        assert_eq!(during, before - CapabilitySet::SYS_RESOURCE);
        assert_eq!(effective(), before);
    }

    #[test]
    fn a_full_file_system_is_no_limit() {
        let place = tempfile::tempdir().unwrap();
        let full = || Err::<(), _>(Error::new(ErrorKind::NoSpace, "full"));
        let error = within_limit(std::fs::File::open(&place).unwrap(), place.path(), full).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
    }
}
