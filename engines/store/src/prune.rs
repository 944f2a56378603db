//! Removing what nobody needs.

use layerstack::{ErrorKind, Result};

use crate::db::Item;
use crate::images::delete_image;
use crate::model::{PruneRequest, Pruned};
use crate::store::Store;

impl Store {
    /// Removes images that have no name and no containers (with `all` those with names too), and what operations left:
    /// layers that this store made and nothing refers to, kept files of no image. Layers that others made in the root
    /// are left alone.
    ///
    /// # Errors
    /// What removing gives; calling it again goes on.
    pub fn prune(&self, request: &PruneRequest) -> Result<Pruned> {
        let inventory = self.inventory()?;
        let mut pruned = Pruned::default();
        self.operation(|owner| {
            let mut items = Vec::new();
            for image in &inventory.images {
                if image.containers > 0 || (!request.all && !image.names.is_empty()) {
                    continue;
                }
                let deleted = self.database.write(|tx| {
                    // A name or a container may have come meanwhile.
                    if !request.all && !tx.names(&image.id)?.is_empty() {
                        return Ok(None);
                    }
                    let items = delete_image(tx, &image.id)?;
                    for item in &items {
                        tx.claim_use(owner.name(), item)?;
                    }
                    Ok(Some(items))
                });
                match deleted {
                    Ok(Some(more)) => {
                        items.extend(more);
                        pruned.images.push(image.id.clone());
                    }
                    Ok(None) => {}
                    Err(error) if error.kind() == ErrorKind::InUse => {}
                    Err(error) => return Err(error),
                }
            }
            items.extend(self.database.read(|tx| tx.noted_layers())?.into_iter().map(Item::Layer));
            items.extend(inventory.blobs.iter().map(|row| Item::Blob(row.digest.clone())));
            let kept = self.kept.list()?;
            items.extend(kept.iter().map(|(digest, ..)| Item::Blob(digest.clone())));
            items.sort();
            items.dedup();

            let mut sizes = Vec::new();
            for item in items {
                if self.database.read(|tx| tx.is_garbage(owner.name(), &item))? {
                    let bytes = match &item {
                        Item::Layer(id) => self.bytes_of(id)?,
                        Item::Blob(wanted) => kept
                            .iter()
                            .filter(|(digest, ..)| digest == wanted)
                            .map(|(_, _, bytes)| bytes)
                            .sum(),
                    };
                    sizes.push((item, bytes));
                }
            }
            let garbage: Vec<Item> = sizes.iter().map(|(item, _)| item.clone()).collect();
            for item in self.collect(owner, &garbage)? {
                pruned.reclaimed +=
                    sizes.iter().find(|(known, _)| *known == item).map_or(0, |(_, bytes)| *bytes);
                match item {
                    Item::Layer(id) => pruned.layers.push(id),
                    Item::Blob(_) => pruned.files += 1,
                }
            }
            Ok(())
        })?;
        Ok(pruned)
    }
}
