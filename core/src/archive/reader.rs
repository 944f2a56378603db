//! Reading a tar archive.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::header::{self, BLOCK};
use super::pax::Extended;
use super::sparse::{self, Run};
use super::stream::{Stream, truncated};
use super::{Entry, EntryKind, Observer, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// The longest extended header or long name that is read, in bytes. The kernel's limits on names and attributes
/// of one file add up to less; Go's `archive/tar` has the same limit.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// Content is handed out in pieces that end at multiples of this many bytes of the file: the block size of most
/// file systems, so that whoever looks for holes sees whole blocks.
const ALIGNMENT: u64 = 4096;

/// Reads a tar archive as a stream, in bounded memory whatever the archive says.
///
/// Formats: v7, ustar, star, GNU (long names, base-256 numbers, old sparse files), PAX (with the attributes and
/// ACLs of star, GNU tar and libarchive, and sparse files 0.0, 0.1 and 1.0). Where implementations differ, this
/// one reads as Go's `archive/tar` does, which all other container engines use, so that no two of them see
/// different layers in the same bytes:
///
/// - PAX global headers are passed over. Of several extended headers before an entry the last one counts.
/// - Links, directories, devices and fifos have no content, whatever size their headers give.
/// - An empty stream is an archive without entries; the blocks of zeros at the end may be missing, or be only one,
///   and then the padding of the last content too.
///   What follows them is read and ignored.
/// - Volume labels are passed over. An entry of a type that is not known is an error.
#[derive(Debug)]
pub struct Reader<'a, R> {
    stream: Stream<'a, R>,
    content: Content,
    /// The name of the entry being read, for errors.
    name: Vec<u8>,
    ended: bool,
}

/// What is left of the current entry's content.
#[derive(Debug, Default)]
struct Content {
    /// Bytes in the archive.
    stored: u64,
    /// Bytes of padding after them.
    padding: usize,
    /// Where in the file the next byte goes.
    offset: u64,
    /// The length of the file.
    size: u64,
    /// Runs that are left, the next one last; None: the file is not sparse.
    runs: Option<Vec<Run>>,
    /// The observer is to see the bytes themselves.
    raw: bool,
}

impl<'a, R: Read> Reader<'a, R> {
    /// Reads the archive that `source` gives; it needs no buffer of its own.
    pub fn new(source: R) -> Self {
        Self::build(source, None)
    }

    /// As [`Reader::new`]; `observer` sees every byte.
    pub fn observed(source: R, observer: &'a mut dyn Observer) -> Self {
        Self::build(source, Some(observer))
    }

    pub(crate) fn build(source: R, observer: Option<&'a mut dyn Observer>) -> Self {
        let stream = Stream::new(source, observer);
        Self { stream, content: Content::default(), name: Vec::new(), ended: false }
    }

