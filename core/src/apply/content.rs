//! Writing the content of a file, zeros as holes.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Zeros become holes in whole blocks of this many bytes: the block size of most file systems.
const BLOCK: usize = 4096;

/// The most that is copied at once, in bytes.
const COPY: usize = 256 * 1024;

/// A new file that is being filled from its start to its end.
#[derive(Debug)]
pub(super) struct Filling<'f> {
    file: &'f OwnedFd,
    /// The end of what was written.
    end: u64,
}

impl<'f> Filling<'f> {
    /// `file` is empty.
    pub(super) fn new(file: &'f OwnedFd) -> Self {
        Self { file, end: 0 }
    }

    /// Puts `data` at `offset`, which is not before the end of what was put there last.
    pub(super) fn put(&mut self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let mut at = 0;
        while at < data.len() {
            let start = at;
            while at < data.len() && !is_zero_block(offset, data, at) {
                at = next_boundary(offset, at).min(data.len());
            }
            self.write(offset + start as u64, &data[start..at])?;
            while at < data.len() && is_zero_block(offset, data, at) {
                at += BLOCK;
            }
        }
        Ok(())
    }

    /// Gives the file its size: what was not put is a hole.
    pub(super) fn finish(self, size: u64) -> Result<(), Errno> {
        if self.end == size { Ok(()) } else { rustix::fs::ftruncate(self.file, size) }
    }

    fn write(&mut self, mut offset: u64, mut data: &[u8]) -> Result<(), Errno> {
        while !data.is_empty() {
            match rustix::io::pwrite(self.file, data, offset) {
                Ok(0) => return Err(Errno::IO),
                Ok(length) => {
                    data = &data[length..];
                    offset += length as u64;
                    self.end = offset;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// Where in `data` the next block of the file begins.
fn next_boundary(offset: u64, at: usize) -> usize {
    let over = ((offset + at as u64) % BLOCK as u64) as usize;
    at + BLOCK - over
}

/// Whether a whole block of zeros begins at `at`.
fn is_zero_block(offset: u64, data: &[u8], at: usize) -> bool {
    (offset + at as u64).is_multiple_of(BLOCK as u64)
        && data.get(at..at + BLOCK).is_some_and(|block| {
            let (words, _) = block.as_chunks::<64>();
            words.iter().all(|word| *word == [0; 64])
        })
}

/// Copies the content of `source`, of `size` bytes, into the empty file `target`, holes as holes.
pub(super) fn copy(source: impl AsFd, target: &OwnedFd, size: u64) -> Result<(), Errno> {
    let mut filling = Filling::new(target);
    let mut buffer = vec![0; COPY];
    let mut at = 0;
    while at < size {
        at = match rustix::fs::seek(&source, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            // The file system does not tell; zeros are found below all the same.
            Err(_) => at,
        };
        match rustix::io::pread(&source, &mut buffer[..], at) {
            Ok(0) => break,
            Ok(length) => {
                filling.put(at, &buffer[..length])?;
                at += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    filling.finish(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn whole_blocks_of_zeros_are_holes_wherever_the_pieces_end() {
        let mut data = vec![1; 10_000];
        data.extend_from_slice(&[0; 30_000]);
        data.extend_from_slice(&[2; 5]);
        data.extend_from_slice(&[0; 9_000]);
        for piece in [1, 7, 4096, 8192, 100_000] {
            let file = tempfile::tempfile().unwrap();
            let fd: OwnedFd = file.try_clone().unwrap().into();
            let mut filling = Filling::new(&fd);
            for (index, part) in data.chunks(piece).enumerate() {
                filling.put((index * piece) as u64, part).unwrap();
            }
            filling.finish(data.len() as u64).unwrap();
            let mut back = vec![9; data.len()];
            file.read_exact_at(&mut back, 0).unwrap();
            assert!(back == data, "pieces of {piece}");
            if piece >= 4096 {
                // Blocks 0 to 2, 9, and the partial one at the end.
                assert!(file.metadata().unwrap().blocks() <= 5 * 8, "pieces of {piece}");
            }
            let second = tempfile::tempfile().unwrap();
            copy(&file, &second.try_clone().unwrap().into(), data.len() as u64).unwrap();
            second.read_exact_at(&mut back, 0).unwrap();
            assert!(back == data);
        }
    }
}
