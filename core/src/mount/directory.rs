//! Directories that a mount needs for a moment: to work in, or to be at until it goes to its place.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{io, panic, thread};

use crate::error::{Error, Result};

use super::attach::mount_error;
use super::{classic, sys};

/// Runs `work` in a thread whose working directory is `directory`, so that short relative paths reach the kernel.
/// The process and its other threads keep theirs.
pub(super) fn working_in<T: Send>(directory: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_thread(|| {
        sys::own_working_directory()
            .map_err(|errno| Error::from_errno(errno, "separate the working directory of a thread"))?;
        rustix::process::chdir(directory)
            .map_err(|errno| Error::from_errno(errno, "change into the directory").with_path(directory))?;
        work()
    })
}

/// A directory that is there wherever the table of mounts can be read, and in which nothing lies that a plan names.
const STAGE: &str = "/proc";

/// Runs `work` in a thread with a table of mounts of its own, a copy of the process's, and a directory to mount
/// something at there. The table goes with the thread: nobody else sees what is mounted, and a kill leaves nothing of it.
pub(super) fn on_stage<T: Send>(work: impl FnOnce(&Path) -> Result<T> + Send) -> Result<T> {
    in_thread(|| {
        let stage = Path::new(STAGE);
        sys::own_mount_table().map_err(|errno| mount_error(errno, "make a table of mounts"))?;
        // What is mounted there does not reach the table that this one is a copy of.
        classic::set_private(stage)?;
        work(stage)
    })
}

fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("layerstack-mount".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| Error::from_io(error, "start a thread"))?;
        thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}

/// An empty directory that only this user can enter, under the system's directory for temporary files; removed
/// when dropped. What is mounted there is out of everybody's way until it goes to its place.
#[derive(Debug)]
pub(super) struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    pub(super) fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = std::env::temp_dir();
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("layerstack-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::from_io(error, "make a directory").with_path(path)),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a temporary directory could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_changes_its_directory() {
        let before = std::env::current_dir().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let seen = working_in(scratch.path(), || std::env::current_dir().map_err(|e| Error::from_io(e, "")))
            .unwrap();
        assert_eq!(seen, scratch.path().canonicalize().unwrap());
        assert_eq!(std::env::current_dir().unwrap(), before);
    }

    #[test]
    fn what_is_on_stage_nobody_else_sees() {
        let shown = on_stage(|stage| {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("none", stage, "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
            std::fs::write(stage.join("seen"), "").unwrap();
            Ok(std::fs::read_dir(stage).unwrap().count())
        });
        match shown {
            Ok(shown) => assert_eq!(shown, 1),
            Err(error) => {
                assert!(!rustix::process::geteuid().is_root(), "{error}");
                assert_eq!(error.kind(), crate::ErrorKind::PermissionDenied);
            }
        }
        assert!(!Path::new(STAGE).join("seen").exists());
        assert!(Path::new(STAGE).join("self").exists());
    }

    #[test]
    fn a_private_directory_goes_with_its_owner() {
        let directory = PrivateDirectory::new().unwrap();
        let path = directory.path().to_owned();
        assert!(path.is_dir());
        drop(directory);
        assert!(!path.exists());
    }
}
