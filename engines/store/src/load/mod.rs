//! Loading images from archives.

mod layer;
mod stream;

use layerstack::{Error, ErrorKind, LayerId, Result};

pub(crate) use layer::{Brought, Wanted};

use crate::db::{BlobRow, ImageRow, LayerRow, ManifestRow, NewImage};
use crate::digest::{Digest, chain_ids};
use crate::image::{CONFIG, Descriptor, MANIFEST, Manifest, layer_media_type};
use crate::model::{LoadRequest, LoadSource, Loaded};
use crate::owner::Owner;
use crate::progress::{Progress, Stage, Step};
use crate::source::{Archive, ImagePlan, plan};
use crate::store::Store;

impl Store {
    /// Loads the images of an OCI layout or a docker archive, compressed or not.
    ///
    /// All digests are verified before anything becomes visible; layers that are there already are shared. An
    /// archive's images become visible one after the other.
    ///
    /// # Errors
    /// `InvalidInput` naming the file in the archive and what is wrong with it, `Unsupported` for what images may hold
    /// but this program does not read, `NotFound` for a platform that the archive does not have, `NoSpace`. Nothing of
    /// the failed image is left.
    pub fn load(
        &self,
        source: LoadSource<'_>,
        request: &LoadRequest,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>> {
        let shown = match &source {
            LoadSource::Path(path) => Some((*path).to_owned()),
            LoadSource::Stream(_) => None,
        };
        let hint = shown
            .as_ref()
            .and_then(|path| std::fs::canonicalize(path).ok())
            .and_then(|path| Some(layout_name(path.file_name()?.to_str()?).to_owned()));
        self.operation(|owner| {
            let archive = Archive::open(source, &owner.directory(), progress)?;
            let plans =
                plan(&archive, request, hint.as_deref()).map_err(|error| match (&shown, error.path()) {
                    (Some(path), None) => error.with_path(path),
                    _ => error,
                })?;
            plans.into_iter().map(|plan| self.load_image(owner, &archive, plan, progress)).collect()
        })
    }

    fn load_image(
        &self,
        owner: &Owner,
        archive: &Archive,
        plan: ImagePlan,
        progress: &dyn Progress,
    ) -> Result<Loaded> {
        let diff_ids: Vec<Digest> = plan.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let chain = chain_ids(&diff_ids)?;
        if let Some(loaded) = self.is_there(&plan, &chain)? {
            for layer in &plan.layers {
                progress.report(&Step::new(Stage::Present, layer.diff_id.as_str(), 0, Some(0)));
            }
            return Ok(loaded);
        }
        let mut brought = Vec::new();
        for (index, layer) in plan.layers.iter().enumerate() {
            let wanted = Wanted {
                layer: &chain[index],
                parent: index.checked_sub(1).map(|below| &chain[below]),
                diff_id: &layer.diff_id,
                blob: layer.blob.as_ref(),
                member: archive.file(&layer.file)?,
            };
            brought.push(self.bring(owner, &wanted, progress)?);
        }
        let manifest = match plan.manifest {
            Some(planned) => ManifestRow {
                digest: planned.digest,
                image: plan.id.clone(),
                media_type: planned.media_type,
                body: planned.bytes,
            },
            None => written_manifest(&plan.id, plan.config_bytes.len(), &brought)?,
        };
        let layers_new = brought.iter().filter(|layer| layer.new).count() as u64;
        let loaded = Loaded {
            image: plan.id.clone(),
            manifest: manifest.digest.clone(),
            names: plan.names.clone(),
            layers_new,
            layers_shared: brought.len() as u64 - layers_new,
            already: false,
        };
        let row = ImageRow { id: plan.id, config: plan.config_bytes };
        let new = new_image(row, manifest, &chain, &diff_ids, brought, plan.names);
        layerstack::kill_point!("store.load.brought");
        self.database.write(|tx| tx.add_image(&new))?;
        layerstack::kill_point!("store.load.visible");
        Ok(loaded)
    }

    /// Where the image is whole and known by the manifest of the plan (or by its config, if the archive has no
    /// manifests), it only gets its names.
    fn is_there(&self, plan: &ImagePlan, chain: &[LayerId]) -> Result<Option<Loaded>> {
        for layer in chain {
            if !self.layers.contains(layer)? {
                return Ok(None);
            }
        }
        let kept = self.database.write(|tx| {
            let manifest = match &plan.manifest {
                Some(planned) => tx.manifest(&planned.digest),
                None => tx.newest_manifest(&plan.id),
            };
            let Ok(manifest) = manifest else { return Ok(None) };
            let mut rows = Vec::new();
            for blob in tx.manifest_blobs(&manifest.digest)? {
                match tx.blob(&blob)? {
                    Some(row) => rows.push(row),
                    None => return Ok(None),
                }
            }
            if rows.iter().all(|row: &BlobRow| self.kept.contains(&row.digest, row.form)) {
                for name in &plan.names {
                    tx.set_name(name, &manifest.digest)?;
                }
                return Ok(Some(manifest.digest));
            }
            Ok(None)
        })?;
        Ok(kept.map(|manifest| Loaded {
            image: plan.id.clone(),
            manifest,
            names: plan.names.clone(),
            layers_new: 0,
            layers_shared: chain.len() as u64,
            already: true,
        }))
    }
}

/// The manifest of an image that came without one, or was made here.
///
/// # Errors
/// None that a manifest of strings and numbers could have.
pub(crate) fn written_manifest(
    config: &Digest,
    config_size: usize,
    layers: &[Brought],
) -> Result<ManifestRow> {
    let descriptors = layers
        .iter()
        .map(|layer| Descriptor::new(layer_media_type(layer.compression), &layer.blob, layer.blob_size))
        .collect();
    let manifest = Manifest::new(Descriptor::new(CONFIG, config, config_size as u64), descriptors);
    let body = serde_json::to_vec(&manifest)
        .map_err(|error| Error::new(ErrorKind::Other, "write the manifest").with_source(error))?;
    Ok(ManifestRow {
        digest: Digest::of(&body),
        image: config.clone(),
        media_type: MANIFEST.to_owned(),
        body,
    })
}

/// What the database is told of an image whose layers are all there.
pub(crate) fn new_image(
    row: ImageRow,
    manifest: ManifestRow,
    chain: &[LayerId],
    diff_ids: &[Digest],
    brought: Vec<Brought>,
    names: Vec<String>,
) -> NewImage {
    let layers = chain
        .iter()
        .zip(diff_ids)
        .zip(&brought)
        .map(|((layer, diff_id), brought)| LayerRow {
            layer: layer.clone(),
            diff_id: diff_id.clone(),
            size: brought.size,
        })
        .collect();
    let blobs = brought.iter().map(|layer| layer.blob.clone()).collect();
    let kept = brought.into_iter().filter_map(|layer| layer.kept).collect();
    NewImage { row, layers, manifest, blobs, kept, names }
}

/// The name of an archive without what tells its form.
fn layout_name(file: &str) -> &str {
    let mut name = file;
    for suffix in [".gz", ".zst", ".tgz", ".tar"] {
        name = name.strip_suffix(suffix).unwrap_or(name);
    }
    name
}
