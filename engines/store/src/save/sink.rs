//! Where a saved image goes: a tar archive or a directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use layerstack::{Error, ErrorKind, Result};

use crate::owner::random_hex;

/// The blocks of a tar archive.
const BLOCK: u64 = 512;

/// Takes files by name.
pub(super) enum Sink<'a> {
    Archive(&'a mut dyn Write),
    Directory(PathBuf),
}

impl<'a> Sink<'a> {
    /// A tar archive of plain files. Its headers are the same whenever it is written.
    pub(super) fn archive(out: &'a mut dyn Write) -> Self {
        Self::Archive(out)
    }

    /// A directory, made where it is absent.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(super) fn directory(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)
            .map_err(|error| Error::from_io(error, "make the directory").with_path(path))?;
        Ok(Self::Directory(path.to_owned()))
    }

    /// Adds a file of `size` bytes, which `write` writes. In a directory a blob that is there with its size stays as it
    /// is; anything else is replaced when it is whole.
    ///
    /// # Errors
    /// What `write` gives, or writing; `Corrupt` where it writes another number of bytes.
    pub(super) fn add(
        &mut self,
        name: &str,
        size: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let wrong_size = |written: u64| {
            Error::new(ErrorKind::Corrupt, format!("has {written} bytes and not {size}")).with_path(name)
        };
        match self {
            Self::Archive(out) => {
                let fail = |error| Error::from_io(error, "write the archive");
                let mut header = tar::Header::new_gnu();
                header.set_path(name).map_err(fail)?;
                header.set_mode(0o644);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(0);
                header.set_size(size);
                header.set_cksum();
                out.write_all(header.as_bytes()).map_err(fail)?;
                let mut counted = Counted { out: &mut **out, bytes: 0 };
                write(&mut counted)?;
                let written = counted.bytes;
                if written != size {
                    return Err(wrong_size(written));
                }
                let padding = [0; BLOCK as usize];
                let padded = size.next_multiple_of(BLOCK) - size;
                out.write_all(&padding[..usize::try_from(padded).unwrap_or_default()]).map_err(fail)
            }
            Self::Directory(directory) => {
                let path = directory.join(name);
                let is_blob = name.starts_with("blobs/");
                if is_blob && path.metadata().is_ok_and(|found| found.is_file() && found.len() == size) {
                    return Ok(());
                }
                let fail = |error| Error::from_io(error, "write the layout").with_path(&path);
                let parent = path.parent().unwrap_or(directory);
                fs::create_dir_all(parent).map_err(fail)?;
                let temporary = directory.join(format!(".{}", random_hex::<8>()?));
                let run = || {
                    let mut file = File::create_new(&temporary).map_err(fail)?;
                    let mut counted = Counted { out: &mut file, bytes: 0 };
                    write(&mut counted)?;
                    if counted.bytes != size {
                        return Err(wrong_size(counted.bytes));
                    }
                    fs::rename(&temporary, &path).map_err(fail)
                };
                let mut run = run;
                run().inspect_err(|_| {
                    // The first error says what went wrong; the file may not even be there.
                    let _ = fs::remove_file(&temporary);
                })
            }
        }
    }

    /// Adds a document.
    ///
    /// # Errors
    /// As [`Sink::add`].
    pub(super) fn add_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.add(name, bytes.len() as u64, &mut |out| {
            out.write_all(bytes).map_err(|error| Error::from_io(error, "write the archive"))
        })
    }

    /// Reads a document that is there already; None in an archive, which is always new.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn existing(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Self::Directory(directory) = self else { return Ok(None) };
        let path = directory.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::from_io(error, "read").with_path(path)),
        }
    }

    /// Ends it: an archive ends with two blocks of zeros.
    ///
    /// # Errors
    /// What writing gives.
    pub(super) fn finish(&mut self) -> Result<()> {
        let Self::Archive(out) = self else { return Ok(()) };
        out.write_all(&[0; 2 * BLOCK as usize])
            .and_then(|()| out.flush())
            .map_err(|error| Error::from_io(error, "write the archive"))
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
