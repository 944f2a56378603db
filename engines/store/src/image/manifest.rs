//! Manifests and indexes: OCI's (<https://github.com/opencontainers/image-spec>), Docker's schema 2, and the
//! `manifest.json` of `docker save`.

use std::collections::BTreeMap;

use layerstack::{Error, ErrorKind, Result};

use crate::digest::Digest;
use crate::platform::Platform;

/// The media type of an OCI manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an OCI image configuration.
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The annotation that names an image in an OCI layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation by which containerd and Docker give the full name.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The annotation that marks what `docker buildx` puts beside an image and is none itself.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Annotations by key.
pub(crate) type Annotations = BTreeMap<String, String>;

/// A reference to a blob.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<Annotations>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: &Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size,
            urls: Vec::new(),
            platform: None,
            annotations: None,
        }
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether it belongs to an image rather than being one: an attestation of `docker buildx`.
    pub(crate) fn is_attachment(&self) -> bool {
        self.annotation(REFERENCE_TYPE).is_some()
            || self.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    }
}

/// An index, also called manifest list: images for several platforms, or all images of a layout.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<Annotations>,
}

/// The manifest of one image.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// An OCI manifest of a config and layers whose tars are plain.
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: Some(MANIFEST.to_owned()), config, layers }
    }

    /// Checks that this is the manifest of an image, not of some other artifact.
    ///
    /// # Errors
    /// `InvalidInput` naming the media type.
    pub(crate) fn check(&self) -> Result<()> {
        match self.config.media_type.as_str() {
            CONFIG | DOCKER_CONFIG => Ok(()),
            other => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("not a container image: its config is of type \"{}\"", other.escape_debug()),
            )),
        }
    }
}

/// One image in the `manifest.json` of `docker save`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerEntry {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Vec<String>,
}

/// Whether a media type is that of an index; an empty one is left to the document itself.
pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_LIST)
}

/// Checks that a media type is that of a manifest that can be read here.
///
/// # Errors
/// `Unsupported` for the old schema 1, `InvalidInput` for anything else.
pub(crate) fn is_manifest(media_type: &str) -> Result<()> {
    match media_type {
        MANIFEST | DOCKER_MANIFEST | "" => Ok(()),
        _ if media_type.starts_with("application/vnd.docker.distribution.manifest.v1") => Err(Error::new(
            ErrorKind::Unsupported,
            "the image has a manifest of Docker's schema 1, which was withdrawn; convert it with a newer tool",
        )),
        other => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("unknown media type \"{}\" where a manifest is expected", other.escape_debug()),
        )),
    }
}

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

impl Compression {
    /// Tells it from the first bytes (RFC 1952 section 2.3.1, RFC 8878 sections 3.1.1 and 3.1.2: a zstd stream may
    /// start with a skippable frame).
    pub(crate) fn of(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50 => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// What a layer's media type promises of its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// A tar, compressed as its first bytes tell: writers disagree with their own media types.
    Tar,
    /// Such a tar that need not be in the archive (`urls` tell where it is).
    Foreign,
}

/// What a layer's media type says.
///
/// # Errors
/// `Unsupported` for an encrypted layer, `InvalidInput` for an unknown type; both name it.
pub(crate) fn layer_packing(media_type: &str) -> Result<Packing> {
    if media_type.ends_with("+encrypted") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the layer is encrypted (\"{media_type}\"); decrypt the image first"),
        ));
    }
    let base = media_type
        .strip_suffix("+gzip")
        .or_else(|| media_type.strip_suffix("+zstd"))
        .or_else(|| media_type.strip_suffix(".gzip"))
        .or_else(|| media_type.strip_suffix(".zstd"))
        .unwrap_or(media_type);
    match base {
        LAYER | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Packing::Tar),
        "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Ok(Packing::Foreign),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("unknown layer media type \"{}\"", media_type.escape_debug()),
        )),
    }
}

/// The media type of a layer in a manifest that we write.
pub(crate) fn layer_media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::Plain => LAYER,
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

/// Reads a JSON document; `what` names it in the error.
///
/// # Errors
/// `InvalidInput` with what is wrong and where.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, format!("{what} is not readable")).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_types_are_told_apart() {
        for (media_type, packing) in [
            ("application/vnd.oci.image.layer.v1.tar", Packing::Tar),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Packing::Tar),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Packing::Tar),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Packing::Tar),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Packing::Foreign),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Packing::Foreign),
        ] {
            assert_eq!(layer_packing(media_type).unwrap(), packing, "{media_type}");
        }
        let encrypted = layer_packing("application/vnd.oci.image.layer.v1.tar+gzip+encrypted").unwrap_err();
        assert_eq!(encrypted.kind(), ErrorKind::Unsupported);
        assert_eq!(layer_packing("text/plain").unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        assert_eq!(Compression::of(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(Compression::of(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(Compression::of(&[0x5a, 0x2a, 0x4d, 0x18]), Compression::Zstd);
        assert_eq!(Compression::of(b"etc/"), Compression::Plain);
        assert_eq!(Compression::of(&[]), Compression::Plain);
    }
}
