//! Standard output.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use serde::Serialize;

use crate::failure::{Done, Failure};

/// Writes a result to standard output, and sees to it that all of it gets there.
pub(crate) fn write_out(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Done {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Writes a result as one JSON document.
pub(crate) fn write_json<T: Serialize + ?Sized>(result: &T) -> Done {
    write_out(|out| {
        serde_json::to_writer_pretty(&mut *out, result)?;
        out.write_all(b"\n")
    })
}

/// Standard output as the place for an archive.
///
/// The store reports an error of its target like any other, with context. This remembers what the target itself said,
/// so that a closed pipe can be told from a failure of the store's.
#[derive(Debug)]
pub(crate) struct ArchiveOut {
    out: BufWriter<File>,
    failure: Option<io::Error>,
}

impl ArchiveOut {
    /// Takes a descriptor of its own: the standard library's handle would look for line ends in all that passes.
    pub(crate) fn new() -> Done<Self> {
        let out = io::stdout().as_fd().try_clone_to_owned().map_err(Failure::Output)?;
        Ok(Self { out: BufWriter::with_capacity(1 << 18, File::from(out)), failure: None })
    }

    /// Writes what is still in memory; fails if any write failed.
    pub(crate) fn finish(mut self) -> Done {
        // What it says is remembered.
        let _ = self.flush();
        self.failure.map_or(Ok(()), |failure| Err(Failure::Output(failure)))
    }

    fn remember<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
            && self.failure.is_none()
        {
            self.failure =
                Some(error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error));
        }
        result
    }
}

impl Write for ArchiveOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.remember(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.remember(flushed)
    }
}
