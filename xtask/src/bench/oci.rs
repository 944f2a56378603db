//! A data set as an image in an OCI layout directory, its layers not compressed, for the peers that unpack images only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::data::Set;
use crate::process;

/// The tag of every image.
pub(crate) const TAG: &str = "bench";

/// One image.
#[derive(Debug)]
pub(crate) struct Image {
    /// The layout directory.
    pub(crate) layout: PathBuf,
    /// The digest of the manifest.
    pub(crate) manifest: String,
    /// The digest of the configuration.
    pub(crate) config: String,
    /// The digests of the layers, `sha256:` in front.
    pub(crate) diff_ids: Vec<String>,
}

impl Image {
    /// Writes the image below `directory`.
    pub(crate) fn new(set: &Set, directory: &Path) -> Result<Self> {
        let layout = directory.join("oci");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in &set.layers {
            let digest = digest(layer)?;
            fs::copy(layer, blobs.join(&digest))?;
            let size = layer.metadata()?.len();
            layers.push(descriptor("application/vnd.oci.image.layer.v1.tar", &digest, size));
            diff_ids.push(format!("sha256:{digest}"));
        }
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let (config, size) = blob(&blobs, &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config, size),
            "layers": layers,
        });
        let (manifest, size) = blob(&blobs, &manifest)?;
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest, size);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": TAG });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::write(layout.join("index.json"), index.to_string())?;
        fs::write(layout.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
        Ok(Self { layout, manifest, config, diff_ids })
    }

    /// Packs the image as `docker save` does.
    pub(crate) fn docker_archive(&self, set: &Set, directory: &Path) -> Result<PathBuf> {
        let tree = directory.join("docker");
        fs::create_dir_all(&tree)?;
        let config = format!("{}.json", self.config);
        fs::copy(self.layout.join("blobs/sha256").join(&self.config), tree.join(&config))?;
        let mut layers = Vec::new();
        for (layer, number) in set.layers.iter().zip(1..) {
            let name = format!("{number}.tar");
            std::os::unix::fs::symlink(layer, tree.join(&name))?;
            layers.push(name);
        }
        let manifest = json!([{ "Config": config, "RepoTags": [format!("{TAG}:{TAG}")], "Layers": layers }]);
        fs::write(tree.join("manifest.json"), manifest.to_string())?;
        let archive = directory.join("docker.tar");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--dereference", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(&tree)
            .arg(".");
        process::output(&mut tar)?;
        Ok(archive)
    }
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size })
}

/// Writes a document among the blobs; gives its digest and size.
fn blob(blobs: &Path, document: &Value) -> Result<(String, u64)> {
    let half = blobs.join("half");
    let text = document.to_string();
    fs::write(&half, &text)?;
    let digest = digest(&half)?;
    fs::rename(half, blobs.join(&digest))?;
    Ok((digest, text.len() as u64))
}

/// The SHA-256 of a file, in hexadecimal.
fn digest(file: &Path) -> Result<String> {
    let text = process::output(Command::new("sha256sum").arg("--").arg(file))?;
    let digest = text.split_whitespace().next().unwrap_or_default();
    // A backslash in front marks a name with special characters.
    let digest = digest.trim_start_matches('\\');
    (digest.len() == 64).then(|| digest.to_owned()).context("sha256sum printed no digest")
}
