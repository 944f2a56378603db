//! Flushing a layer while it is still being filled, so that sealing finds little left to flush.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// How much of a tar is read between two flushes, in bytes: enough that the journal's commits do not count, little
/// enough that what is left at the end is written soon.
const STEP: usize = 16 << 20;

/// Does `work` with `tar`, and meanwhile has another thread write out what is in the file system of `directory`
/// (`syncfs(2)`). A tar smaller than [`STEP`] is not worth a thread.
///
/// # Errors
/// What `work` gives, then what a flush gave: the kernel reports a failed write once, so that the flush that seals the
/// layer would not see it.
pub(super) fn while_filling<T>(
    directory: BorrowedFd<'_>,
    tar: &mut dyn Read,
    work: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    std::thread::scope(|scope| {
        let mut watched = Watched { tar, directory, scope, since: 0, flusher: None };
        let done = work(&mut watched)?;
        watched.finish()?;
        Ok(done)
    })
}

/// A tar that has a flush started for each [`STEP`] that is read of it.
struct Watched<'scope, 'env, 'tar> {
    tar: &'tar mut dyn Read,
    directory: BorrowedFd<'env>,
    scope: &'scope Scope<'scope, 'env>,
    /// Bytes since a flush was last started.
    since: usize,
    flusher: Option<Flusher<'scope>>,
}

/// The thread that flushes whenever it is told to.
struct Flusher<'scope> {
    start: SyncSender<()>,
    thread: ScopedJoinHandle<'scope, Result<(), Errno>>,
}

impl Watched<'_, '_, '_> {
    fn start(&mut self) {
        let flusher = match &mut self.flusher {
            Some(flusher) => flusher,
            none => {
                let (start, started) = sync_channel(1);
                let directory = self.directory;
                let thread = std::thread::Builder::new()
                    .name("layerstack-flush".into())
                    .spawn_scoped(self.scope, move || flush(directory, &started));
                match thread {
                    Ok(thread) => none.insert(Flusher { start, thread }),
                    // Without a thread all is flushed at the end.
                    Err(_) => return,
                }
            }
        };
        // One that has been told already is told again with the next bytes; one that failed says so at the end.
        if !matches!(flusher.start.try_send(()), Err(TrySendError::Full(()))) {
            self.since = 0;
        }
    }

    fn finish(&mut self) -> Result<()> {
        let Some(Flusher { start, thread }) = self.flusher.take() else { return Ok(()) };
        drop(start);
        match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(errno)) => Err(Error::from_errno(errno, "flush the file system")),
            Err(_) => Err(Error::from_errno(Errno::IO, "flush the file system on another thread")),
        }
    }
}

fn flush(directory: BorrowedFd<'_>, started: &Receiver<()>) -> Result<(), Errno> {
    while started.recv().is_ok() {
        rustix::fs::syncfs(directory)?;
    }
    Ok(())
}

impl Read for Watched<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.tar.read(buffer)?;
        self.since += length;
        if self.since >= STEP {
            self.start();
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    /// Reads a tar of `length` bytes to its end; says whether a thread was started for it.
    fn is_flushed(length: usize) -> bool {
        let directory = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(directory.path()).unwrap();
        let tar: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut rest = &tar[..];
        std::thread::scope(|scope| {
            let directory = directory.as_fd();
            let mut watched = Watched { tar: &mut rest, directory, scope, since: 0, flusher: None };
            let mut arrived = Vec::new();
            watched.read_to_end(&mut arrived).unwrap();
            let flushed = watched.flusher.is_some();
            watched.finish().unwrap();
            assert!(arrived == tar, "the tar is not handed on as it is");
            flushed
        })
    }

    #[test]
    fn a_large_tar_is_flushed_meanwhile_and_a_small_one_is_not() {
        assert!(!is_flushed(STEP - 1));
        assert!(is_flushed(3 * STEP + 1));
    }

    #[test]
    fn what_a_flush_gives_is_the_outcome() {
        // syncfs(2) of a descriptor that was opened with O_PATH: EBADF.
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let directory = rustix::fs::open("/", flags, rustix::fs::Mode::empty()).unwrap();
        let fill = |tar: &mut dyn Read| {
            io::copy(tar, &mut io::sink()).map_err(|error| Error::from_io(error, "read"))
        };
        let mut large = io::repeat(0).take(2 * STEP as u64);
        let outcome = while_filling(directory.as_fd(), &mut large, fill);
        assert!(outcome.unwrap_err().to_string().contains("flush"));
        let mut small = io::repeat(0).take(1);
        assert_eq!(while_filling(directory.as_fd(), &mut small, fill).unwrap(), 1);
    }
}
