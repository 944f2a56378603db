//! The walk's findings as a layer tar.

use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::DiffSummary;
use super::compare::open;
use super::links::Links;
use super::walk::{Sink, Spot, failed, shown};
use crate::archive::{Entry, EntryKind, Timestamp, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::tree::{FileKind, Metadata, Tree, attributes, link_target};

/// What a whiteout's name starts with: image-spec, layer.md, "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";

/// Writes what the walk tells of.
pub(super) struct Export<'a> {
    layer: &'a Tree,
    writer: Writer<&'a mut dyn Write>,
    links: Links,
    summary: DiffSummary,
}

impl<'a> Export<'a> {
    pub(super) fn new(layer: &'a Tree, out: &'a mut dyn Write) -> Self {
        let (links, summary) = (Links::default(), DiffSummary::default());
        Self { layer, writer: Writer::new(out), links, summary }
    }

    /// Writes the names of which only now is known that they have to be there, and the end.
    pub(super) fn finish(mut self) -> Result<DiffSummary> {
        let mut last: Vec<u8> = Vec::new();
        for path in self.links.missing() {
            for end in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end) {
                let directory = &path[..end];
                if !last.starts_with(&path[..=end]) {
                    self.again(directory)?;
                }
            }
            self.again(&path)?;
            last = path;
        }
        self.writer.finish()?;
        Ok(self.summary)
    }

    /// Writes what is at `path`, unless it is gone by now.
    fn again(&mut self, path: &[u8]) -> Result<()> {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = slash.map_or((&b""[..], path), |slash| (&path[..slash], &path[slash + 1..]));
        let directory = match self.layer.open_directory(Path::new(OsStr::from_bytes(parent))) {
            Ok(directory) => directory,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let name = CString::new(name).map_err(|_| failed(Errno::INVAL, "open", path))?;
        let spot = Spot { path, directory: directory.as_fd(), name: &name };
        match Metadata::at(&directory, &name).map_err(|errno| failed(errno, "inspect", path))? {
            Some(found) => self.write(&spot, &found).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Writes an entry. Whether it was still there.
    fn write(&mut self, spot: &Spot<'_>, found: &Metadata) -> Result<bool> {
        refuse_whiteout_name(spot.path)?;
        if let Some(first) = self.links.written(found) {
            let kind = EntryKind::Hardlink { target: first.to_owned() };
            self.append(&entry(spot.path, kind, found))?;
            return Ok(true);
        }
        if found.kind == FileKind::File {
            return self.write_file(spot);
        }
        let fail = |what, errno| failed(errno, what, spot.path);
        let kind = match found.kind {
            FileKind::Directory => EntryKind::Directory,
            FileKind::Fifo => EntryKind::Fifo,
            FileKind::CharDevice => EntryKind::CharDevice { major: found.rdev.0, minor: found.rdev.1 },
            FileKind::BlockDevice => EntryKind::BlockDevice { major: found.rdev.0, minor: found.rdev.1 },
            FileKind::Symlink => match link_target(spot.directory, spot.name) {
                Ok(target) => EntryKind::Symlink { target },
                Err(Errno::NOENT) => return Ok(false),
                Err(errno) => return Err(fail("read the link", errno)),
            },
            // The walk leaves sockets out, and files were dealt with above.
            FileKind::Socket | FileKind::File => return Ok(true),
        };
        let mut entry = entry(spot.path, kind, found);
        entry.xattrs = match attributes(spot.directory, spot.name) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(fail("read the attributes", errno)),
        };
        self.append(&entry)?;
        self.links.write(found, spot.path);
        Ok(true)
    }

    fn write_file(&mut self, spot: &Spot<'_>) -> Result<bool> {
        let file = match open(spot.directory, spot.name) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(failed(errno, "open", spot.path)),
        };
        // Looked at again now that it is open, so that size and content belong together.
        let found = Metadata::of(&file).map_err(|errno| failed(errno, "inspect", spot.path))?;
        if found.kind != FileKind::File {
            return Err(
                Error::new(ErrorKind::InUse, "replaced while it was read").with_path(shown(spot.path))
            );
        }
        let mut entry = entry(spot.path, EntryKind::File { size: found.size }, &found);
        entry.xattrs = match attributes(spot.directory, spot.name) {
            Ok(attributes) => attributes,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(failed(errno, "read the attributes", spot.path)),
        };
        self.writer.append_file(&entry, &file)?;
        self.summary.entries += 1;
        self.summary.bytes += found.size;
        self.links.write(&found, spot.path);
        Ok(true)
    }

    fn write_whiteout(&mut self, path: &[u8]) -> Result<()> {
        refuse_whiteout_name(path)?;
        let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        self.append(&Entry {
            path: [&path[..start], WHITEOUT, &path[start..]].concat(),
            kind: EntryKind::File { size: 0 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: Vec::new(),
        })
    }

    fn append(&mut self, entry: &Entry) -> Result<()> {
        self.writer.append(entry, None)?;
        self.summary.entries += 1;
        Ok(())
    }
}

impl Sink for Export<'_> {
    const EXACT: bool = true;

    fn entry(&mut self, spot: &Spot<'_>, layer: &Metadata, base: Option<&Metadata>) -> Result<()> {
        if let Some(base) = base.filter(|base| base.kind != FileKind::Directory) {
            self.links.gone(base);
        }
        let there = self.write(spot, layer)?;
        if !there && base.is_some() { self.write_whiteout(spot.path) } else { Ok(()) }
    }

    fn above(&mut self, spot: &Spot<'_>, layer: &Metadata) -> Result<()> {
        self.write(spot, layer).map(|_| ())
    }

    fn deleted(&mut self, path: &[u8], base: &Metadata) -> Result<()> {
        if base.kind != FileKind::Directory {
            self.links.gone(base);
        }
        self.write_whiteout(path)
    }

    fn equal(&mut self, path: &[u8], layer: &Metadata, base: &Metadata) {
        self.links.leave_out(path, layer, base);
    }
}

/// An entry without extended attributes: a link has its file's.
fn entry(path: &[u8], kind: EntryKind, found: &Metadata) -> Entry {
    let name = match (&kind, path) {
        (EntryKind::Directory, b"") => b"./".to_vec(),
        (EntryKind::Directory, path) => [path, b"/"].concat(),
        _ => path.to_owned(),
    };
    Entry {
        path: name,
        kind,
        mode: found.mode,
        uid: found.uid,
        gid: found.gid,
        mtime: found.mtime,
        xattrs: Vec::new(),
    }
}

/// A file whose name looks like a whiteout would delete something, or be skipped, when the tar is applied.
fn refuse_whiteout_name(path: &[u8]) -> Result<()> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if name.starts_with(WHITEOUT) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a layer tar cannot hold a name that starts with .wh.",
        )
        .with_path(shown(path)));
    }
    Ok(())
}
