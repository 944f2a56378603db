//! What an archive has beyond the files of the layer that it was unpacked to, and how to put it together again.
//!
//! The idea is that of tar-split: headers, order and padding are kept, the content of files is taken from the layer.
//!
//! ```text
//! split  = MAGIC record* end
//! record = 0 length bytes              as it is in the archive
//!        | 1 length path size          the first `size` bytes of the file at `path`
//! end    = 2
//! ```
//! Numbers are in LEB128 (seven bits a byte, the lowest first). The form is not compressed; whoever keeps it does that.

use std::fs::File;
use std::io::{self, Read, Write};

use super::Observer;
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"LSSPLIT1";
const RAW: u8 = 0;
const FILE: u8 = 1;
const END: u8 = 2;

/// Raw bytes are gathered up to this many, so that the many small pieces between files do not each have a record.
const GATHERED: usize = 64 << 10;

/// The longest path that is read back; the reader of archives takes none that is longer.
const MAX_PATH: u64 = 1 << 20;

/// Records what an archive that goes by has beyond the files of the layer, for [`reassemble`].
#[derive(Debug)]
pub struct Recorder<W: Write> {
    out: W,
    raw: Vec<u8>,
    begun: bool,
}

impl<W: Write> Recorder<W> {
    /// Records to `out`.
    pub fn new(out: W) -> Self {
        Self { out, raw: Vec::with_capacity(GATHERED), begun: false }
    }

    /// Writes the end and gives `out` back.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        self.out.write_all(&[END])?;
        Ok(self.out)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.begun {
            self.out.write_all(MAGIC)?;
            self.begun = true;
        }
        if !self.raw.is_empty() {
            self.out.write_all(&[RAW])?;
            write_number(&mut self.out, self.raw.len() as u64)?;
            self.out.write_all(&self.raw)?;
            self.raw.clear();
        }
        Ok(())
    }
}

impl<W: Write> Observer for Recorder<W> {
    fn raw(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(GATHERED - self.raw.len()));
            self.raw.extend_from_slice(taken);
            bytes = rest;
            if self.raw.len() == GATHERED {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], size: u64) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(&[FILE])?;
        write_number(&mut self.out, path.len() as u64)?;
        self.out.write_all(path)?;
        write_number(&mut self.out, size)
    }
}

/// Puts an archive together again from what a [`Recorder`] kept and from the files of the layer, which `open` opens.
///
/// Whether the bytes are those of the archive is for the caller to verify: a layer that was changed behind the
/// driver's back gives other ones.
///
/// # Errors
/// `Corrupt` where the recording is damaged, or a file is shorter than it was; what `open` gives, naming the path; what
/// writing gives.
pub fn reassemble(
    split: &mut dyn Read,
    open: &mut dyn FnMut(&[u8]) -> Result<File>,
    out: &mut dyn Write,
) -> Result<()> {
    let mut magic = [0; MAGIC.len()];
    read_exact(split, &mut magic)?;
    if magic != *MAGIC {
        return Err(damaged("it does not begin as one"));
    }
    let mut buffer = vec![0; 256 << 10];
    loop {
        let mut tag = [0];
        read_exact(split, &mut tag)?;
        match tag[0] {
            RAW => {
                let length = read_number(split)?;
                copy(split, length, &mut buffer, out)?.map_or(Ok(()), |_| Err(damaged("it is cut off")))?;
            }
            FILE => {
                let length = read_number(split)?;
                if length > MAX_PATH {
                    return Err(damaged("a path in it is too long"));
                }
                let mut path = vec![0; usize::try_from(length).unwrap_or_default()];
                read_exact(split, &mut path)?;
                let size = read_number(split)?;
                let mut file = open(&path)?;
                if let Some(left) = copy(&mut file, size, &mut buffer, out)? {
                    let message = format!("the file is {left} bytes shorter than in the archive");
                    return Err(Error::new(ErrorKind::Corrupt, message).with_path(to_path(path)));
                }
            }
            END => return Ok(()),
            _ => return Err(damaged("it has an unknown record")),
        }
    }
}

/// Copies `length` bytes; where the source ends before, says how many are missing.
fn copy(source: &mut dyn Read, length: u64, buffer: &mut [u8], out: &mut dyn Write) -> Result<Option<u64>> {
    let mut left = length;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match source.read(&mut buffer[..wanted]) {
            Ok(0) => return Ok(Some(left)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::from_io(error, "read")),
        };
        out.write_all(&buffer[..read]).map_err(|error| Error::from_io(error, "write the archive"))?;
        left -= read as u64;
    }
    Ok(None)
}

fn write_number(out: &mut impl Write, mut number: u64) -> io::Result<()> {
    let mut bytes = [0; 10];
    let mut length = 0;
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        bytes[length] = if number == 0 { low } else { low | 0x80 };
        length += 1;
        if number == 0 {
            return out.write_all(&bytes[..length]);
        }
    }
}

fn read_number(source: &mut dyn Read) -> Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        read_exact(source, &mut byte)?;
        let bits = u64::from(byte[0] & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(damaged("a number in it is too large"))
}

fn read_exact(source: &mut dyn Read, buffer: &mut [u8]) -> Result<()> {
    source.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it is cut off"),
        _ => Error::from_io(error, "read the recording of an archive"),
    })
}

fn damaged(flaw: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the recording of an archive is damaged: {flaw}"))
}

fn to_path(path: Vec<u8>) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Vec<u8> {
        let mut recorder = Recorder::new(Vec::new());
        recorder.raw(b"header").unwrap();
        recorder.file(b"dir/f\xff", 300).unwrap();
        recorder.raw(b"pad").unwrap();
        recorder.raw(&vec![7; 200_000]).unwrap();
        recorder.file(b"empty", 0).unwrap();
        recorder.finish().unwrap()
    }

    fn put_together(split: &[u8], length: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut open = |path: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            if path == b"dir/f\xff" {
                std::os::unix::fs::FileExt::write_all_at(&file, &vec![b'x'; length], 0).unwrap();
            }
            Ok(file)
        };
        reassemble(&mut &*split, &mut open, &mut out)?;
        Ok(out)
    }

    #[test]
    fn what_was_recorded_is_put_together_again() {
        let expected = [&b"header"[..], &[b'x'; 300], b"pad", &vec![7; 200_000]].concat();
        assert_eq!(put_together(&record(), 300).unwrap(), expected);
        // What a file has beyond its size in the archive is not the archive's.
        assert_eq!(put_together(&record(), 301).unwrap(), expected);
    }

    #[test]
    fn a_file_that_became_shorter_is_named() {
        let error = put_together(&record(), 299).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().starts_with(r"dir/f\xff: the file is 1 bytes shorter"), "{error}");
    }

    #[test]
    fn no_damage_goes_unnoticed_or_takes_memory() {
        let whole = record();
        for length in [0, 7, 8, 9, 20, whole.len() - 1] {
            let error = put_together(&whole[..length], 300).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}");
        }
        for bytes in
            [&b"LSSPLIT1\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..], b"LSSPLIT1\x03", b"LSSPLIT2\x02"]
        {
            assert_eq!(put_together(bytes, 300).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        let endless = [&b"LSSPLIT1\x00"[..], &[0xff; 12]].concat();
        assert_eq!(put_together(&endless, 300).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn numbers_of_all_sizes_come_back() {
        for number in [0, 1, 127, 128, 300, 1 << 35, u64::MAX] {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number).unwrap();
            assert_eq!(read_number(&mut &*bytes).unwrap(), number);
        }
    }
}
