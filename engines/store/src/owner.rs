//! Owners: running operations, each with a directory for its temporary files and a lock that goes with its process.
//!
//! `tmp/NAME.lock` is held by `flock(2)` as long as the owner lives; `tmp/NAME/` has its files; its claims are in the
//! database under `NAME`. Whoever gets the lock of another's file knows that the other is dead, and cleans up.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use layerstack::{Error, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// An owner whose lock this process holds: its own, or that of a dead one.
#[derive(Debug)]
pub(crate) struct Owner {
    name: String,
    tmp: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl Owner {
    /// A new owner in the directory `tmp`.
    ///
    /// # Errors
    /// Where the files cannot be made.
    pub(crate) fn new(tmp: &Path) -> Result<Self> {
        loop {
            let name = random_hex::<8>()?;
            let path = lock_path(tmp, &name);
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(|error| Error::from_io(error, "make the lock file").with_path(&path))?;
            // Another process may have taken the file for a dead owner's before it was locked: then try again.
            if let Some(lock) = lock(file, &path)? {
                let owner = Self { name, tmp: tmp.to_owned(), _lock: lock };
                let directory = owner.directory();
                fs::DirBuilder::new().mode(0o700).create(&directory).map_err(|error| {
                    Error::from_io(error, "make the temporary directory").with_path(&directory)
                })?;
                return Ok(owner);
            }
        }
    }

    /// The owner of this name, if it is dead: then this process is it now.
    ///
    /// # Errors
    /// Where the lock cannot be tried.
    pub(crate) fn take_over(tmp: &Path, name: &str) -> Result<Option<Self>> {
        let path = lock_path(tmp, name);
        // Made anew where it is missing: then its owner took it away last of all, or lost it in a power cut.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::from_io(error, "open the lock file").with_path(&path))?;
        let lock = lock(file, &path)?;
        Ok(lock.map(|lock| Self { name: name.to_owned(), tmp: tmp.to_owned(), _lock: lock }))
    }

    /// The names of all owners, dead and alive, that have a file in `tmp`.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub(crate) fn list(tmp: &Path) -> Result<Vec<String>> {
        let fail = |error| Error::from_io(error, "read the directory").with_path(tmp);
        let mut names = Vec::new();
        for entry in fs::read_dir(tmp).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".lock")) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where the owner's temporary files are.
    pub(crate) fn directory(&self) -> PathBuf {
        self.tmp.join(&self.name)
    }

    /// Takes away the owner's files, its lock last.
    ///
    /// # Errors
    /// Where they cannot be removed.
    pub(crate) fn discard(self) -> Result<()> {
        let directory = self.directory();
        absent_is_fine(fs::remove_dir_all(&directory))
            .map_err(|error| Error::from_io(error, "remove the temporary files").with_path(&directory))?;
        let path = lock_path(&self.tmp, &self.name);
        absent_is_fine(fs::remove_file(&path))
            .map_err(|error| Error::from_io(error, "remove the lock file").with_path(&path))
    }
}

fn lock_path(tmp: &Path, name: &str) -> PathBuf {
    tmp.join(format!("{name}.lock"))
}

/// Locks the file; None where another has it, or where it is no longer the one under its name.
fn lock(file: File, path: &Path) -> Result<Option<File>> {
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(Error::from_errno(errno, "lock").with_path(path)),
    }
    let metadata = file.metadata().map_err(|error| Error::from_io(error, "look at").with_path(path))?;
    Ok((metadata.nlink() > 0).then_some(file))
}

pub(crate) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// `N` random bytes as hexadecimal digits.
///
/// # Errors
/// Where the kernel has none.
pub(crate) fn random_hex<const N: usize>() -> Result<String> {
    let mut bytes = [0_u8; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::from_errno(errno, "get random bytes"))?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_owner_is_taken_over_and_a_live_one_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let owner = Owner::new(scratch.path()).unwrap();
        let name = owner.name().to_owned();
        fs::write(owner.directory().join("file"), "x").unwrap();
        assert_eq!(Owner::list(scratch.path()).unwrap(), std::slice::from_ref(&name));
        assert!(Owner::take_over(scratch.path(), &name).unwrap().is_none());
        drop(owner);
        let taken = Owner::take_over(scratch.path(), &name).unwrap().unwrap();
        taken.discard().unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
