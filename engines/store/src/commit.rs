//! A container becomes an image.

use std::io::{BufWriter, Write};

use layerstack::layers::Base;
use layerstack::{Error, ErrorKind, Result};

use crate::db::{ImageRow, Item};
use crate::digest::{Digest, Hashing, chain_ids};
use crate::image::{Change, Commit, committed};
use crate::kept::Temporary;
use crate::load::{Wanted, new_image, written_manifest};
use crate::model::{CommitRequest, Image};
use crate::name::normalize;
use crate::progress::{Progress, Stage, Step};
use crate::source::Member;
use crate::store::Store;

impl Store {
    /// Makes an image of a container: the image that it stands on, and one more layer with what it changed.
    ///
    /// The changes are written to a temporary file first, since a layer's id follows from all of its bytes, and a
    /// container that is mounted may go on changing.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for the name or a change; what reading the container gives.
    pub fn commit(&self, container: &str, request: &CommitRequest, progress: &dyn Progress) -> Result<Image> {
        let names: Vec<String> = request.name.iter().map(|name| normalize(name)).collect::<Result<_>>()?;
        let mut changes = Vec::new();
        for line in &request.changes {
            changes.extend(Change::parse(line)?);
        }
        let row = self.own_container(container)?;
        let (parent, blobs, layers, created) = self.database.read(|tx| {
            let parent = tx.image(&row.image)?;
            let manifest = tx.newest_manifest(&parent.id)?;
            Ok((parent, tx.manifest_blobs(&manifest.digest)?, tx.image_layers(&row.image)?, tx.now_text()?))
        })?;
        let id = self.operation(|owner| {
            let claims: Vec<Item> = layers
                .iter()
                .map(|layer| Item::Layer(layer.layer.clone()))
                .chain(blobs.iter().map(|blob| Item::Blob(blob.clone())))
                .collect();
            self.claim_use(owner, &claims)?;
            let spool = Temporary::new(owner.directory().join("diff"))?;
            progress.report(&Step::new(Stage::Comparing, &row.name, 0, None));
            let (diff_id, size) = {
                let mut out = Hashing::new(BufWriter::with_capacity(256 << 10, &spool.file));
                self.layers.diff(&row.id, Base::Parent, &mut out)?;
                out.flush().map_err(|error| Error::from_io(error, "write the changes"))?;
                out.finish()
            };
            progress.report(&Step::new(Stage::Comparing, &row.name, size, Some(size)));

            let mut diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
            diff_ids.push(diff_id.clone());
            let chain = chain_ids(&diff_ids)?;
            let mut brought = Vec::new();
            for (layer, blob) in layers.iter().zip(&blobs) {
                brought.push(self.present(&layer.layer, Some(blob), &self.kept_row(blob)?)?);
            }
            if brought.len() != layers.len() {
                return Err(Error::new(ErrorKind::Corrupt, "the image's manifest does not fit its layers"));
            }
            let (Some(layer), Some(top)) = (chain.last(), layers.last()) else {
                return Err(Error::new(ErrorKind::Corrupt, "the container's image has no layers"));
            };
            let member = Member::of_file(spool.file, size, "the container's changes");
            let parent_layer = Some(&top.layer);
            let wanted =
                Wanted { layer, parent: parent_layer, diff_id: &diff_id, blob: Some(&diff_id), member };
            brought.push(self.bring(owner, &wanted, progress)?);

            let config = committed(
                &parent.config,
                &Commit {
                    diff_id: &diff_id,
                    created: &created,
                    message: request.message.as_deref(),
                    author: request.author.as_deref(),
                    container: &row.name,
                    changes: &changes,
                },
            )?;
            let id = Digest::of(&config);
            let manifest = written_manifest(&id, config.len(), &brought)?;
            let new =
                new_image(ImageRow { id: id.clone(), config }, manifest, &chain, &diff_ids, brought, names);
            layerstack::kill_point!("store.commit.brought");
            self.database.write(|tx| tx.add_image(&new))?;
            Ok(id)
        })?;
        self.image(id.as_str())
    }
}
