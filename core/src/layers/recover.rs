//! Mending on open what a kill or a power loss left.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::records::Guard;
use super::{Layer, LayerState, Layers};
use crate::driver::FoundLayer;
use crate::error::{ErrorKind, Result};
use crate::id::LayerId;
use crate::options::Options;

/// Something that opening a root found and mended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Recovered {
    /// A layer was being made, filled or removed when its process died; it was removed.
    Removed {
        /// The layer.
        layer: LayerId,
    },
    /// Debris of a layer of which nothing usable was left; it was removed.
    Debris {
        /// The layer.
        layer: LayerId,
    },
    /// A layer without a record, made by Docker or before a power loss; it has one now.
    Adopted {
        /// The layer.
        layer: LayerId,
        /// Its state: [`LayerState::Unknown`] where it cannot be told.
        state: LayerState,
    },
    /// Something under a layer's name that contradicts itself; it was left alone.
    Unusable {
        /// The layer.
        layer: LayerId,
        /// What is wrong with it.
        problem: String,
    },
    /// A record without a layer; it was removed.
    Lost {
        /// The layer.
        layer: LayerId,
    },
    /// A mount that was to go with its process; it was taken away.
    Unmounted {
        /// The layer.
        layer: LayerId,
        /// Where it was.
        target: PathBuf,
    },
    /// A mount that somebody else took away; it was forgotten.
    MountGone {
        /// The layer.
        layer: LayerId,
        /// Where it was.
        target: PathBuf,
    },
}

impl Recovered {
    /// Whether it says that what has this name is no usable layer.
    pub(super) fn is_unusable(&self, id: &LayerId) -> bool {
        matches!(self, Self::Unusable { layer, .. } if layer == id)
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed { layer } => write!(f, "layer {layer}: half made or half removed; removed"),
            Self::Debris { layer } => write!(f, "layer {layer}: only debris was left; removed"),
            Self::Adopted { layer, state } => match state {
                LayerState::Sealed => write!(f, "layer {layer}: had no record; adopted as sealed"),
                LayerState::Writable => write!(f, "layer {layer}: had no record; adopted as writable"),
                LayerState::Unknown => {
                    write!(
                        f,
                        "layer {layer}: had no record; adopted, but whether it is an image's is not known"
                    )
                }
            },
            Self::Unusable { layer, problem } => write!(f, "layer {layer}: {problem}; left alone"),
            Self::Lost { layer } => write!(f, "layer {layer}: nothing but its record was left; removed"),
            Self::Unmounted { layer, target } => {
                write!(f, "layer {layer}: its mount on {} outlived its process; unmounted", target.display())
            }
            Self::MountGone { layer, target } => {
                write!(f, "layer {layer}: its mount on {} is gone; forgotten", target.display())
            }
        }
    }
}

impl Layers {
    /// Finishes or undoes what was in flight. Reads names only, but for layers that need mending; on the first open
    /// after a boot it reads every record, since a power loss may have kept one change and lost an earlier one.
    pub(super) fn recover(&self) -> Result<Vec<Recovered>> {
        let mut found = Vec::new();
        let guard = self.records.lock()?;
        for (layer, target, was_there) in self.recover_mounts(&guard)? {
            found.push(if was_there {
                Recovered::Unmounted { layer, target }
            } else {
                Recovered::MountGone { layer, target }
            });
        }
        // The order matters: a layer leaves `pending` for `layers` without the lock that is held here.
        let pending: HashSet<LayerId> = self.records.list_pending()?.into_iter().collect();
        for id in &pending {
            if let Some(pending) = self.records.take_over(id, &guard)? {
                self.discard(&pending)?;
                found.push(Recovered::Removed { layer: id.clone() });
            }
        }
        let stored: HashSet<LayerId> = self.driver.list()?.into_iter().collect();
        let recorded: HashSet<LayerId> = self.records.list()?.into_iter().collect();
        let mut without_record: Vec<_> =
            stored.iter().filter(|id| !recorded.contains(*id) && !pending.contains(*id)).cloned().collect();
        without_record.sort();
        self.adopt(&without_record, &guard, &mut found)?;
        let mut without_layer: Vec<_> =
            recorded.iter().filter(|id| !stored.contains(*id) && !pending.contains(*id)).cloned().collect();
        if self.records.is_first_open_of_this_boot()? {
            for id in recorded.iter().filter(|id| stored.contains(*id)) {
                match self.records.read(id) {
                    Ok(layer) => self.records.relink_child(&layer)?,
                    // Never made durable, so never sealed.
                    Err(error) if error.kind() == ErrorKind::Corrupt => without_layer.push(id.clone()),
                    Err(error) => return Err(error),
                }
            }
        }
        without_layer.sort();
        for id in without_layer {
            self.forget_lost(&id, &guard, &mut found)?;
        }
        Ok(found)
    }

    /// Gives records to layers that have none: to parents before their children.
    fn adopt(&self, ids: &[LayerId], guard: &Guard<'_>, found: &mut Vec<Recovered>) -> Result<()> {
        let mut open: Vec<(LayerId, FoundLayer)> = Vec::new();
        for id in ids {
            match self.driver.find(id) {
                Ok(Some(layer)) => open.push((id.clone(), layer)),
                Ok(None) => {
                    self.driver.remove(id)?;
                    found.push(Recovered::Debris { layer: id.clone() });
                }
                // Whatever it is, it may hold somebody's data.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    found.push(Recovered::Unusable { layer: id.clone(), problem: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let known = super::docker::sealed_layers(&self.root, self.driver_name());
        let parents: HashSet<LayerId> = open.iter().filter_map(|(_, layer)| layer.parent.clone()).collect();
        while !open.is_empty() {
            let mut later = Vec::new();
            let before = open.len();
            for (id, layer) in open {
                let depth = match &layer.parent {
                    None => Some(1),
                    Some(parent) => self.records.read(parent).ok().map(|parent| parent.depth + 1),
                };
                let Some(depth) = depth else {
                    later.push((id, layer));
                    continue;
                };
                let state = match layer.sealed.or_else(|| known.get(&id).copied()) {
                    Some(true) => LayerState::Sealed,
                    _ if parents.contains(&id) => LayerState::Sealed,
                    Some(false) => LayerState::Writable,
                    None => LayerState::Unknown,
                };
                let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                let options = Options::new();
                let record = Layer { id: id.clone(), parent: layer.parent, state, depth, options, created };
                let pending = self.records.begin(record, guard)?;
                self.records.finish(pending, guard)?;
                found.push(Recovered::Adopted { layer: id, state });
            }
            if later.len() == before {
                for (layer, FoundLayer { parent, .. }) in later {
                    let parent = parent.as_ref().map_or("", LayerId::as_str);
                    found.push(Recovered::Unusable {
                        layer,
                        problem: format!("its parent {parent} is missing"),
                    });
                }
                return Ok(());
            }
            open = later;
        }
        Ok(())
    }

    /// Forgets a layer of which only a record, or nothing readable, is left. One that others stand on keeps its record,
    /// so that `check` can name what is missing.
    fn forget_lost(&self, id: &LayerId, guard: &Guard<'_>, found: &mut Vec<Recovered>) -> Result<()> {
        match self.records.refuse_children(id, guard) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::HasChildren => return Ok(()),
            Err(error) => return Err(error),
        }
        self.driver.remove(id)?;
        let parent = match self.records.read(id) {
            Ok(layer) => layer.parent,
            Err(_) => self.records.parent_listing(id)?,
        };
        self.records.forget_lost(id, parent.as_ref(), guard)?;
        found.push(Recovered::Lost { layer: id.clone() });
        Ok(())
    }
}