    /// The next entry, what is left of the last one's content passed over. None at the end of the archive, after
    /// the source has been read to its end.
    ///
    /// # Errors
    /// `InvalidInput` naming the entry where the archive is malformed or truncated; what reading gives.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.ended {
            return Ok(None);
        }
        self.skip_content().map_err(|error| named(error, &self.name))?;
        let entry = self.read_headers().map_err(|error| named(error, &self.name))?;
        self.ended = entry.is_none();
        if self.ended {
            self.stream.skip_rest()?;
        }
        Ok(entry)
    }

    /// The next piece of the current entry's content: where in the file it goes, and the bytes. Whatever no piece
    /// covers, up to the entry's size, is a hole of a sparse file. None at the end of the content.
    ///
    /// # Errors
    /// As [`Reader::next_entry`].
    pub fn next_data(&mut self) -> Result<Option<(u64, &[u8])>> {
        self.piece(u64::MAX, ALIGNMENT)
    }

    fn piece(&mut self, limit: u64, align: u64) -> Result<Option<(u64, &[u8])>> {
        let content = &mut self.content;
        let run = match &content.runs {
            None => Some(Run { offset: content.offset, length: content.stored }),
            Some(runs) => runs.last().copied(),
        };
        let Some(run) = run.filter(|run| run.length > 0) else { return Ok(None) };
        let data = match self.stream.some(run.length.min(limit), run.offset, align, content.raw) {
            Ok(data) => data,
            Err(error) => return Err(named(error, &self.name)),
        };
        let length = data.len() as u64;
        content.stored -= length;
        content.offset = run.offset + length;
        if let Some(runs) = &mut content.runs {
            runs.pop();
            if run.length > length {
                runs.push(Run { offset: content.offset, length: run.length - length });
            }
        }
        Ok(Some((run.offset, data)))
    }

    /// The current entry's content as a stream, holes as zeros.
    pub fn content(&mut self) -> ContentReader<'_, 'a, R> {
        ContentReader { reader: self }
    }

    /// Whether the archive holds the current entry's content otherwise than byte by byte.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.content.runs.is_some()
    }

    /// Tells the observer that the current entry's content, of which nothing was read yet, is found in the layer,
    /// at `path` from its root; it then does not see the bytes themselves.
    ///
    /// # Errors
    /// What the observer gives.
    pub fn found_in_layer(&mut self, path: &[u8]) -> Result<()> {
        self.content.raw = false;
        self.stream.file(path, self.content.stored)
    }

    fn skip_content(&mut self) -> Result<()> {
        let content = std::mem::take(&mut self.content);
        self.stream.skip(content.stored, content.raw)?;
        self.stream.padding(content.padding)
    }

    fn read_headers(&mut self) -> Result<Option<Entry>> {
        let (mut extended, mut long_name, mut long_link) = (None, None, None);
        loop {
            let Some(block) = self.stream.block()? else {
                let dangling = extended.is_some() || long_name.is_some() || long_link.is_some();
                return if dangling { Err(truncated()) } else { Ok(None) };
            };
            if block == [0; BLOCK] {
                return match self.stream.block()? {
                    None => Ok(None),
                    Some(second) if second == [0; BLOCK] => Ok(None),
                    Some(_) => Err(invalid("a block of zeros lies between the entries")),
                };
            }
            header_name(&block, &mut self.name);
            check(&block)?;
            let size = field(&block, header::SIZE, "size")?;
            match block[header::TYPE] {
                b'x' => extended = Some(Extended::parse(&self.extension(size)?).map_err(invalid)?),
                b'L' => long_name = Some(until_nul(self.extension(size)?)),
                b'K' => long_link = Some(until_nul(self.extension(size)?)),
                b'g' | b'V' => self.stream.skip(padded(size), true)?,
                _ => {
                    let mut extended = extended.unwrap_or_default();
                    extended.path = extended.sparse.name.take().or(long_name).or(extended.path);
                    extended.link_path = long_link.or(extended.link_path);
                    return self.read_entry(&block, size, extended).map(Some);
                }
            }
        }
    }

    fn read_entry(&mut self, block: &[u8; BLOCK], size: u64, extended: Extended) -> Result<Entry> {
        if let Some(path) = extended.path {
            self.name = path;
        }
        let target =
            || extended.link_path.unwrap_or_else(|| header::text(&block[header::LINK_NAME]).to_vec());
        let mut stored = extended.size.unwrap_or(size);
        let mut kind = match block[header::TYPE] {
            0 if self.name.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File { size: stored },
            b'1' => EntryKind::Hardlink { target: target() },
            b'2' => EntryKind::Symlink { target: target() },
            b'3' => {
                let (major, minor) = device(block)?;
                EntryKind::CharDevice { major, minor }
            }
            b'4' => {
                let (major, minor) = device(block)?;
                EntryKind::BlockDevice { major, minor }
            }
            // GNU's `D` is a directory whose content lists its names, for incremental archives.
            b'5' | b'D' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                return Err(invalid(format!(
                    "an entry of the type \"{}\" is not known",
                    other.escape_ascii()
                )));
            }
        };
        let mut runs = None;
        match &mut kind {
            EntryKind::File { size } => {
                let sparse = if block[header::TYPE] == b'S' {
                    let (size, runs) = sparse::old_gnu(block, stored, &mut self.stream)?;
                    Some((size, runs, stored))
                } else {
                    sparse::pax(&extended.sparse, stored, &mut self.stream)?
                };
                if let Some((whole, mut map, left)) = sparse {
                    map.reverse();
                    (*size, runs, stored) = (whole, Some(map), left);
                }
            }
            _ if block[header::TYPE] == b'D' => {}
            _ => stored = 0,
        }
        if stored.checked_add(BLOCK as u64).is_none() {
            return Err(invalid("the size is beyond 64 bits"));
        }

        let mut xattrs = extended.xattrs;
        // Of several values of one name the last counts: after the stable sort it is the last of its equals.
        xattrs.sort_by(|a, b| a.0.cmp(&b.0));
        xattrs.reverse();
        xattrs.dedup_by(|later, kept| later.0 == kept.0);
        xattrs.reverse();
        let mtime = match extended.mtime {
            Some(mtime) => mtime,
            None => {
                let seconds = header::number(&block[header::MTIME]);
                Timestamp { seconds: seconds.ok_or_else(|| malformed("mtime"))?, nanoseconds: 0 }
            }
        };
        let entry = Entry {
            path: self.name.clone(),
            mode: (field(block, header::MODE, "mode")? & 0o7777) as u32,
            uid: owner(extended.uid, block, header::UID, "uid")?,
            gid: owner(extended.gid, block, header::GID, "gid")?,
            mtime,
            xattrs,
            kind,
        };
        let (padding, size) = (header::padding(stored), entry.content_size());
        self.content = Content { stored, padding, offset: 0, size, runs, raw: true };
        Ok(entry)
    }

    /// The content of an extended header or of a long name, with its padding read.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > LONGEST_EXTENSION {
            return Err(invalid(format!(
                "an extended header of {size} bytes; the limit is {LONGEST_EXTENSION}"
            )));
        }
        // Grows with what is there, not with what the header promises.
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            bytes.extend_from_slice(self.stream.some(size - bytes.len() as u64, 0, 1, true)?);
        }
        self.stream.skip(header::padding(size) as u64, true)?;
        Ok(bytes)
    }
}

