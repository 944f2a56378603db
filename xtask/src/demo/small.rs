//! A small image from the host's own files, made with tar and sha256sum, which every host has.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::digests::sha256;
use super::engine::foreign;
use super::{Form, Source};

/// What goes into the lower layer: small, on every host, with folders, links and a program.
const FILES: [&str; 4] = ["etc/os-release", "etc/passwd", "usr/lib/os-release", "usr/bin/env"];

/// Makes an image of two layers as an OCI archive; the upper layer deletes a file of the lower one.
pub(super) fn make(workplace: &Path) -> Result<Source> {
    let layout = workplace.join("small");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let lower = workplace.join("lower.tar");
    foreign(Command::new("tar").args(["-C", "/", "--ignore-failed-read", "-cf"]).arg(&lower).args(FILES))?;
    let upper = workplace.join("upper.tar");
    let changed = workplace.join("changed/etc");
    fs::create_dir_all(&changed)?;
    fs::write(changed.join(".wh.passwd"), "")?;
    fs::write(changed.join("motd"), "A small image.\n")?;
    foreign(Command::new("tar").arg("-C").arg(workplace.join("changed")).arg("-cf").arg(&upper).arg("etc"))?;

    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for tar in [&lower, &upper] {
        diff_ids.push(format!("sha256:{}", sha256(tar)?));
        foreign(Command::new("gzip").arg("--no-name").arg(tar))?;
        let layer = store(&blobs, &fs::read(tar.with_extension("tar.gz"))?)?;
        layers.push(described(&layer, "application/vnd.oci.image.layer.v1.tar+gzip"));
    }
    let config = json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": { "Cmd": ["/usr/bin/env"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = store(&blobs, &serde_json::to_vec(&config)?)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(&config, "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    });
    let manifest = store(&blobs, &serde_json::to_vec(&manifest)?)?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({ "schemaVersion": 2, "manifests": [described(&manifest, MANIFEST)] });
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    let archive = workplace.join("small.oci.tar");
    foreign(Command::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&archive).args([
        "oci-layout",
        "index.json",
        "blobs",
    ]))?;
    Ok(Source { path: archive, form: Form::OciArchive })
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A blob of an OCI layout: its SHA-256 in hex, and its size in bytes.
type Blob = (String, usize);

fn store(blobs: &Path, content: &[u8]) -> Result<Blob> {
    let new = blobs.join("new");
    fs::write(&new, content)?;
    let digest = sha256(&new)?;
    fs::rename(&new, blobs.join(&digest)).context("failed to name a blob")?;
    Ok((digest, content.len()))
}

fn described((digest, size): &Blob, media_type: &str) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}
