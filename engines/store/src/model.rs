//! What the store takes and gives: requests and results.

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use layerstack::capability::Capabilities;
use layerstack::layers::Status;
use layerstack::options::Options;
use layerstack::{Config, Error, ErrorKind, LayerId, Result};

use crate::digest::Digest;
use crate::platform::Platform;

/// How a store is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StoreConfig {
    /// The driver, its options, and how durable layers are.
    pub layers: Config,
}

impl StoreConfig {
    /// A store whose layers are kept as `layers` says.
    #[must_use]
    pub fn new(layers: Config) -> Self {
        Self { layers }
    }
}

/// A driver that is compiled in, and whether it works in a root.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct DriverInfo {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// Its place in the order of automatic choice, the lowest first.
    pub rank: u32,
    /// Whether it works there.
    #[serde(flatten)]
    pub availability: Availability,
}

/// Whether a driver works in a root.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "available", rename_all = "kebab-case")]
pub enum Availability {
    /// It does.
    Yes,
    /// It does not.
    No {
        /// The kind of the probe's error, in words.
        kind: &'static str,
        /// What is missing and how to get it.
        reason: String,
    },
}

/// What a store says of itself.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Info {
    /// The driver and what it says of itself.
    pub status: Status,
    /// What the driver can do here.
    pub capabilities: Capabilities,
    /// How many images there are.
    pub images: u64,
    /// How many names images have.
    pub names: u64,
    /// How many containers there are.
    pub containers: u64,
    /// How many of them are mounted.
    pub mounted: u64,
    /// How many layers the driver has.
    pub layers: u64,
    /// The database, which any SQLite tool opens.
    pub database: PathBuf,
    /// The version of its schema.
    pub schema: u32,
}

/// Where an image is loaded from.
#[expect(missing_debug_implementations, reason = "a stream has no form that could be shown")]
pub enum LoadSource<'a> {
    /// A directory (OCI layout) or a file (OCI layout or docker archive, as it is or compressed).
    Path(&'a Path),
    /// The bytes of such a file.
    Stream(&'a mut dyn Read),
}

/// How an image is loaded.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LoadRequest {
    /// The name to give to the image instead of those in the archive. An archive of several images refuses it.
    pub name: Option<String>,
    /// Which image of an index is wanted; that of this host where None.
    pub platform: Option<Platform>,
}

/// An image that was loaded.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Loaded {
    /// The image's id: the digest of its config.
    pub image: Digest,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The names that it was given.
    pub names: Vec<String>,
    /// How many layers were unpacked.
    pub layers_new: u64,
    /// How many layers were there already.
    pub layers_shared: u64,
    /// Whether the image as a whole was there already.
    pub already: bool,
}

/// An image.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Image {
    /// The digest of its config.
    pub id: Digest,
    /// Its names, sorted.
    pub names: Vec<String>,
    /// The digests of the manifests by which it came, the newest first.
    pub manifests: Vec<Digest>,
    /// When it was made, as its config has it (RFC 3339).
    pub created: Option<String>,
    /// The same in seconds since the epoch.
    pub created_unix: Option<i64>,
    /// Bytes of its layers' files.
    pub size: u64,
    /// Its layers, lowest first.
    pub layers: Vec<ImageLayer>,
    /// What it runs on.
    pub platform: Platform,
    /// What is wrong with it, where something is.
    pub broken: Option<String>,
}

/// A layer of an image.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct ImageLayer {
    /// Its id in the driver: the chain id, without the algorithm.
    pub chain_id: LayerId,
    /// The digest of its plain tar.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// Whether the driver has it.
    pub present: bool,
}

/// A step of an image's history.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// When it was done (RFC 3339).
    pub created: Option<String>,
    /// The same in seconds since the epoch.
    pub created_unix: Option<i64>,
    /// The command that did it.
    pub created_by: Option<String>,
    /// Who did it.
    pub author: Option<String>,
    /// What was said of it.
    pub comment: Option<String>,
    /// Whether it made no layer.
    pub empty_layer: bool,
    /// Bytes of its layer's files.
    pub size: u64,
    /// Its layer.
    pub layer: Option<LayerId>,
}

/// How an image is removed.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct RemoveImage {
    /// Remove an image that is given by its id although it has several names.
    pub force: bool,
}

/// What removing an image did.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct RemovedImage {
    /// The names that are gone.
    pub untagged: Vec<String>,
    /// The image, where it is gone too.
    pub deleted: Option<Digest>,
    /// The layers that went with it.
    pub layers: Vec<LayerId>,
}

/// How a container is made.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CreateContainer {
    /// Its name; the first 12 digits of its id where None.
    pub name: Option<String>,
    /// Options of its layer: `size`, …
    pub options: Options,
}

