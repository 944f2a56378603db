//! Writing a tar archive.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::header::{self, BLOCK};
use super::{Entry, EntryKind, pax};
use crate::error::{Error, ErrorKind, Result};

/// What is gathered before it is handed to the underlying writer, in bytes.
const BUFFER: usize = 256 * 1024;

/// Below this size, in bytes, looking for holes costs more than reading the zeros.
const WORTH_SEEKING: u64 = 64 * 1024;

/// The name in the header of an extended header; no reader looks at it, other writers use the same.
const PAX_NAME: &[u8] = b"././@PaxHeader";

/// Writes a tar archive whose bytes depend on the entries alone.
///
/// An entry is a ustar header where the values fit, and otherwise preceded by PAX records for those that do not:
/// names that are too long or not ASCII (raw bytes, also where they are not UTF-8), owners from 2,097,152, sizes
/// from 8 GiB, times before 1970, after 2242 or with nanoseconds, extended attributes (`SCHILY.xattr.`).
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    buffer: Box<[u8]>,
    filled: usize,
}

impl<W: Write> Writer<W> {
    /// An archive that goes to `out`, which needs no buffer of its own.
    pub fn new(out: W) -> Self {
        Self { out, buffer: vec![0; BUFFER].into_boxed_slice(), filled: 0 }
    }

    /// Appends an entry. The content of a file is read from `content` to its end; None is an empty content.
    ///
    /// # Errors
    /// `InvalidInput` naming the entry where a name is empty or has a NUL, a device number is beyond what the
    /// format holds, or the content is not as long as the entry says; what reading and writing give.
    pub fn append(&mut self, entry: &Entry, content: Option<&mut dyn Read>) -> Result<()> {
        self.put_header(entry)?;
        let size = entry.content_size();
        let Some(content) = content else {
            return if size == 0 { Ok(()) } else { Err(wrong_size(entry, 0)) };
        };
        let unreadable = |error| Error::from_io(error, "read the content").with_path(entry.shown());
        let mut done = 0;
        while done < size {
            let room = self.room(size - done)?;
            match content.read(room) {
                Ok(0) => return Err(wrong_size(entry, done)),
                Ok(length) => {
                    self.filled += length;
                    done += length as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        if content.take(1).read_to_end(&mut Vec::new()).map_err(unreadable)? != 0 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("the content is longer than {size} bytes"),
            )
            .with_path(entry.shown()));
        }
        self.put_zeros(header::padding(size) as u64)
    }

    /// Appends a file entry with the first `size` bytes of an open file, whatever its offset. Holes are written as
    /// zeros without being read. What a writer adds to the file meanwhile is left out.
    ///
    /// # Errors
    /// As [`Writer::append`]; a file that became shorter than `size` is `InvalidInput`.
    pub fn append_file(&mut self, entry: &Entry, file: impl AsFd) -> Result<()> {
        self.put_header(entry)?;
        let size = entry.content_size();
        let mut done = 0;
        while done < size {
            let (data, end) = if size < WORTH_SEEKING { (0, size) } else { next_data(&file, done, size) };
            if data > done
                && data == size
                && rustix::fs::fstat(&file).is_ok_and(|stat| (stat.st_size as u64) < size)
            {
                return Err(wrong_size(entry, done));
            }
            self.put_zeros(data.saturating_sub(done))?;
            done = done.max(data);
            while done < end {
                let room = self.room(end - done)?;
                match rustix::io::pread(&file, room, done) {
                    Ok(0) => return Err(wrong_size(entry, done)),
                    Ok(length) => {
                        self.filled += length;
                        done += length as u64;
                    }
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(Error::from_errno(errno, "read").with_path(entry.shown())),
                }
            }
        }
        self.put_zeros(header::padding(size) as u64)
    }

    /// Closes the archive with two blocks of zeros and gives back what it was written to, flushed.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self) -> Result<W> {
        self.put_zeros(2 * BLOCK as u64)?;
        self.write_out()?;
        self.out.flush().map_err(|error| Error::from_io(error, "write the archive"))?;
        Ok(self.out)
    }

    fn put_header(&mut self, entry: &Entry) -> Result<()> {
        let (block, records) = encode(entry)?;
        if !records.is_empty() {
            let mut extended = [0; BLOCK];
            extended[..PAX_NAME.len()].copy_from_slice(PAX_NAME);
            for field in [header::MODE, header::UID, header::GID, header::MTIME] {
                header::put_octal(&mut extended[field], 0);
            }
            header::put_octal(&mut extended[header::SIZE], records.len() as u64);
            extended[header::TYPE] = b'x';
            extended[header::MAGIC].copy_from_slice(header::MAGIC_USTAR);
            header::seal(&mut extended);
            self.put(&extended)?;
            self.put(&records)?;
            self.put_zeros(header::padding(records.len() as u64) as u64)?;
        }
        self.put(&block)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len() as u64)?;
            let (now, later) = bytes.split_at(room.len());
            room.copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
        }
        Ok(())
    }

    fn put_zeros(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let room = self.room(count)?;
            room.fill(0);
            let length = room.len();
            self.filled += length;
            count -= length as u64;
        }
        Ok(())
    }

    /// Free space in the buffer: at least one byte, at most `wanted`.
    fn room(&mut self, wanted: u64) -> Result<&mut [u8]> {
        if self.filled == self.buffer.len() {
            self.write_out()?;
        }
        let free = &mut self.buffer[self.filled..];
        let length = usize::try_from(wanted).unwrap_or(usize::MAX).min(free.len());
        Ok(&mut free[..length])
    }

    fn write_out(&mut self) -> Result<()> {
        let filled = std::mem::take(&mut self.filled);
        self.out.write_all(&self.buffer[..filled]).map_err(|error| Error::from_io(error, "write the archive"))
    }
}

