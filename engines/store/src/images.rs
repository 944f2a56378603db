//! Images: listing, names, removal.

use layerstack::{Error, ErrorKind, Result};

use crate::db::{ImageRow, Item, LayerRow, Outcome, Resolved, Transaction};
use crate::digest::Digest;
use crate::image::Config;
use crate::model::{HistoryEntry, Image, ImageLayer, RemoveImage, RemovedImage};
use crate::name::normalize;
use crate::store::Store;

impl Store {
    /// All images, the newest first.
    ///
    /// # Errors
    /// Where the database or the driver's records cannot be read.
    pub fn images(&self) -> Result<Vec<Image>> {
        let rows = self.database.read(|tx| tx.images())?;
        let mut images = Vec::new();
        for row in rows {
            match self.describe_image(&row) {
                Ok(image) => images.push(image),
                // Another process removed it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        images.sort_by_key(|image| std::cmp::Reverse(image.created_unix));
        Ok(images)
    }

    /// The image that a reference means: `NAME[:TAG]`, the digest of its config or of a manifest of it, or the start
    /// of its id.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where several ids start so.
    pub fn image(&self, reference: &str) -> Result<Image> {
        let resolved = self.resolve(reference)?;
        self.describe_image(&resolved.image)
    }

    /// The config of an image, as it came.
    ///
    /// # Errors
    /// As [`Store::image`].
    pub fn image_config(&self, reference: &str) -> Result<serde_json::Value> {
        crate::image::parse(&self.resolve(reference)?.image.config, "the image's config")
    }

    /// The manifest of an image, as it came: the one that the name or digest means, else the newest.
    ///
    /// # Errors
    /// As [`Store::image`].
    pub fn image_manifest(&self, reference: &str) -> Result<serde_json::Value> {
        crate::image::parse(&self.resolve(reference)?.manifest.body, "the image's manifest")
    }

    /// How an image was made, the newest step first.
    ///
    /// # Errors
    /// As [`Store::image`].
    pub fn history(&self, reference: &str) -> Result<Vec<HistoryEntry>> {
        let resolved = self.resolve(reference)?;
        let config = Config::parse(&resolved.image.config)?;
        self.database.read(|tx| {
            let mut layers = tx.image_layers(&resolved.image.id)?.into_iter();
            let mut entries = Vec::new();
            for step in config.history() {
                let layer = if step.empty_layer { None } else { layers.next() };
                entries.push(HistoryEntry {
                    created_unix: tx.seconds(step.created.as_deref())?,
                    created: step.created.clone(),
                    created_by: step.created_by.clone(),
                    author: step.author.clone(),
                    comment: step.comment.clone(),
                    empty_layer: step.empty_layer,
                    size: layer.as_ref().map_or(0, |layer| layer.size),
                    layer: layer.map(|layer| layer.layer),
                });
            }
            // A history is optional; a layer that it does not tell of is shown nevertheless.
            entries.extend(layers.map(|layer| HistoryEntry {
                created: None,
                created_unix: None,
                created_by: None,
                author: None,
                comment: None,
                empty_layer: false,
                size: layer.size,
                layer: Some(layer.layer),
            }));
            entries.reverse();
            Ok(entries)
        })
    }

    /// Gives an image a name, taking it from the image that had it.
    ///
    /// # Errors
    /// `NotFound` for the image, `InvalidInput` for the name.
    pub fn tag(&self, reference: &str, name: &str) -> Result<()> {
        let name = normalize(name)?;
        self.database.write(|tx| {
            let resolved = tx.resolve(reference)?;
            tx.set_name(&name, &resolved.manifest.digest)
        })
    }

    /// Takes a name from an image, and removes the image with its last name.
    ///
    /// # Errors
    /// `NotFound`; `InUse` naming the containers that stand on the image, or where it is given by its id and has
    /// several names, without `force`.
    pub fn remove_image(&self, reference: &str, request: &RemoveImage) -> Result<RemovedImage> {
        self.operation(|owner| {
            let (removed, items) = self.database.write(|tx| {
                let Resolved { image, name, .. } = tx.resolve(reference)?;
                let names = tx.names(&image.id)?;
                if let Some(name) = name
                    && names.len() > 1
                {
                    tx.delete_name(&name)?;
                    return Ok((
                        RemovedImage { untagged: vec![name], deleted: None, layers: Vec::new() },
                        Vec::new(),
                    ));
                } else if names.len() > 1 && !request.force {
                    return Err(Error::new(
                        ErrorKind::InUse,
                        format!(
                            "image {} has several names ({}); force it",
                            image.id.short(),
                            names.join(", ")
                        ),
                    )
                    .into());
                }
                let items = delete_image(tx, &image.id)?;
                for item in &items {
                    tx.claim_use(owner.name(), item)?;
                }
                Ok((RemovedImage { untagged: names, deleted: Some(image.id), layers: Vec::new() }, items))
            })?;
            layerstack::kill_point!("store.image.deleted");
            let gone = self.collect(owner, &items)?;
            Ok(RemovedImage { layers: layers_of(gone), ..removed })
        })
    }

    pub(crate) fn resolve(&self, reference: &str) -> Result<Resolved> {
        self.database.read(|tx| tx.resolve(reference))
    }

    fn describe_image(&self, row: &ImageRow) -> Result<Image> {
        let config = Config::parse(&row.config)?;
        let (names, manifests, rows, created_unix) = self.database.read(|tx| {
            let created = tx.seconds(config.created.as_deref())?;
            Ok((tx.names(&row.id)?, tx.manifests(&row.id)?, tx.image_layers(&row.id)?, created))
        })?;
        let mut layers = Vec::new();
        for LayerRow { layer, diff_id, size } in rows {
            let present = self.layers.contains(&layer)?;
            layers.push(ImageLayer { chain_id: layer, diff_id, size, present });
        }
        let missing = layers.iter().filter(|layer| !layer.present).count();
        let broken = (missing > 0).then(|| {
            format!("the driver {} lacks {missing} of its {} layers", self.layers.driver_name(), layers.len())
        });
        Ok(Image {
            id: row.id.clone(),
            names,
            manifests,
            created: config.created.clone(),
            created_unix,
            size: layers.iter().map(|layer| layer.size).sum(),
            layers,
            platform: config.platform(),
            broken,
        })
    }
}

/// Removes an image from the database, unless containers stand on it; gives what it referred to.
pub(crate) fn delete_image(tx: &Transaction<'_>, image: &Digest) -> Outcome<Vec<Item>> {
    let users: Vec<String> =
        tx.containers()?.into_iter().filter(|row| row.image == *image).map(|row| row.name).collect();
    if !users.is_empty() {
        return Err(Error::new(
            ErrorKind::InUse,
            format!("image {} is used by the containers {}", image.short(), users.join(", ")),
        )
        .into());
    }
    let mut items = Vec::new();
    for row in tx.image_layers(image)? {
        items.push(Item::Layer(row.layer));
        // A plain tar may be kept for other manifests in another way; its own file goes only if it is garbage.
        for digest in tx.blobs_of(&row.diff_id)? {
            items.push(Item::Blob(digest));
        }
    }
    tx.delete_image(image)?;
    Ok(items)
}

pub(crate) fn layers_of(items: Vec<Item>) -> Vec<layerstack::LayerId> {
    items
        .into_iter()
        .filter_map(|item| match item {
            Item::Layer(id) => Some(id),
            Item::Blob(_) => None,
        })
        .collect()
}
