//! Digests, computed by tools that are not ours.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::engine::foreign;
use super::{Form, Source};
use crate::process;

/// What two images must have in common to be the same image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Digests {
    /// Of the configuration.
    pub(super) config: String,
    /// Of the layers as they are stored, the lowest first.
    pub(super) layers: Vec<String>,
}

impl Digests {
    /// What a foreign tool says of an image: skopeo, or where there is none and the image is an OCI layout, tar and
    /// sha256sum.
    pub(super) fn of(image: &Source) -> Result<Self> {
        if process::find("skopeo").is_some() {
            let name = format!("{}:{}", image.form.transport(), image.path.display());
            return Self::from_manifest(&parsed(&foreign(
                Command::new("skopeo").args(["inspect", "--raw", &name]),
            )?)?);
        }
        match image.form {
            Form::OciFolder => Self::of_layout(&image.path),
            Form::OciArchive => {
                let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
                foreign(Command::new("tar").arg("-C").arg(folder.path()).arg("-xf").arg(&image.path))?;
                Self::of_layout(folder.path())
            }
            Form::DockerArchive => {
                anyhow::bail!("only skopeo can tell the digests of a docker archive, and it is missing")
            }
        }
    }

    /// Follows the layout from its index down, and has sha256sum confirm each blob.
    fn of_layout(layout: &Path) -> Result<Self> {
        let index =
            parsed(&fs::read_to_string(layout.join("index.json")).context("failed to read index.json")?)?;
        let manifest = digest(&index["manifests"][0])?;
        let blob = |digest: &str| -> Result<Vec<u8>> {
            let hex = digest.strip_prefix("sha256:").with_context(|| format!("{digest} is no SHA-256"))?;
            let file = layout.join("blobs/sha256").join(hex);
            let actual = sha256(&file)?;
            ensure!(actual == hex, "the blob {hex} has the digest {actual}");
            fs::read(&file).with_context(|| format!("failed to read {}", file.display()))
        };
        let digests = Self::from_manifest(&serde_json::from_slice(&blob(&manifest)?)?)?;
        for digest in digests.layers.iter().chain([&digests.config]) {
            blob(digest)?;
        }
        Ok(digests)
    }

    fn from_manifest(manifest: &Value) -> Result<Self> {
        let layers = manifest["layers"].as_array().context("the manifest lists no layers")?;
        Ok(Self {
            config: digest(&manifest["config"])?,
            layers: layers.iter().map(digest).collect::<Result<_>>()?,
        })
    }
}

impl Form {
    /// How skopeo calls it.
    pub(super) fn transport(self) -> &'static str {
        match self {
            Self::OciFolder => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
        }
    }
}

/// The SHA-256 of a file in hex, by sha256sum.
pub(super) fn sha256(file: &Path) -> Result<String> {
    let line = process::output(Command::new("sha256sum").arg("--binary").arg(file))?;
    Ok(line.split_whitespace().next().context("sha256sum printed nothing")?.to_owned())
}

fn parsed(text: &str) -> Result<Value> {
    serde_json::from_str(text).context("failed to read a manifest")
}

fn digest(descriptor: &Value) -> Result<String> {
    Ok(descriptor["digest"].as_str().context("a descriptor has no digest")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::small;

    #[test]
    fn the_small_image_is_what_it_says() {
        let workplace = tempfile::tempdir().unwrap();
        let image = small::make(workplace.path()).unwrap();
        let digests = Digests::of_layout(&workplace.path().join("small")).unwrap();
        assert_eq!(digests.layers.len(), 2);
        assert_eq!(Digests::of(&image).unwrap(), digests);
    }

    #[test]
    fn a_blob_that_is_not_what_it_says_is_found() {
        let workplace = tempfile::tempdir().unwrap();
        small::make(workplace.path()).unwrap();
        let layout = workplace.path().join("small");
        let digests = Digests::of_layout(&layout).unwrap();
        let hex = digests.layers[1].strip_prefix("sha256:").unwrap();
        fs::write(layout.join("blobs/sha256").join(hex), "something else").unwrap();
        assert!(Digests::of_layout(&layout).unwrap_err().to_string().contains("has the digest"));
    }
}
