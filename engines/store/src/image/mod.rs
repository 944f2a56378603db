//! The documents that images are described by: those of the OCI image specification and Docker's.

mod config;
mod manifest;

pub(crate) use config::{Change, Commit, Config, committed};
pub(crate) use manifest::{
    Annotations, CONFIG, CONTAINERD_NAME, Compression, Descriptor, DockerEntry, INDEX, Index, MANIFEST,
    Manifest, Packing, REF_NAME, is_index, is_manifest, layer_media_type, layer_packing, parse,
};