/// Where the next data at or after `from` begin and end; from `from` to `size` where the file system cannot tell.
fn next_data(file: &impl AsFd, from: u64, size: u64) -> (u64, u64) {
    match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(data) if data < size => {
            let end = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(size);
            (data, end.clamp(data + 1, size))
        }
        Ok(_) | Err(Errno::NXIO) => (size, size),
        Err(_) => (from, size),
    }
}

fn wrong_size(entry: &Entry, found: u64) -> Error {
    let size = entry.content_size();
    Error::new(ErrorKind::InvalidInput, format!("the content ends after {found} of {size} bytes"))
        .with_path(entry.shown())
}

/// The header block, and the records of the extended header before it, if it needs one.
fn encode(entry: &Entry) -> Result<([u8; BLOCK], Vec<u8>)> {
    let invalid = |what: &str| Err(Error::new(ErrorKind::InvalidInput, what).with_path(entry.shown()));
    let mut block = [0; BLOCK];
    let mut records = Vec::new();

    if entry.path.is_empty() || entry.path.contains(&0) {
        return invalid("the name is empty or has a NUL");
    }
    if let Some((prefix, name)) = split_name(&entry.path) {
        block[..name.len()].copy_from_slice(name);
        block[header::PREFIX][..prefix.len()].copy_from_slice(prefix);
    } else {
        let name = &entry.path[..entry.path.len().min(header::NAME.len())];
        block[..name.len()].copy_from_slice(name);
        pax::put(&mut records, b"path", &entry.path);
    }

    let (letter, target, device) = match &entry.kind {
        EntryKind::File { .. } => (b'0', None, None),
        EntryKind::Hardlink { target } => (b'1', Some(target), None),
        EntryKind::Symlink { target } => (b'2', Some(target), None),
        EntryKind::CharDevice { major, minor } => (b'3', None, Some((*major, *minor))),
        EntryKind::BlockDevice { major, minor } => (b'4', None, Some((*major, *minor))),
        EntryKind::Directory => (b'5', None, None),
        EntryKind::Fifo => (b'6', None, None),
    };
    block[header::TYPE] = letter;
    if let Some(target) = target {
        if target.is_empty() || target.contains(&0) {
            return invalid("the link's target is empty or has a NUL");
        }
        let field = &mut block[header::LINK_NAME];
        let shown = &target[..target.len().min(field.len())];
        field[..shown.len()].copy_from_slice(shown);
        if shown.len() < target.len() || !target.is_ascii() {
            pax::put(&mut records, b"linkpath", target);
        }
    }
    let (major, minor) = device.unwrap_or((0, 0));
    if !header::put_octal(&mut block[header::DEV_MAJOR], major.into())
        || !header::put_octal(&mut block[header::DEV_MINOR], minor.into())
    {
        return invalid("the device number is beyond what a tar header holds");
    }

    header::put_octal(&mut block[header::MODE], (entry.mode & 0o7777).into());
    for (field, key, value) in [
        (header::UID, &b"uid"[..], u64::from(entry.uid)),
        (header::GID, b"gid", entry.gid.into()),
        (header::SIZE, b"size", entry.content_size()),
    ] {
        if !header::put_octal(&mut block[field], value) {
            pax::put(&mut records, key, value.to_string().as_bytes());
        }
    }
    let seconds = u64::try_from(entry.mtime.seconds);
    let fits = header::put_octal(&mut block[header::MTIME], seconds.unwrap_or(0));
    if !fits || seconds.is_err() || entry.mtime.nanoseconds != 0 {
        pax::put(&mut records, b"mtime", pax::format_time(entry.mtime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        pax::put(&mut records, &pax::encode_xattr_name(name), value);
    }

    block[header::MAGIC].copy_from_slice(header::MAGIC_USTAR);
    header::seal(&mut block);
    Ok((block, records))
}

/// The name as the fields prefix and name hold it; None where they cannot.
fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= header::NAME.len() {
        return Some((b"", path));
    }
    // The slash between the two is not stored. The earliest one that leaves a short enough name will do.
    let first = path.len() - header::NAME.len() - 1;
    let slash = first + path[first..path.len() - 1].iter().position(|byte| *byte == b'/')?;
    (1..=header::PREFIX.len()).contains(&slash).then(|| (&path[..slash], &path[slash + 1..]))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::process::Command;

    use super::super::Timestamp;
    use super::*;

    fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (entry, mut content) in entries.iter().cloned() {
            writer.append(&entry, Some(&mut content)).unwrap();
        }
        writer.finish().unwrap()
    }

    fn file(path: impl Into<Vec<u8>>, size: u64) -> Entry {
        Entry::new(path, EntryKind::File { size }, 0o644)
    }

    /// Unpacks with GNU tar into a fresh directory.
    fn gnu_tar(archive: &[u8]) -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        let tar = scratch.path().join("a.tar");
        std::fs::write(&tar, archive).unwrap();
        std::fs::create_dir(scratch.path().join("out")).unwrap();
        let output = Command::new("tar")
            .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--warning=no-timestamp", "-xpf"])
            .arg(&tar)
            .arg("-C")
            .arg(scratch.path().join("out"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        scratch
    }

    #[test]
    fn gnu_tar_reads_back_what_does_not_fit_a_plain_header() {
        let long = "d/".repeat(80) + &"n".repeat(120);
        let mut owned = file(long.clone(), 3);
        (owned.uid, owned.gid, owned.mode) = (4_000_000, 3_000_000, 0o4751);
        owned.mtime = Timestamp { seconds: -2, nanoseconds: 750_000_000 };
        owned.xattrs = vec![(b"user.a=b%3D%x".to_vec(), b"v\0\nw".to_vec())];
        let mut late = file("späte", 0);
        // The year 2300; ext4 keeps times up to 2446.
        late.mtime = Timestamp { seconds: 10_413_792_000, nanoseconds: 1 };
        let split = "p".repeat(100) + "/" + &"q".repeat(100);
        let link = Entry::new("l", EntryKind::Symlink { target: "t".repeat(300).into() }, 0o777);
        let entries = [
            (owned, &b"abc"[..]),
            (late, b""),
            (file(split.clone(), 1), b"x"),
            (file(b"\xff\xfe".to_vec(), 0), b""),
            (link, b""),
            (Entry::new("h", EntryKind::Hardlink { target: long.clone().into() }, 0o644), b""),
        ];
        let bytes = archive(&entries);
        assert_eq!(bytes, archive(&entries), "the same entries give the same bytes");
        let scratch = gnu_tar(&bytes);
        let out = scratch.path().join("out");
        let stat = out.join(&long).metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mode(), stat.nlink()), (4_000_000, 3_000_000, 0o104_751, 2));
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (-2, 750_000_000));
        assert_eq!(std::fs::read(out.join("h")).unwrap(), b"abc");
        let directory = File::open(out.join(&long).parent().unwrap()).unwrap();
        let name = std::ffi::CString::new("n".repeat(120)).unwrap();
        assert_eq!(
            crate::fs::xattr::get(&directory, &name, c"user.a=b%3D%x").unwrap(),
            Some(b"v\0\nw".to_vec())
        );
        let stat = out.join("späte").metadata().unwrap();
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (10_413_792_000, 1));
        assert_eq!(std::fs::read(out.join(split)).unwrap(), b"x");
        assert!(out.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")).exists());
        assert_eq!(std::fs::read_link(out.join("l")).unwrap().as_os_str().len(), 300);
    }

    #[test]
    fn content_that_is_not_as_long_as_said_is_refused_by_name() {
        for (size, content) in [(2, &b"x"[..]), (1, b"xy"), (1, b"")] {
            let mut writer = Writer::new(Vec::new());
            let error = writer.append(&file("f", size), Some(&mut &*content)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(error.path().unwrap().to_str(), Some("f"));
        }
        let mut writer = Writer::new(Vec::new());
        assert!(writer.append(&file("f", 1), None).is_err());
        let shrunk = tempfile::tempfile().unwrap();
        for length in [0, 100_000, 299_999] {
            shrunk.set_len(length).unwrap();
            assert!(writer.append_file(&file("f", 300_000), &shrunk).is_err());
        }
    }

    #[test]
    fn a_file_with_holes_is_written_as_its_bytes() {
        let sparse = tempfile::tempfile().unwrap();
        let size = 3_000_001;
        sparse.set_len(size).unwrap();
        sparse.write_all_at(b"head", 0).unwrap();
        sparse.write_all_at(b"middle", 1_500_000).unwrap();
        let mut expected = vec![0; size as usize];
        sparse.read_exact_at(&mut expected, 0).unwrap();
        let mut writer = Writer::new(Vec::new());
        writer.append_file(&file("f", size), &sparse).unwrap();
        assert_eq!(writer.finish().unwrap(), archive(&[(file("f", size), &expected)]));
    }

    #[test]
    fn names_that_a_tar_cannot_hold_are_refused() {
        for entry in [
            file("", 0),
            file("a\0b", 0),
            Entry::new("l", EntryKind::Symlink { target: Vec::new() }, 0o777),
            Entry::new("c", EntryKind::CharDevice { major: u32::MAX, minor: 0 }, 0o600),
        ] {
            assert_eq!(
                Writer::new(Vec::new()).append(&entry, None).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
        }
    }
}
