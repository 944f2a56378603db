//! The archive as a window of bytes that moves along.

use std::fmt;
use std::io::{self, Read};

use super::Observer;
use super::header::BLOCK;
use crate::error::{Error, ErrorKind, Result};

/// The window's length in bytes. Content is handed on from it without being copied.
const WINDOW: usize = 256 * 1024;

/// A source, the part of it that was read and not yet used, and who sees what is used.
pub(super) struct Stream<'a, R> {
    source: R,
    window: Box<[u8]>,
    start: usize,
    end: usize,
    observer: Option<&'a mut dyn Observer>,
}

impl<R> fmt::Debug for Stream<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("observed", &self.observer.is_some()).finish_non_exhaustive()
    }
}

/// The archive ends in the middle of something.
pub(super) fn truncated() -> Error {
    Error::new(ErrorKind::InvalidInput, "the archive is truncated")
}

impl<'a, R: Read> Stream<'a, R> {
    pub(super) fn new(source: R, observer: Option<&'a mut dyn Observer>) -> Self {
        Self { source, window: vec![0; WINDOW].into_boxed_slice(), start: 0, end: 0, observer }
    }

    /// The next block; None at the end of the source.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        match self.fill(BLOCK)? {
            0 => Ok(None),
            BLOCK.. => {
                let mut block = [0; BLOCK];
                block.copy_from_slice(self.take(BLOCK, true)?);
                Ok(Some(block))
            }
            _ => Err(truncated()),
        }
    }

    /// As many bytes as the window has, at most `most`. While there are more to come they end at a multiple of
    /// `align` (a power of two) beyond `offset`, if that leaves any. Empty only where `most` is 0.
    pub(super) fn some(&mut self, most: u64, offset: u64, align: u64, raw: bool) -> Result<&[u8]> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if most == 0 {
            return Ok(&[]);
        }
        let held = self.fill(most.min(align as usize))?;
        if held == 0 {
            return Err(truncated());
        }
        let mut length = held.min(most);
        if length < most {
            let over = ((offset + length as u64) & (align - 1)) as usize;
            if over < length {
                length -= over;
            }
        }
        self.take(length, raw)
    }

    /// Passes over `count` bytes.
    pub(super) fn skip(&mut self, mut count: u64, raw: bool) -> Result<()> {
        while count > 0 {
            count -= self.some(count, 0, 1, raw)?.len() as u64;
        }
        Ok(())
    }

    /// Passes over `count` bytes, fewer than a block, that fill up the last block of a file's content. An archive may
    /// end there: umoci's `insert` writes such layers, and Go's archive/tar, which most engines read with, takes them.
    pub(super) fn padding(&mut self, count: usize) -> Result<()> {
        let held = self.fill(count)?;
        self.take(held.min(count), true)?;
        Ok(())
    }

    /// Passes over all that is left of the source.
    pub(super) fn skip_rest(&mut self) -> Result<()> {
        loop {
            let held = self.fill(1)?;
            if held == 0 {
                return Ok(());
            }
            self.take(held, true)?;
        }
    }

    /// Has the observer take the next `size` bytes for the content of a file in the layer.
    pub(super) fn file(&mut self, path: &[u8], size: u64) -> Result<()> {
        match &mut self.observer {
            Some(observer) => observer.file(path, size).map_err(unrecorded),
            None => Ok(()),
        }
    }

    /// Reads until the window holds `wanted` bytes or the source ends; how many it holds.
    fn fill(&mut self, wanted: usize) -> Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        while self.end - self.start < wanted {
            if self.window.len() - self.start < wanted {
                self.window.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            match self.source.read(&mut self.window[self.end..]) {
                Ok(0) => break,
                Ok(length) => self.end += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::from_io(error, "read the archive")),
            }
        }
        Ok(self.end - self.start)
    }

    fn take(&mut self, length: usize, raw: bool) -> Result<&[u8]> {
        let taken = &self.window[self.start..self.start + length];
        if raw && let Some(observer) = &mut self.observer {
            observer.raw(taken).map_err(unrecorded)?;
        }
        self.start += length;
        Ok(taken)
    }
}

fn unrecorded(error: io::Error) -> Error {
    Error::from_io(error, "record the archive")
}
