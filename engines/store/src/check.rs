//! Finding what does not agree.

use std::collections::HashSet;
use std::io;

use layerstack::{Error, LayerId, LayerState, Result};

use crate::db::{BlobForm, Item};
use crate::digest::{Digest, chain_ids};
use crate::image::Config;
use crate::model::{CheckRequest, Finding};
use crate::progress::{Progress, Stage, Step, advance};
use crate::store::Store;

impl Store {
    /// What does not agree: the driver with core's records, the images with their layers and digests, the containers
    /// with theirs, the database with the kept files. With `deep` also every layer's tar with its digest.
    ///
    /// # Errors
    /// Where something cannot be read at all.
    pub fn check(&self, request: &CheckRequest, progress: &dyn Progress) -> Result<Vec<Finding>> {
        let mut findings: Vec<Finding> = self
            .layers
            .check()?
            .into_iter()
            .map(|finding| Finding::new(format!("layer {}", finding.layer), finding.problem))
            .collect();
        findings.extend(
            self.database
                .read(|tx| tx.problems())?
                .into_iter()
                .map(|problem| Finding::new("database", problem)),
        );
        self.check_images(&mut findings)?;
        self.check_containers(&mut findings)?;
        self.check_leftovers(&mut findings)?;
        if request.deep {
            self.check_contents(progress, &mut findings)?;
        }
        Ok(findings)
    }

    fn check_images(&self, findings: &mut Vec<Finding>) -> Result<()> {
        for row in self.database.read(|tx| tx.images())? {
            let subject = format!("image {}", row.id);
            let mut found = |problem: String| findings.push(Finding::new(subject.clone(), problem));
            if Digest::of(&row.config) != row.id {
                found("its config does not have its digest".to_owned());
                continue;
            }
            let (layers, manifests) = self.database.read(|tx| {
                let mut manifests = Vec::new();
                for digest in tx.manifests(&row.id)? {
                    let mut blobs = Vec::new();
                    for blob in tx.manifest_blobs(&digest)? {
                        blobs.push((tx.blob(&blob)?, blob));
                    }
                    manifests.push((tx.manifest(&digest)?, blobs));
                }
                Ok((tx.image_layers(&row.id)?, manifests))
            })?;
            let config = Config::parse(&row.config)?;
            let chain = chain_ids(config.diff_ids())?;
            if !chain.iter().eq(layers.iter().map(|layer| &layer.layer)) {
                found("its layers are not those of its config".to_owned());
            }
            let mut parent: Option<&LayerId> = None;
            for row in &layers {
                match self.layers.layer(&row.layer) {
                    Err(error) => found(format!("its layer {}: {}", row.layer, error.message())),
                    Ok(layer) if layer.parent.as_ref() != parent => {
                        found(format!("its layer {} does not stand on the one below", row.layer));
                    }
                    Ok(layer) if layer.state != LayerState::Sealed => {
                        found(format!("its layer {} is not sealed", row.layer));
                    }
                    Ok(_) => {}
                }
                parent = Some(&row.layer);
            }
            for (manifest, blobs) in manifests {
                if Digest::of(&manifest.body) != manifest.digest {
                    found(format!("its manifest {} does not have its digest", manifest.digest));
                }
                for (kept, blob) in blobs {
                    match kept {
                        None => found(format!("nothing is kept of its blob {blob}")),
                        Some(kept) => match self.kept.size(&kept.digest, kept.form) {
                            None => found(format!("the file kept of its blob {blob} is missing")),
                            Some(size) if size != kept.kept => {
                                found(format!(
                                    "the file kept of its blob {blob} has {size} bytes and not {}",
                                    kept.kept
                                ));
                            }
                            Some(_) => {}
                        },
                    }
                }
            }
        }
        Ok(())
    }

    fn check_containers(&self, findings: &mut Vec<Finding>) -> Result<()> {
        for row in self.database.read(|tx| tx.containers())? {
            if row.driver != self.layers.driver_name() {
                continue;
            }
            let mut found =
                |problem: String| findings.push(Finding::new(format!("container {}", row.name), problem));
            let top = self.database.read(|tx| tx.image_layers(&row.image))?.pop().map(|top| top.layer);
            match self.layers.layer(&row.id) {
                Err(error) => found(format!("its layer: {}", error.message())),
                Ok(layer) if layer.parent != top => {
                    found("its layer does not stand on the topmost layer of its image".to_owned());
                }
                Ok(layer) if layer.state != LayerState::Writable => {
                    found("its layer is not writable".to_owned());
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// What no image and no container needs. Running operations' claims are no leftovers.
    fn check_leftovers(&self, findings: &mut Vec<Finding>) -> Result<()> {
        let mut items: Vec<Item> = Vec::new();
        for id in self.database.read(|tx| tx.noted_layers())? {
            if self.layers.contains(&id)? {
                items.push(Item::Layer(id));
            }
        }
        items.extend(self.kept.list()?.into_iter().map(|(digest, ..)| Item::Blob(digest)));
        items.sort();
        items.dedup();
        for item in items {
            // No owner has the empty name.
            if self.database.read(|tx| tx.is_garbage("", &item))? {
                findings.push(Finding::new(item.to_string(), "nothing refers to it; prune removes it"));
            }
        }
        Ok(())
    }

    fn check_contents(&self, progress: &dyn Progress, findings: &mut Vec<Finding>) -> Result<()> {
        let inventory = self.inventory()?;
        let mut done: HashSet<&Digest> = HashSet::new();
        for image in &inventory.images {
            let tars = image.layers.iter().map(|row| &row.diff_id);
            for digest in image.blobs.iter().chain(tars) {
                if !done.insert(digest) {
                    continue;
                }
                let row = self.database.read(|tx| tx.blob(digest))?;
                let size = row.map(|row| match row.form {
                    BlobForm::Blob if row.digest == *digest => row.size,
                    _ => row.tar_size,
                });
                let begun = Step::new(Stage::Checking, digest.as_str(), 0, size);
                advance(progress, &begun).map_err(|error| Error::from_io(error, "check"))?;
                if let Err(error) = self.write_blob(digest, &mut io::sink()) {
                    findings.push(Finding::new(format!("image {}", image.shown()), full(&error)));
                }
                progress.report(&Step::new(Stage::Checking, digest.as_str(), size.unwrap_or(0), size));
            }
        }
        Ok(())
    }
}

/// An error with its causes in one line.
pub(crate) fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
