//! Writing blobs out again, bit for bit.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use layerstack::archive::reassemble;
use layerstack::{Error, ErrorKind, Result};

use crate::db::{BlobForm, BlobRow};
use crate::digest::{Digest, Hashing};
use crate::inflate::Inflate;
use crate::store::Store;

impl Store {
    /// Writes a blob: the one with this digest, or the plain tar with this diff id. What was written has the digest
    /// when this succeeds.
    ///
    /// # Errors
    /// `Corrupt` where nothing is kept of it, or what is kept does not give it; what `out` gives.
    pub(crate) fn write_blob(&self, digest: &Digest, out: &mut dyn Write) -> Result<()> {
        let row = self.kept_row(digest)?;
        let mut hashing = Hashing::new(out);
        let written = if row.digest == *digest && row.form == BlobForm::Blob {
            let mut file = self.kept.file(&row.digest, row.form)?;
            io::copy(&mut file, &mut hashing).map(drop).map_err(|error| Error::from_io(error, "copy"))
        } else {
            self.write_tar(&row, &mut hashing)
        };
        written.map_err(|error| error.with_path(format!("blob {digest}")))?;
        let (found, _) = hashing.finish();
        if found == *digest {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, format!("what is kept of blob {digest} gives the digest {found}")))
    }

    /// What is kept of a blob or of the plain tar with this diff id.
    ///
    /// # Errors
    /// `Corrupt` where it is nothing.
    pub(crate) fn kept_row(&self, digest: &Digest) -> Result<BlobRow> {
        self.database
            .read(|tx| tx.blob(digest))?
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("nothing is kept of blob {digest}")))
    }

    fn write_tar(&self, row: &BlobRow, out: &mut dyn Write) -> Result<()> {
        let file = self.kept.file(&row.digest, row.form)?;
        let mut kept = Inflate::new(file).map_err(|error| Error::from_io(error, "read"))?;
        if row.form != BlobForm::Split {
            return io::copy(&mut kept, out).map(drop).map_err(|error| Error::from_io(error, "inflate"));
        }
        for layer in self.database.read(|tx| tx.layers_of(&row.diff_id))? {
            if self.layers.contains(&layer)? {
                let tree = self.layers.tree(&layer)?;
                let mut open = |path: &[u8]| tree.open_file(Path::new(OsStr::from_bytes(path)));
                return reassemble(&mut kept, &mut open, out).map_err(|error| error.with_layer(&layer));
            }
        }
        Err(Error::new(ErrorKind::Corrupt, "the layer that has its files is missing"))
    }
}
