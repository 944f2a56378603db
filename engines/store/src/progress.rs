//! What a long operation tells of its progress.

use std::{fmt, io};

/// Hears of progress. Called from several threads at once, about once for each quarter of a mebibyte.
pub trait Progress: Send + Sync {
    /// One item got on.
    fn report(&self, step: &Step<'_>);

    /// Whether the operation is to stop; asked about as often as there are reports. It then fails like any operation
    /// that fails midway, and leaves nothing.
    fn stopped(&self) -> bool {
        false
    }
}

/// Counts what was done to an item and reports it, until the operation is to stop.
///
/// # Errors
/// The one with which a reader or writer then ends the operation.
pub(crate) fn advance(progress: &dyn Progress, step: &Step<'_>) -> io::Result<()> {
    if progress.stopped() {
        return Err(io::Error::other("stopped by the caller"));
    }
    progress.report(step);
    Ok(())
}

/// Hears of nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _step: &Step<'_>) {}
}

/// How far one item of a stage is. The first report of an item has `done` 0, the last one has `done` equal to
/// `total`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Step<'a> {
    /// What is being done.
    pub stage: Stage,
    /// What it is done to: a layer's digest, a file.
    pub item: &'a str,
    /// Bytes done so far.
    pub done: u64,
    /// Bytes in all, where that is known beforehand.
    pub total: Option<u64>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(stage: Stage, item: &'a str, done: u64, total: Option<u64>) -> Self {
        Self { stage, item, done, total }
    }
}

/// What is being done to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// An archive that cannot be searched (a pipe, a compressed file) is copied into the store's own files first.
    Reading,
    /// A layer is hashed, inflated and unpacked; the bytes are those of the archive.
    Importing,
    /// A layer is there already.
    Present,
    /// A container's changes are gathered.
    Comparing,
    /// A layer is written out.
    Saving,
    /// A layer is removed.
    Removing,
    /// A layer's content is compared with its digest.
    Checking,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reading => "reading",
            Self::Importing => "importing",
            Self::Present => "present",
            Self::Comparing => "comparing",
            Self::Saving => "saving",
            Self::Removing => "removing",
            Self::Checking => "checking",
        })
    }
}
