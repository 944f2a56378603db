//! Images made for the tests: a base layer, and one on top of it with a whiteout.

use std::path::{Path, PathBuf};

use layerstack::archive::{Entry, EntryKind, Writer};
use layerstack_store::Digest;
use serde_json::{Value, json};

/// An image of two layers, as bytes.
pub(crate) struct Image {
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
}

impl Image {
    /// `/etc/{hostname,passwd}`, `/usr/data` of `size` bytes; above it `/etc/hostname` is gone and `/etc/motd` is new.
    pub(crate) fn new(size: usize) -> Self {
        // Bytes without a pattern, so that no layer is small by accident.
        let mut state = 0x9e37_79b9_u32;
        let data: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .take(size)
        .collect();
        let base = tar(&[
            ("etc", None),
            ("etc/hostname", Some(b"base\n")),
            ("etc/passwd", Some(b"root:x:0:0::/root:/bin/sh\n")),
            ("usr", None),
            ("usr/data", Some(&data)),
        ]);
        let top = tar(&[("etc", None), ("etc/.wh.hostname", Some(b"")), ("etc/motd", Some(b"hello\n"))]);
        Self::of_layers(vec![base, top])
    }

    pub(crate) fn of_layers(layers: Vec<Vec<u8>>) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let history: Vec<_> = layers
            .iter()
            .map(|_| json!({"created": "2024-01-01T00:00:00Z", "created_by": "a\tcommand \u{1b}[2J"}))
            .collect();
        let config = json!({
            "architecture": layerstack_store::Platform::host().architecture,
            "os": "linux",
            "created": "2024-01-02T03:04:05Z",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        Self { config: config.to_string().into_bytes(), layers }
    }

    pub(crate) fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    /// The image as `docker save` writes it.
    pub(crate) fn docker_archive(&self, name: &str) -> Vec<u8> {
        let names: Vec<_> = (0..self.layers.len()).map(|index| format!("{index}.tar")).collect();
        let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]).to_string();
        let mut files: Vec<(&str, Option<&[u8]>)> = vec![("config.json", Some(&self.config))];
        for (name, layer) in names.iter().zip(&self.layers) {
            files.push((name, Some(layer)));
        }
        files.push(("manifest.json", Some(manifest.as_bytes())));
        tar(&files)
    }

    /// Writes the image as an OCI layout and gives the manifest's digest.
    pub(crate) fn write_layout(&self, directory: &Path, name: &str) -> String {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let blob = |bytes: &[u8], media_type: &str| {
            let digest = Digest::of(bytes);
            std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
            json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
        };
        let layers: Vec<_> =
            self.layers.iter().map(|layer| blob(layer, "application/vnd.oci.image.layer.v1.tar")).collect();
        let config = blob(&self.config, "application/vnd.oci.image.config.v1+json");
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let manifest = manifest.to_string();
        let mut descriptor = blob(manifest.as_bytes(), media_type);
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Digest::of(manifest.as_bytes()).to_string()
    }
}

/// A tar of files, and of directories where there is no content.
pub(crate) fn tar(files: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        match content {
            None => writer.append(&Entry::new(*name, EntryKind::Directory, 0o755), None).unwrap(),
            &Some(mut bytes) => {
                let kind = EntryKind::File { size: bytes.len() as u64 };
                writer.append(&Entry::new(*name, kind, 0o644), Some(&mut bytes)).unwrap();
            }
        }
    }
    writer.finish().unwrap()
}

/// The digests of the manifest, the config and the layers of the only image in a layout, each compared with its blob.
pub(crate) fn digests_of_layout(directory: &Path) -> Vec<String> {
    let blob = |descriptor: &Value| -> (String, Vec<u8>) {
        let digest = descriptor["digest"].as_str().unwrap();
        let path: PathBuf = directory.join("blobs").join(digest.replace(':', "/"));
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(Digest::of(&bytes).to_string(), digest);
        (digest.to_owned(), bytes)
    };
    let index: Value = serde_json::from_slice(&std::fs::read(directory.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let (digest, bytes) = blob(&index["manifests"][0]);
    let manifest: Value = serde_json::from_slice(&bytes).unwrap();
    let mut digests = vec![digest, blob(&manifest["config"]).0];
    digests.extend(manifest["layers"].as_array().unwrap().iter().map(|layer| blob(layer).0));
    digests
}
