//! Inflating: gzip with any number of members, zstd with any number of frames, or nothing to do.

use std::io::{self, BufRead, BufReader, Read};

use layerstack::{Error, ErrorKind};

use crate::image::Compression;

/// The window through which compressed bytes are read.
const WINDOW: usize = 128 << 10;

/// A reader of the plain bytes of a stream whose compression its first bytes tell.
pub(crate) enum Inflate<R: Read> {
    Plain(BufReader<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<R>>),
}

impl<R: Read> Inflate<R> {
    /// # Errors
    /// Where the first bytes cannot be read.
    pub(crate) fn new(source: R) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(WINDOW, source);
        Ok(match Compression::of(fill(&mut source)?) {
            Compression::Plain => Self::Plain(source),
            Compression::Gzip => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            Compression::Zstd => Self::Zstd(zstd::stream::read::Decoder::with_buffer(source)?),
        })
    }
}

/// The first bytes; a pipe may give fewer than four at a time only where it has written fewer, which no writer of
/// archives does.
fn fill<R: Read>(source: &mut BufReader<R>) -> io::Result<&[u8]> {
    loop {
        match source.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(source.buffer())
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(source) => source.read(buffer).map_err(damaged),
            Self::Zstd(source) => source.read(buffer).map_err(damaged),
        }
    }
}

/// An error of the decompressor. What went wrong in reading its source stays what it is.
fn damaged(error: io::Error) -> io::Error {
    let from_source = error.raw_os_error().is_some()
        || error.kind() == io::ErrorKind::Interrupted
        || error.get_ref().is_some_and(|inner| inner.is::<Error>());
    if from_source {
        return error;
    }
    Error::new(ErrorKind::InvalidInput, "the compressed data are damaged or cut off")
        .with_source(error)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Inflate::new(bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn several_members_and_frames_are_one_stream() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(inflate(&two).unwrap(), b"one two");
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let frames = [
            skippable.to_vec(),
            zstd::encode_all(&b"one "[..], 1).unwrap(),
            zstd::encode_all(&b"two"[..], 1).unwrap(),
        ]
        .concat();
        assert_eq!(inflate(&frames).unwrap(), b"one two");
        assert_eq!(inflate(b"plain").unwrap(), b"plain");
        assert_eq!(inflate(b"").unwrap(), b"");
    }

    #[test]
    fn a_truncated_or_damaged_stream_is_an_error() {
        let whole = gzip(&[7; 1000]);
        assert!(inflate(&whole[..whole.len() - 3]).is_err());
        let mut damaged = whole;
        let crc = damaged.len() - 6;
        damaged[crc] ^= 1;
        assert!(inflate(&damaged).is_err());
        let frame = zstd::encode_all(&[7_u8; 1000][..], 1).unwrap();
        assert!(inflate(&frame[..frame.len() - 3]).is_err());
    }
}
