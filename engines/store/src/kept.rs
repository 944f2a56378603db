//! The files beside the layers by which images save back bit for bit.
//!
//! A layer that came compressed is kept as it came, in `blobs/sha256/HEX`: no compressor gives the same bits again for
//! sure. A plain tar is kept as what it has beyond the layer's files, `tars/HEX.split.zst`, or as a whole,
//! compressed, `tars/HEX.tar.zst`, where the files alone do not give it back. A file is whole when it has its name.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use layerstack::{Error, Result};

use crate::db::BlobForm;
use crate::digest::Digest;
use crate::owner::absent_is_fine;

/// The directories of the kept files.
#[derive(Debug)]
pub(crate) struct Kept {
    blobs: PathBuf,
    tars: PathBuf,
}

impl Kept {
    /// # Errors
    /// Where the directories cannot be made.
    pub(crate) fn open(store: &Path) -> Result<Self> {
        let kept = Self { blobs: store.join("blobs/sha256"), tars: store.join("tars") };
        for directory in [&kept.blobs, &kept.tars] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|error| Error::from_io(error, "make the directory").with_path(directory))?;
        }
        Ok(kept)
    }

    fn path(&self, digest: &Digest, form: BlobForm) -> PathBuf {
        match form {
            BlobForm::Blob => self.blobs.join(digest.hex()),
            BlobForm::Tar => self.tars.join(format!("{}.tar.zst", digest.hex())),
            BlobForm::Split => self.tars.join(format!("{}.split.zst", digest.hex())),
        }
    }

    /// Opens what is kept of a blob.
    ///
    /// # Errors
    /// `Corrupt` where it is missing.
    pub(crate) fn file(&self, digest: &Digest, form: BlobForm) -> Result<File> {
        let path = self.path(digest, form);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::new(layerstack::ErrorKind::Corrupt, "is missing").with_path(&path)
            }
            _ => Error::from_io(error, "open").with_path(&path),
        })
    }

    /// Whether the file is there.
    pub(crate) fn contains(&self, digest: &Digest, form: BlobForm) -> bool {
        self.path(digest, form).exists()
    }

    /// The size of the file; None where it is missing.
    pub(crate) fn size(&self, digest: &Digest, form: BlobForm) -> Option<u64> {
        self.path(digest, form).metadata().ok().map(|metadata| metadata.len())
    }

    /// Makes a temporary file, once on the disk and under its name, the file of a blob; gives its size.
    ///
    /// # Errors
    /// Where it cannot be flushed or renamed.
    pub(crate) fn adopt(&self, temporary: &Temporary, digest: &Digest, form: BlobForm) -> Result<u64> {
        let path = self.path(digest, form);
        let keep = || {
            temporary.file.sync_all()?;
            let size = temporary.file.metadata()?.len();
            fs::rename(&temporary.path, &path)?;
            if let Some(directory) = path.parent() {
                File::open(directory)?.sync_all()?;
            }
            Ok(size)
        };
        keep().map_err(|error| Error::from_io(error, "keep").with_path(&path))
    }

    /// Removes whatever is kept of a blob; whether anything was.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<bool> {
        let mut any = false;
        for form in [BlobForm::Blob, BlobForm::Tar, BlobForm::Split] {
            let path = self.path(digest, form);
            any |= path.exists();
            absent_is_fine(fs::remove_file(&path))
                .map_err(|error| Error::from_io(error, "remove").with_path(&path))?;
        }
        Ok(any)
    }

    /// The blobs of which a file is there, in which form, and its size.
    ///
    /// # Errors
    /// Where the directories cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<(Digest, BlobForm, u64)>> {
        let mut found = Vec::new();
        for directory in [&self.blobs, &self.tars] {
            let fail = |error| Error::from_io(error, "read the directory").with_path(directory);
            for entry in fs::read_dir(directory).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                let (hex, form) = match name.split_once('.') {
                    None => (name, BlobForm::Blob),
                    Some((hex, "tar.zst")) => (hex, BlobForm::Tar),
                    Some((hex, "split.zst")) => (hex, BlobForm::Split),
                    Some(_) => continue,
                };
                if let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() {
                    // A file that another process removes meanwhile is not there.
                    if let Ok(metadata) = entry.metadata() {
                        found.push((digest, form, metadata.len()));
                    }
                }
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}

/// A file in an owner's directory.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) file: File,
    path: PathBuf,
}

impl Temporary {
    /// # Errors
    /// Where it cannot be made.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::from_io(error, "make the temporary file").with_path(&path))?;
        Ok(Self { file, path })
    }
}
