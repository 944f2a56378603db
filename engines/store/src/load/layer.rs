//! Bringing one layer into the store: unpacked, verified, and kept so that it can be written out again.

use std::io;

use layerstack::apply::{Applied, ApplyRequest};
use layerstack::archive::Recorder;
use layerstack::options::Options;
use layerstack::{Error, ErrorKind, LayerId, Result};

use super::stream::{Digests, compress, compression, with_stream};
use crate::db::{BlobForm, BlobRow, Item};
use crate::digest::Digest;
use crate::image::Compression;
use crate::kept::Temporary;
use crate::owner::Owner;
use crate::progress::{Progress, Stage, Step};
use crate::source::Member;
use crate::store::Store;

/// A layer that an image needs.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) layer: &'a LayerId,
    pub(crate) parent: Option<&'a LayerId>,
    /// The digest that its plain tar must have.
    pub(crate) diff_id: &'a Digest,
    /// The digest that its blob must have, where the archive says so.
    pub(crate) blob: Option<&'a Digest>,
    /// Where it is to be had.
    pub(crate) member: Member,
}

/// A layer that is in the store now.
#[derive(Debug)]
pub(crate) struct Brought {
    /// The digest and size of its blob, and how that is compressed, for the manifest.
    pub(crate) blob: Digest,
    pub(crate) blob_size: u64,
    pub(crate) compression: Compression,
    /// What was kept, unless it was there.
    pub(crate) kept: Option<BlobRow>,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// Whether it was unpacked now.
    pub(crate) new: bool,
}

impl Store {
    /// Brings a layer into the store, or finds that it is there. Its parent is there.
    ///
    /// # Errors
    /// `InvalidInput` naming the file where a digest is not what it should be, or the archive is damaged; `NoSpace`.
    /// The layer is absent then.
    pub(crate) fn bring(
        &self,
        owner: &Owner,
        wanted: &Wanted<'_>,
        progress: &dyn Progress,
    ) -> Result<Brought> {
        let item = Item::Layer(wanted.layer.clone());
        self.claim_use(owner, std::slice::from_ref(&item))?;
        let mut present = self.layers.contains(wanted.layer)?;
        if !present {
            self.claim_making(owner, &item)?;
            layerstack::kill_point!("store.layer.claimed");
            // Another process may have made it while this one waited.
            present = self.layers.contains(wanted.layer)?;
        }
        let brought = self.bring_claimed(owner, wanted, present, progress);
        self.database.write(|tx| tx.release_work(owner.name(), &item))?;
        brought.map_err(|error| match error.path() {
            None => error.with_path(wanted.member.name()),
            // It names an entry of the layer; which layer of the archive it is has to be said too.
            Some(_) => Error::new(error.kind(), "the layer cannot be unpacked")
                .with_path(wanted.member.name())
                .with_source(error),
        })
    }

    fn bring_claimed(
        &self,
        owner: &Owner,
        wanted: &Wanted<'_>,
        present: bool,
        progress: &dyn Progress,
    ) -> Result<Brought> {
        let shown = wanted.blob.unwrap_or(wanted.diff_id).as_str();
        let kept = self.kept_blob(owner, wanted.blob.unwrap_or(wanted.diff_id))?;
        if present && let Some(row) = kept {
            let total = Some(wanted.member.size());
            progress.report(&Step::new(Stage::Present, shown, wanted.member.size(), total));
            return self.present(wanted.layer, wanted.blob, &row);
        }
        let compression = compression(&wanted.member)?;
        let raw = match compression {
            Compression::Plain => None,
            _ => Some(Temporary::new(owner.directory().join("blob"))?),
        };
        let keep = raw.as_ref().map(|raw| &raw.file);
        let member = wanted.member.clone();
        let (digests, applied, split) = with_stream(member, compression, keep, progress, shown, |stream| {
            let mut digests = None;
            let mut verify = || -> Result<()> {
                let found = stream.finish()?;
                verify(wanted, &found)?;
                digests = Some(found);
                Ok(())
            };
            if present {
                verify()?;
                return Ok((digests, None, None));
            }
            let mut tar = stream;
            let options = Options::new();
            let (layer, parent) = (wanted.layer, wanted.parent);
            let mut verify = |_: &Applied| verify();
            if compression == Compression::Plain {
                let split = Temporary::new(owner.directory().join("split"))?;
                let mut recorder = Recorder::new(encoder(&split)?);
                let request = ApplyRequest::new().with_observer(&mut recorder);
                let applied =
                    self.layers.import_verified(layer, parent, &options, &mut tar, request, &mut verify)?;
                finish(recorder)?;
                Ok((digests, Some(applied), Some(split)))
            } else {
                let request = ApplyRequest::new();
                let applied =
                    self.layers.import_verified(layer, parent, &options, &mut tar, request, &mut verify)?;
                Ok((digests, Some(applied), None))
            }
        })?;
        let digests = digests.ok_or_else(|| {
            Error::new(ErrorKind::Other, "the layer was not verified").with_layer(wanted.layer)
        })?;
        let (temporary, form) = match (raw, split, &applied) {
            (Some(raw), ..) => (raw, BlobForm::Blob),
            (None, Some(split), Some(applied)) if !applied.overwritten => (split, BlobForm::Split),
            _ => (whole(owner, &wanted.member)?, BlobForm::Tar),
        };
        let kept = match self.kept_blob(owner, &digests.blob)? {
            Some(_) => None,
            None => {
                let kept = self.kept.adopt(&temporary, &digests.blob, form)?;
                layerstack::kill_point!("store.blob.kept");
                let Digests { blob, blob_size, tar, tar_size } = digests.clone();
                Some(BlobRow { digest: blob, diff_id: tar, size: blob_size, tar_size, form, kept })
            }
        };
        let size = match applied {
            Some(applied) => applied.bytes,
            None => self.size_of(wanted.layer)?,
        };
        Ok(Brought {
            blob: digests.blob,
            blob_size: digests.blob_size,
            compression,
            kept,
            size,
            new: !present,
        })
    }