/// A container.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Container {
    /// Its id, and that of its layer: 64 random hexadecimal digits.
    pub id: LayerId,
    /// Its name.
    pub name: String,
    /// The image that it stands on.
    pub image: Digest,
    /// A name of that image.
    pub image_name: Option<String>,
    /// The driver that has its layer.
    pub driver: String,
    /// When it was made, in seconds since the epoch.
    pub created_unix: i64,
    /// Options of its layer.
    pub options: Options,
    /// Where it is mounted.
    pub mounts: Vec<PathBuf>,
    /// What is wrong with it, where something is.
    pub broken: Option<String>,
}

/// How a container is removed.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct RemoveContainer {
    /// Unmount it where it is mounted.
    pub force: bool,
}

/// How a container becomes an image.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CommitRequest {
    /// The name of the new image; none where None.
    pub name: Option<String>,
    /// What is said of the change in the history.
    pub message: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// Lines of a Dockerfile that change the image's settings: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`,
    /// `ONBUILD`, `STOPSIGNAL`, `USER`, `VOLUME`, `WORKDIR`.
    pub changes: Vec<String>,
}

/// How images are saved.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SaveRequest {
    /// The form.
    pub format: SaveFormat,
}

/// The form in which images are saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaveFormat {
    /// An OCI image layout: the manifest and all layers bit for bit as they came.
    #[default]
    Oci,
    /// The form of `docker save`: config and plain layer tars bit for bit.
    Docker,
}

impl FromStr for SaveFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "oci" => Ok(Self::Oci),
            "docker" => Ok(Self::Docker),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("unknown archive format \"{}\" (known: oci, docker)", text.escape_debug()),
            )),
        }
    }
}

impl fmt::Display for SaveFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oci => "oci",
            Self::Docker => "docker",
        })
    }
}

/// Where images are saved to.
#[expect(missing_debug_implementations, reason = "a stream has no form that could be shown")]
pub enum SaveTarget<'a> {
    /// A tar archive, written as it is made.
    Stream(&'a mut dyn Write),
    /// A tar archive that appears under this name when it is whole.
    File(&'a Path),
    /// A directory, OCI layout only; images are added to a layout that is there already.
    Directory(&'a Path),
}

/// An image that was saved.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Saved {
    /// The image's id.
    pub image: Digest,
    /// The manifest that was saved, or whose layers were.
    pub manifest: Digest,
    /// The names that were saved with it.
    pub names: Vec<String>,
}

/// A layer in the tree of all layers.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct LayerNode {
    /// Its id.
    pub id: LayerId,
    /// Whose it is.
    pub kind: LayerKind,
    /// Bytes that it occupies.
    pub size: u64,
    /// Images of which it is the topmost layer: their names, or their short ids.
    pub images: Vec<String>,
    /// The container whose layer it is, by name.
    pub containers: Vec<String>,
    /// The layers that stand on it.
    pub children: Vec<LayerNode>,
}

/// Whose a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LayerKind {
    /// An image's.
    Image,
    /// A container's.
    Container,
    /// Nobody's that the store knows.
    Unreferenced,
}

/// What everything in a store occupies, in bytes.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct DiskUsage {
    /// Each image.
    pub images: Vec<ImageUsage>,
    /// Each container.
    pub containers: Vec<ContainerUsage>,
    /// All layers of images.
    pub layers: u64,
    /// What is kept beside the layers so that images save back bit for bit.
    pub blobs: u64,
    /// Layers that nothing refers to.
    pub unreferenced: u64,
    /// What `prune` with `all` would free: images without containers, unreferenced layers.
    pub reclaimable: u64,
}

/// What an image occupies, in bytes.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct ImageUsage {
    /// The image.
    pub id: Digest,
    /// Its names.
    pub names: Vec<String>,
    /// Its layers.
    pub size: u64,
    /// Those that other images have too.
    pub shared: u64,
    /// Those that it alone has.
    pub unique: u64,
    /// How many containers stand on it.
    pub containers: u64,
}

/// What a container occupies, in bytes.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct ContainerUsage {
    /// The container.
    pub id: LayerId,
    /// Its name.
    pub name: String,
    /// Its writable layer.
    pub size: u64,
}

/// What is pruned.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct PruneRequest {
    /// Images with names too, where no container stands on them.
    pub all: bool,
}

/// What was pruned.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Images.
    pub images: Vec<Digest>,
    /// Layers.
    pub layers: Vec<LayerId>,
    /// Files of the store's own.
    pub files: u64,
    /// Bytes that this freed, as far as known.
    pub reclaimed: u64,
}

/// How thoroughly a store is checked.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct CheckRequest {
    /// Put every layer's tar together again and compare its digest.
    pub deep: bool,
}

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about: an image, a container, a layer, a file.
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Finding {
    pub(crate) fn new(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { subject: subject.into(), problem: problem.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.problem)
    }
}
