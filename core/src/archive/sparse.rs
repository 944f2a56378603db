//! The maps of sparse files: GNU tar's old format and the three that it writes in PAX archives.
//!
//! GNU tar manual, "Storing Sparse Files".

use std::io::Read;

use super::header::{self, BLOCK};
use super::pax;
use super::stream::{Stream, truncated};
use crate::error::{Error, ErrorKind, Result};

/// The most runs that are read of one file: 4 MiB of memory.
const MOST_RUNS: usize = 1 << 18;

/// A run of data in a sparse file; all between two runs is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) length: u64,
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, what)
}

/// Gathers runs; they must ascend, not overlap, and end within the file.
#[derive(Debug)]
struct Map {
    runs: Vec<Run>,
    end: u64,
    size: u64,
}

impl Map {
    fn new(size: u64) -> Self {
        Self { runs: Vec::new(), end: 0, size }
    }

    fn push(&mut self, offset: u64, length: u64) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size && offset >= self.end);
        self.end = end.ok_or_else(|| invalid("the map of the sparse file contradicts itself"))?;
        if length > 0 {
            if self.runs.len() == MOST_RUNS {
                return Err(invalid(format!("the map of the sparse file has more than {MOST_RUNS} runs")));
            }
            self.runs.push(Run { offset, length });
        }
        Ok(())
    }

    /// The runs, if they hold what the archive has stored.
    fn finish(self, stored: u64) -> Result<Vec<Run>> {
        // The runs do not overlap, so their sum does not overflow.
        let total: u64 = self.runs.iter().map(|run| run.length).sum();
        if total == stored {
            Ok(self.runs)
        } else {
            Err(invalid(format!("the map of the sparse file has {total} bytes, the archive {stored}")))
        }
    }
}

/// The map in a header of GNU's old format and the blocks that follow it; the file's size and its runs.
pub(super) fn old_gnu<R: Read>(
    block: &[u8; BLOCK],
    stored: u64,
    stream: &mut Stream<'_, R>,
) -> Result<(u64, Vec<Run>)> {
    let number = |field: &[u8]| {
        header::number(field)
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| invalid("a number in the map of the sparse file is malformed"))
    };
    let size = number(&block[header::SPARSE_SIZE])?;
    let mut map = Map::new(size);
    let mut take = |pairs: &[u8]| {
        // An unused pair is all NULs.
        for pair in pairs.chunks_exact(24).take_while(|pair| pair[0] != 0) {
            map.push(number(&pair[..12])?, number(&pair[12..])?)?;
        }
        Ok::<(), Error>(())
    };
    take(&block[header::SPARSE_PAIRS])?;
    let mut more = block[header::SPARSE_MORE] != 0;
    // Each block must bring a pair, or blocks without any could go on for ever.
    while more {
        let next = stream.block()?.ok_or_else(truncated)?;
        if next[0] == 0 {
            return Err(invalid("the map of the sparse file goes on without saying anything"));
        }
        take(&next[header::SPARSE_NEXT_PAIRS])?;
        more = next[header::SPARSE_NEXT_MORE] != 0;
    }
    Ok((size, map.finish(stored)?))
}

/// The map that the records of an extended header describe; the file's size, its runs, and how much of the stored
/// bytes is left for them. None: the file is not sparse.
pub(super) fn pax<R: Read>(
    sparse: &pax::Sparse,
    stored: u64,
    stream: &mut Stream<'_, R>,
) -> Result<Option<(u64, Vec<Run>, u64)>> {
    let in_content = match sparse.version {
        (None, None) if sparse.map.is_empty() => return Ok(None),
        (None, None) | (Some(0), Some(0 | 1)) => false,
        (Some(1), Some(0)) => true,
        _ => return Err(invalid("the sparse file is in a version of the format that is not known")),
    };
    let size = sparse.size.ok_or_else(|| invalid("the sparse file lacks its size"))?;
    let mut map = Map::new(size);
    let mut left = stored;
    if in_content {
        let mut numbers = Numbers { stream, left, block: [0; BLOCK], at: BLOCK };
        for _ in 0..numbers.next()? {
            map.push(numbers.next()?, numbers.next()?)?;
        }
        left = numbers.left;
    } else {
        if !sparse.map.len().is_multiple_of(2) {
            return Err(invalid("the map of the sparse file ends with half a pair"));
        }
        for pair in sparse.map.chunks_exact(2) {
            map.push(pair[0], pair[1])?;
        }
    }
    Ok(Some((size, map.finish(left)?, left)))
}

/// The numbers at the start of a version 1.0 sparse file's content, one a line, padded to a block.
struct Numbers<'s, 'a, R> {
    stream: &'s mut Stream<'a, R>,
    left: u64,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Read> Numbers<'_, '_, R> {
    fn next(&mut self) -> Result<u64> {
        let mut line = Vec::new();
        loop {
            if self.at == BLOCK {
                self.left = self.left.checked_sub(BLOCK as u64).ok_or_else(truncated)?;
                self.block = self.stream.block()?.ok_or_else(truncated)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => break,
                // No 64-bit number is longer.
                _ if line.len() < 20 => line.push(byte),
                _ => return Err(invalid("a number in the map of the sparse file is too long")),
            }
        }
        pax::decimal(&line).ok_or_else(|| invalid("a number in the map of the sparse file is malformed"))
    }
}