    /// What is kept of a blob, if it can be relied on: it is claimed, and its file is there.
    fn kept_blob(&self, owner: &Owner, digest: &Digest) -> Result<Option<BlobRow>> {
        self.claim_use(owner, &[Item::Blob(digest.clone())])?;
        let Some(row) = self.database.read(|tx| tx.blob(digest))? else { return Ok(None) };
        if row.digest != *digest {
            self.claim_use(owner, &[Item::Blob(row.digest.clone())])?;
        }
        Ok(self.kept.contains(&row.digest, row.form).then_some(row))
    }

    /// A layer that is in the store, by the blob that a manifest names. Without one it is taken in the form in which
    /// it is kept.
    ///
    /// # Errors
    /// `Corrupt` where the kept file is missing.
    pub(crate) fn present(&self, layer: &LayerId, blob: Option<&Digest>, row: &BlobRow) -> Result<Brought> {
        let as_kept = blob.is_none_or(|blob| *blob == row.digest);
        let (blob, blob_size) = match blob {
            Some(blob) if !as_kept => (blob.clone(), row.tar_size),
            _ => (row.digest.clone(), row.size),
        };
        let mut compression = Compression::Plain;
        if as_kept && row.form == BlobForm::Blob {
            let mut first = [0; 4];
            let length = io::Read::read(&mut self.kept.file(&row.digest, row.form)?, &mut first)
                .map_err(|error| Error::from_io(error, "read the kept blob"))?;
            compression = Compression::of(&first[..length]);
        }
        let size = self.size_of(layer)?;
        Ok(Brought { blob, blob_size, compression, kept: None, size, new: false })
    }

    /// Bytes of a layer's files: as noted when an image brought it, else what the driver finds.
    fn size_of(&self, layer: &LayerId) -> Result<u64> {
        match self.database.read(|tx| tx.layer_size(layer))? {
            Some(size) => Ok(size),
            None => Ok(self.layers.usage(layer)?.bytes),
        }
    }
}

fn verify(wanted: &Wanted<'_>, found: &Digests) -> Result<()> {
    if let Some(blob) = wanted.blob
        && *blob != found.blob
    {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("the layer has the digest {} and not {blob}", found.blob),
        ));
    }
    if *wanted.diff_id != found.tar {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("the layer's tar has the digest {} and not the diff id {}", found.tar, wanted.diff_id),
        ));
    }
    Ok(())
}

type Encoder<'a> = zstd::stream::write::Encoder<'static, &'a std::fs::File>;

fn encoder(file: &Temporary) -> Result<Encoder<'_>> {
    zstd::stream::write::Encoder::new(&file.file, 3).map_err(|error| Error::from_io(error, "compress"))
}

fn finish(recorder: Recorder<Encoder<'_>>) -> Result<()> {
    let fail = |error| Error::from_io(error, "write what the tar has beyond its files");
    recorder.finish().map_err(fail)?.finish().map_err(fail)?;
    Ok(())
}

/// The plain tar as a whole, compressed.
fn whole(owner: &Owner, member: &Member) -> Result<Temporary> {
    let file = Temporary::new(owner.directory().join("tar"))?;
    compress(member.clone(), &file.file).map_err(|error| Error::from_io(error, "keep the layer's tar"))?;
    Ok(file)
}
