//! What Docker's layer store knows of the layers in a root that Docker made.
//!
//! ```text
//! <root>/image/<driver>/layerdb/sha256/<chain id>/cache-id     an image layer
//! <root>/image/<driver>/layerdb/mounts/<container>/mount-id    a container's writable layer
//! <root>/image/<driver>/layerdb/mounts/<container>/init-id     what lies between it and the image
//! ```
//! Each file holds the id that the driver has for the layer.

use std::collections::HashMap;
use std::path::Path;

use crate::id::LayerId;

/// For each layer that Docker's layer store names, whether it is sealed. What cannot be read is left out: the layer's state
/// is then unknown.
pub(super) fn sealed_layers(root: &Path, driver: &str) -> HashMap<LayerId, bool> {
    let layer_store = root.join("image").join(driver).join("layerdb");
    let mut sealed = HashMap::new();
    for (directory, file, is_sealed) in
        [("sha256", "cache-id", true), ("mounts", "init-id", true), ("mounts", "mount-id", false)]
    {
        let Ok(entries) = std::fs::read_dir(layer_store.join(directory)) else { continue };
        for entry in entries.flatten() {
            let id = std::fs::read_to_string(entry.path().join(file)).ok();
            if let Some(id) = id.and_then(|id| LayerId::new(id.trim()).ok()) {
                sealed.insert(id, is_sealed);
            }
        }
    }
    sealed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_layers_are_sealed_and_containers_are_not() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join("image/overlay2/layerdb").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("sha256/aa/cache-id", "image");
        write("sha256/bb/diff", "no cache id here");
        write("mounts/cc/mount-id", "top\n");
        write("mounts/cc/init-id", "top-init");
        write("mounts/dd/mount-id", "../bad");
        let id = |id: &str| LayerId::new(id).unwrap();
        assert_eq!(
            sealed_layers(root.path(), "overlay2"),
            HashMap::from([(id("image"), true), (id("top"), false), (id("top-init"), true)])
        );
        assert!(sealed_layers(root.path(), "btrfs").is_empty());
    }
}
