//! Saving images to archives.

mod docker;
mod layout;
mod sink;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use layerstack::{Error, ErrorKind, Result};

use crate::db::{ImageRow, Item, LayerRow, ManifestRow, Resolved};
use crate::digest::Digest;
use crate::model::{SaveFormat, SaveRequest, SaveTarget, Saved};
use crate::owner::random_hex;
use crate::progress::{Progress, Stage, Step, advance};
use crate::store::Store;
use sink::Sink;

/// One image to be saved.
struct Chosen {
    image: ImageRow,
    manifest: ManifestRow,
    /// The names by which it was asked for.
    names: Vec<String>,
    layers: Vec<LayerRow>,
    /// The digests of the manifest's layers.
    blobs: Vec<Digest>,
}

impl Store {
    /// Saves images. One that is given by a name is saved under that name, with the manifest that the name means; one
    /// that is given by its id has no name in the archive.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` where a layer cannot be put together with the digest that it must have;
    /// `Unsupported` for a docker archive in a directory; what writing gives.
    pub fn save(
        &self,
        references: &[&str],
        request: &SaveRequest,
        target: SaveTarget<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<Saved>> {
        self.operation(|owner| {
            let chosen = self.choose(references)?;
            let mut items = Vec::new();
            for image in &chosen {
                items.extend(image.layers.iter().map(|row| Item::Layer(row.layer.clone())));
                items.extend(image.blobs.iter().map(|blob| Item::Blob(blob.clone())));
            }
            self.claim_use(owner, &items)?;
            // With the claims nothing goes away; what went before them is noticed here.
            self.database.read(|tx| {
                for image in &chosen {
                    tx.manifest(&image.manifest.digest)?;
                }
                Ok(())
            })?;
            match target {
                SaveTarget::Stream(out) => self.write(&chosen, request, &mut Sink::archive(out), progress)?,
                SaveTarget::File(path) => {
                    to_file(path, |out| self.write(&chosen, request, &mut Sink::archive(out), progress))?;
                }
                SaveTarget::Directory(path) => {
                    if request.format == SaveFormat::Docker {
                        return Err(Error::new(
                            ErrorKind::Unsupported,
                            "the docker form is an archive; save it to a file, or choose the oci form",
                        )
                        .with_path(path));
                    }
                    self.write(&chosen, request, &mut Sink::directory(path)?, progress)?;
                }
            }
            Ok(chosen
                .into_iter()
                .map(|image| Saved {
                    image: image.image.id,
                    manifest: image.manifest.digest,
                    names: image.names,
                })
                .collect())
        })
    }

    fn choose(&self, references: &[&str]) -> Result<Vec<Chosen>> {
        let mut chosen: Vec<Chosen> = Vec::new();
        for reference in references {
            let (Resolved { image, manifest, name }, layers, blobs) = self.database.read(|tx| {
                let resolved = tx.resolve(reference)?;
                let layers = tx.image_layers(&resolved.image.id)?;
                let blobs = tx.manifest_blobs(&resolved.manifest.digest)?;
                Ok((resolved, layers, blobs))
            })?;
            match chosen.iter_mut().find(|known| known.manifest.digest == manifest.digest) {
                Some(known) => known.names.extend(name.filter(|name| !known.names.contains(name))),
                None => {
                    let names = name.into_iter().collect();
                    chosen.push(Chosen { image, manifest, names, layers, blobs });
                }
            }
        }
        if chosen.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "no image is named"));
        }
        Ok(chosen)
    }

    fn write(
        &self,
        chosen: &[Chosen],
        request: &SaveRequest,
        sink: &mut Sink<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        match request.format {
            SaveFormat::Oci => self.write_layout(chosen, sink, progress)?,
            SaveFormat::Docker => self.write_docker(chosen, sink, progress)?,
        }
        sink.finish()
    }

    /// Writes a layer's blob under a name, reporting how far it is.
    fn write_layer(
        &self,
        name: &str,
        digest: &Digest,
        sink: &mut Sink<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let row = self.kept_row(digest)?;
        let size = if row.digest == *digest { row.size } else { row.tar_size };
        sink.add(name, size, &mut |out| {
            progress.report(&Step::new(Stage::Saving, digest.as_str(), 0, Some(size)));
            let mut counted = Counted { out, done: 0, size, item: digest.as_str(), progress };
            // Headers and small files come in small pieces.
            let mut buffered = BufWriter::with_capacity(256 << 10, &mut counted);
            self.write_blob(digest, &mut buffered)?;
            buffered.flush().map_err(|error| Error::from_io(error, "write the archive"))
        })
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    done: u64,
    size: u64,
    item: &'a str,
    progress: &'a dyn Progress,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.done += length as u64;
        advance(self.progress, &Step::new(Stage::Saving, self.item, self.done, Some(self.size)))?;
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Lets `write` write a file that gets its name when it is whole. What is no regular file (a device, a pipe) is
/// written to as it is.
fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let fail = |error| Error::from_io(error, "write the archive").with_path(path);
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return write(&mut File::options().write(true).open(path).map_err(fail)?);
    }
    let name = path
        .file_name()
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "is not the name of a file").with_path(path))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", random_hex::<4>()?));
    let temporary = path.with_file_name(hidden);
    let run = || {
        write(&mut File::create_new(&temporary).map_err(fail)?)?;
        std::fs::rename(&temporary, path).map_err(fail)
    };
    run().inspect_err(|_| {
        // The first error says what went wrong; the file may not even be there.
        let _ = std::fs::remove_file(&temporary);
    })
}
