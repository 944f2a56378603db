//! Where images come from: a directory or a tar archive, seen as a set of files that can be opened by name.

mod layout;
mod plan;
mod tar;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::Arc;

use layerstack::{Error, ErrorKind, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};

pub(crate) use plan::{ImagePlan, plan};

use crate::image::Compression;
use crate::inflate::Inflate;
use crate::model::LoadSource;
use crate::progress::{Progress, Stage, Step, advance};

/// The largest JSON document that is read: config, manifest, index. The registries' own limit for a manifest is 4 MiB
/// (OCI distribution-spec, "Pushing Manifests"); a config may be larger.
const MAX_DOCUMENT: u64 = 16 << 20;

/// The files of an image archive.
pub(crate) enum Archive {
    Directory(OwnedFd),
    Tar(tar::Index),
}

impl Archive {
    /// Opens a source. What cannot be searched (a pipe, a compressed archive) is written to a file in `scratch` first.
    ///
    /// # Errors
    /// Where it cannot be read; `InvalidInput` where it is neither a directory nor a tar archive.
    pub(crate) fn open(source: LoadSource<'_>, scratch: &Path, progress: &dyn Progress) -> Result<Self> {
        match source {
            LoadSource::Path(path) => Self::open_path(path, scratch, progress)
                .map_err(|error| if error.path().is_some() { error } else { error.with_path(path) }),
            LoadSource::Stream(stream) => Self::spool(stream, "standard input", None, scratch, progress),
        }
    }

    fn open_path(path: &Path, scratch: &Path, progress: &dyn Progress) -> Result<Self> {
        let fail = |error| Error::from_io(error, "open the image").with_path(path);
        let mut file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, "no such file or directory").with_path(path)
            }
            _ => fail(error),
        })?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Ok(Self::Directory(file.into()));
        }
        let shown = path.display().to_string();
        if metadata.file_type().is_fifo() || metadata.file_type().is_char_device() {
            return Self::spool(&mut file, &shown, None, scratch, progress);
        }
        let mut first = [0_u8; 4];
        let length = file.read_at(&mut first, 0).map_err(fail)?;
        match Compression::of(&first[..length]) {
            Compression::Plain => Ok(Self::Tar(tar::Index::of(file)?)),
            Compression::Gzip | Compression::Zstd => {
                Self::spool(&mut file, &shown, Some(metadata.len()), scratch, progress)
            }
        }
    }

    fn spool(
        stream: &mut dyn Read,
        item: &str,
        total: Option<u64>,
        scratch: &Path,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let path = scratch.join("archive");
        let write = |error| Error::from_io(error, "write the temporary file").with_path(&path);
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).map_err(write)?;
        let counted = Counted { inner: stream, item, done: 0, total, progress };
        let mut plain = Inflate::new(counted).map_err(|error| Error::from_io(error, "read the archive"))?;
        let mut buffer = vec![0_u8; 256 << 10];
        progress.report(&Step::new(Stage::Reading, item, 0, total));
        loop {
            let length =
                plain.read(&mut buffer).map_err(|error| Error::from_io(error, "read the archive"))?;
            if length == 0 {
                break;
            }
            file.write_all(&buffer[..length]).map_err(write)?;
        }
        drop(plain);
        let length = file.metadata().map_err(write)?.len();
        progress.report(&Step::new(Stage::Reading, item, total.unwrap_or(length), total.or(Some(length))));
        Ok(Self::Tar(tar::Index::of(file)?))
    }

    /// Whether there is a file of this name.
    ///
    /// # Errors
    /// Where that cannot be found out.
    pub(crate) fn contains(&self, name: &str) -> Result<bool> {
        match self.file(name) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` naming it.
    pub(crate) fn file(&self, name: &str) -> Result<Member> {
        match self {
            Self::Directory(directory) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                // A layout that somebody else wrote must not lead out of itself.
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                let file = rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)
                    .map(File::from)
                    .map_err(|errno| match errno {
                        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
                            Error::new(ErrorKind::NotFound, "the layout has no such file")
                        }
                        errno => Error::from_errno(errno, "open"),
                    })
                    .map_err(|error| error.with_path(name))?;
                let metadata =
                    file.metadata().map_err(|error| Error::from_io(error, "look at").with_path(name))?;
                if !metadata.is_file() {
                    return Err(Error::new(ErrorKind::InvalidInput, "is not a regular file").with_path(name));
                }
                Ok(Member { file: Arc::new(file), offset: 0, end: metadata.len(), name: name.to_owned() })
            }
            Self::Tar(index) => index.file(name),
        }
    }

    /// Reads a JSON document.
    ///
    /// # Errors
    /// `NotFound` naming it; `InvalidInput` where it is too large to be one.
    pub(crate) fn document(&self, name: &str) -> Result<Vec<u8>> {
        let mut member = self.file(name)?;
        if member.size() > MAX_DOCUMENT {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("has {} bytes, more than the {MAX_DOCUMENT} that a document may have", member.size()),
            )
            .with_path(name));
        }
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|error| Error::from_io(error, "read").with_path(name))?;
        Ok(bytes)
    }
}

/// One file of an archive: a part of a file on the host.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    file: Arc<File>,
    offset: u64,
    end: u64,
    name: String,
}

impl Member {
    /// The first `size` bytes of a file of the store's own.
    pub(crate) fn of_file(file: File, size: u64, name: &str) -> Self {
        Self { file: Arc::new(file), offset: 0, end: size, name: name.to_owned() }
    }

    /// How many bytes are left to read.
    pub(crate) fn size(&self) -> u64 {
        self.end - self.offset
    }

    /// Its name in the archive.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Read for Member {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size()).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let length = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within the file"));
        }
        self.offset += length as u64;
        Ok(length)
    }
}

/// A reader that reports how far it is.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    item: &'a str,
    done: u64,
    total: Option<u64>,
    progress: &'a dyn Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.done += length as u64;
        advance(self.progress, &Step::new(Stage::Reading, self.item, self.done, self.total))?;
        Ok(length)
    }
}
