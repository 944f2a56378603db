//! What core keeps of each layer.

use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::options::Options;

/// Whether a layer can still change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerState {
    /// It can.
    Writable,
    /// It never changes again, and can be a parent.
    Sealed,
    /// It was made by another program, and its metadata do not tell. It can be mounted read-only, diffed, sealed
    /// and removed; to be written to it must be declared writable first
    /// ([`Layers::declare_writable`](super::Layers::declare_writable)).
    Unknown,
}

/// A layer's record.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Layer {
    /// Its id.
    pub id: LayerId,
    /// Its parent.
    pub parent: Option<LayerId>,
    /// Whether it can still change.
    pub state: LayerState,
    /// How many layers the chain from the base up to this one has: 1 for a base layer.
    pub depth: u32,
    /// The options it was made with.
    #[serde(default, skip_serializing_if = "Options::is_empty")]
    pub options: Options,
    /// When it was made, in seconds since the epoch.
    pub created: u64,
}

impl Layer {
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(self).unwrap_or_else(|_| unreachable!("strings and numbers only"));
        json.push(b'\n');
        json
    }

    /// Reads a record that was found under the name `id`.
    pub(super) fn from_json(id: &LayerId, json: &[u8]) -> Result<Self> {
        let layer: Self = serde_json::from_slice(json).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "the layer's record cannot be read")
                .with_layer(id)
                .with_source(error)
        })?;
        if layer.id == *id {
            Ok(layer)
        } else {
            let message = format!("the layer's record is that of layer {}", layer.id);
            Err(Error::new(ErrorKind::Corrupt, message).with_layer(id))
        }
    }
}
