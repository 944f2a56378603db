//! The tree of layers, and what everything occupies.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use layerstack::{ErrorKind, LayerId, Result};

use crate::db::{BlobRow, ContainerRow, LayerRow};
use crate::digest::Digest;
use crate::model::{ContainerUsage, DiskUsage, ImageUsage, LayerKind, LayerNode};
use crate::store::Store;

/// An image with what refers to it.
pub(crate) struct Known {
    pub(crate) id: Digest,
    pub(crate) names: Vec<String>,
    pub(crate) layers: Vec<LayerRow>,
    /// The blobs of its manifests.
    pub(crate) blobs: Vec<Digest>,
    /// The containers that stand on it.
    pub(crate) containers: u64,
}

impl Known {
    /// A name, or the start of the id.
    pub(crate) fn shown(&self) -> String {
        self.names.first().cloned().unwrap_or_else(|| self.id.short().to_owned())
    }
}

/// All that the database knows, at one moment.
pub(crate) struct Inventory {
    pub(crate) images: Vec<Known>,
    /// Those of this driver.
    pub(crate) containers: Vec<ContainerRow>,
    pub(crate) blobs: Vec<BlobRow>,
    pub(crate) noted: Vec<LayerId>,
}

impl Store {
    pub(crate) fn inventory(&self) -> Result<Inventory> {
        self.database.read(|tx| {
            let mut containers = tx.containers()?;
            let mut images = Vec::new();
            for row in tx.images()? {
                let mut blobs = Vec::new();
                for manifest in tx.manifests(&row.id)? {
                    blobs.extend(tx.manifest_blobs(&manifest)?);
                }
                images.push(Known {
                    names: tx.names(&row.id)?,
                    layers: tx.image_layers(&row.id)?,
                    blobs,
                    containers: containers.iter().filter(|container| container.image == row.id).count()
                        as u64,
                    id: row.id,
                });
            }
            containers.retain(|container| container.driver == self.layers.driver_name());
            Ok(Inventory { images, containers, blobs: tx.blobs()?, noted: tx.noted_layers()? })
        })
    }

    /// All layers of the driver, as trees from the base layers up.
    ///
    /// # Errors
    /// Where the database or the driver's records cannot be read.
    pub fn tree(&self) -> Result<Vec<LayerNode>> {
        let inventory = self.inventory()?;
        let mut sizes: HashMap<&LayerId, u64> = HashMap::new();
        let mut tops: HashMap<&LayerId, Vec<String>> = HashMap::new();
        for image in &inventory.images {
            sizes.extend(image.layers.iter().map(|row| (&row.layer, row.size)));
            if let Some(top) = image.layers.last() {
                let shown = if image.names.is_empty() { vec![image.shown()] } else { image.names.clone() };
                tops.entry(&top.layer).or_default().extend(shown);
            }
        }
        let containers: HashMap<&LayerId, &str> =
            inventory.containers.iter().map(|row| (&row.id, row.name.as_str())).collect();

        let mut children: BTreeMap<Option<LayerId>, Vec<LayerNode>> = BTreeMap::new();
        let mut by_depth = Vec::new();
        for id in self.layers.list()? {
            match self.layers.layer(&id) {
                Ok(layer) => by_depth.push((layer.depth, id, layer.parent)),
                // Another process removed it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // From the topmost layers down, so that a layer's children are whole when it takes them.
        by_depth.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        for (_, id, parent) in by_depth {
            let (kind, size) = match (containers.get(&id), sizes.get(&id)) {
                (Some(_), _) => (LayerKind::Container, None),
                (None, Some(size)) => (LayerKind::Image, Some(*size)),
                (None, None) => (LayerKind::Unreferenced, None),
            };
            let size = match size {
                Some(size) => size,
                None => self.bytes_of(&id)?,
            };
            let node = LayerNode {
                kind,
                size,
                images: tops.remove(&id).unwrap_or_default(),
                containers: containers.get(&id).map(|name| (*name).to_owned()).into_iter().collect(),
                children: children.remove(&Some(id.clone())).unwrap_or_default(),
                id,
            };
            children.entry(parent).or_default().push(node);
        }
        // What stands on a layer that vanished meanwhile is shown as a root.
        Ok(children.into_values().flatten().collect())
    }

    /// What images, containers and kept files occupy.
    ///
    /// # Errors
    /// Where the database or the driver cannot be asked.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let inventory = self.inventory()?;
        let mut users: BTreeMap<&LayerId, (u64, u64)> = BTreeMap::new();
        for image in &inventory.images {
            for row in &image.layers {
                if !users.contains_key(&row.layer) {
                    users.insert(&row.layer, (self.bytes_of(&row.layer)?, 0));
                }
                if let Some((_, images)) = users.get_mut(&row.layer) {
                    *images += 1;
                }
            }
        }
        let images = inventory
            .images
            .iter()
            .map(|image| {
                let sizes = || image.layers.iter().filter_map(|row| users.get(&row.layer));
                let size = sizes().map(|(bytes, _)| bytes).sum();
                let unique = sizes().filter(|(_, images)| *images == 1).map(|(bytes, _)| bytes).sum();
                ImageUsage {
                    id: image.id.clone(),
                    names: image.names.clone(),
                    size,
                    shared: size - unique,
                    unique,
                    containers: image.containers,
                }
            })
            .collect();
        let mut containers = Vec::new();
        for row in &inventory.containers {
            containers.push(ContainerUsage {
                id: row.id.clone(),
                name: row.name.clone(),
                size: self.bytes_of(&row.id)?,
            });
        }
        let mut unreferenced = 0;
        for id in &inventory.noted {
            let container = inventory.containers.iter().any(|row| row.id == *id);
            if !container && !users.contains_key(id) {
                unreferenced += self.bytes_of(id)?;
            }
        }
        let needed: BTreeSet<&LayerId> =
            in_use(&inventory).flat_map(|image| &image.layers).map(|row| &row.layer).collect();
        let needed_tars: BTreeSet<&Digest> =
            in_use(&inventory).flat_map(|image| &image.layers).map(|row| &row.diff_id).collect();
        let spare_layers: u64 =
            users.iter().filter(|(id, _)| !needed.contains(*id)).map(|(_, (bytes, _))| bytes).sum();
        let spare_blobs: u64 = inventory
            .blobs
            .iter()
            .filter(|row| !needed_tars.contains(&row.diff_id))
            .map(|row| row.kept)
            .sum();
        Ok(DiskUsage {
            images,
            containers,
            layers: users.values().map(|(bytes, _)| bytes).sum(),
            blobs: inventory.blobs.iter().map(|row| row.kept).sum(),
            unreferenced,
            reclaimable: spare_layers + spare_blobs + unreferenced,
        })
    }

    /// What a layer occupies; nothing, where it is missing or just removed.
    pub(crate) fn bytes_of(&self, id: &LayerId) -> Result<u64> {
        match self.layers.usage(id) {
            Ok(usage) => Ok(usage.bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn in_use(inventory: &Inventory) -> impl Iterator<Item = &Known> {
    inventory.images.iter().filter(|image| image.containers > 0)
}