/// The current entry's content as a stream: see [`Reader::content`].
#[derive(Debug)]
pub struct ContentReader<'r, 'a, R> {
    reader: &'r mut Reader<'a, R>,
}

impl<R: Read> Read for ContentReader<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let content = &mut self.reader.content;
        let data = match &content.runs {
            None => content.offset,
            Some(runs) => runs.last().map_or(content.size, |run| run.offset),
        };
        if content.offset < data {
            let zeros = usize::try_from(data - content.offset).unwrap_or(usize::MAX).min(buffer.len());
            buffer[..zeros].fill(0);
            content.offset += zeros as u64;
            return Ok(zeros);
        }
        match self.reader.piece(buffer.len() as u64, 1)? {
            None => Ok(0),
            Some((_, data)) => {
                buffer[..data.len()].copy_from_slice(data);
                Ok(data.len())
            }
        }
    }
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, what)
}

fn malformed(field: &str) -> Error {
    invalid(format!("the field {field} of the header is malformed"))
}

fn named(error: Error, name: &[u8]) -> Error {
    if name.is_empty() { error } else { error.with_path(Path::new(OsStr::from_bytes(name))) }
}

fn padded(size: u64) -> u64 {
    size.saturating_add(header::padding(size) as u64)
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(header::text(&bytes).len());
    bytes
}

/// Puts the name that the header itself has into `name`.
fn header_name(block: &[u8; BLOCK], name: &mut Vec<u8>) {
    name.clear();
    if &block[header::MAGIC][..6] == b"ustar\0" {
        let star = &block[header::STAR_TRAILER] == b"tar\0";
        let prefix = header::text(&block[if star { header::STAR_PREFIX } else { header::PREFIX }]);
        if !prefix.is_empty() {
            name.extend_from_slice(prefix);
            name.push(b'/');
        }
    }
    name.extend_from_slice(header::text(&block[header::NAME]));
}

fn check(block: &[u8; BLOCK]) -> Result<()> {
    let (unsigned, signed) = header::checksums(block);
    match header::number(&block[header::CHECKSUM]) {
        Some(sum) if sum == signed || u64::try_from(sum) == Ok(unsigned) => Ok(()),
        _ => Err(invalid("no tar header, or a damaged one: its checksum is wrong")),
    }
}

/// A number that must not be negative.
fn field(block: &[u8; BLOCK], range: std::ops::Range<usize>, what: &str) -> Result<u64> {
    header::number(&block[range]).and_then(|number| u64::try_from(number).ok()).ok_or_else(|| malformed(what))
}

/// An owner: below 2^32 - 1, which the kernel takes for "leave it as it is".
fn owner(
    extended: Option<u64>,
    block: &[u8; BLOCK],
    range: std::ops::Range<usize>,
    what: &str,
) -> Result<u32> {
    let id = match extended {
        Some(id) => id,
        None => field(block, range, what)?,
    };
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| invalid(format!("the {what} {id} is beyond what the kernel has")))
}

fn device(block: &[u8; BLOCK]) -> Result<(u32, u32)> {
    let number =
        |range, what| field(block, range, what).and_then(|id| u32::try_from(id).map_err(|_| malformed(what)));
    Ok((number(header::DEV_MAJOR, "devmajor")?, number(header::DEV_MINOR, "devminor")?))
}
