//! What is to be loaded from an archive: read and checked before any layer is touched.

use layerstack::{Error, ErrorKind, Result};

use super::{Archive, layout};
use crate::digest::{Digest, is_sha256_hex};
use crate::image::{Config, DockerEntry, parse};
use crate::model::LoadRequest;
use crate::name::normalize;
use crate::platform::Platform;

/// One image of an archive.
#[derive(Debug)]
pub(crate) struct ImagePlan {
    pub(crate) names: Vec<String>,
    /// The digest of the config.
    pub(crate) id: Digest,
    pub(crate) config_bytes: Vec<u8>,
    pub(crate) config: Config,
    /// None in a docker archive, which has no manifests.
    pub(crate) manifest: Option<PlannedManifest>,
    /// Lowest first.
    pub(crate) layers: Vec<PlannedLayer>,
}

/// The manifest by which an image comes.
#[derive(Debug)]
pub(crate) struct PlannedManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// One layer of an image.
#[derive(Debug)]
pub(crate) struct PlannedLayer {
    /// The file in the archive.
    pub(crate) file: String,
    /// The digest that its plain tar must have.
    pub(crate) diff_id: Digest,
    /// The digest that the file itself must have, where the archive says so.
    pub(crate) blob: Option<Digest>,
}

/// Finds out what is in an archive. `hint` is the name of the archive, for layouts that give tags only.
///
/// # Errors
/// `InvalidInput` naming the document that is wrong; `NotFound` where the archive lacks what it refers to.
pub(crate) fn plan(archive: &Archive, request: &LoadRequest, hint: Option<&str>) -> Result<Vec<ImagePlan>> {
    let mut images = if archive.contains("index.json")? {
        layout::plan(archive, request.platform.as_ref(), hint)?
    } else if archive.contains("manifest.json")? {
        docker(archive, request.platform.as_ref())?
    } else if archive.contains("repositories")? {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "is a docker archive of a time before manifest.json (Docker 1.9 or older); save it again with a newer Docker",
        ));
    } else {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "is not an image: it has neither index.json (OCI layout) nor manifest.json (docker save)",
        ));
    };
    if let Some(name) = &request.name {
        let name = normalize(name)?;
        match images.as_mut_slice() {
            [image] => image.names = vec![name],
            several => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("the archive has {} images, so one name cannot be given to them", several.len()),
                ));
            }
        }
    }
    Ok(images)
}

impl ImagePlan {
    /// Puts an image together, checking that config and layers agree.
    ///
    /// # Errors
    /// `InvalidInput` where they do not.
    pub(super) fn new(
        config_bytes: Vec<u8>,
        files: Vec<(String, Option<Digest>)>,
        manifest: Option<PlannedManifest>,
    ) -> Result<Self> {
        let config = Config::parse(&config_bytes)?;
        let diff_ids = config.diff_ids();
        if diff_ids.len() != files.len() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("the config names {} layers, the manifest {}", diff_ids.len(), files.len()),
            ));
        }
        if files.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, "the image has no layers"));
        }
        let layers = files
            .into_iter()
            .zip(diff_ids)
            .map(|((file, blob), diff_id)| PlannedLayer { file, diff_id: diff_id.clone(), blob })
            .collect();
        let id = Digest::of(&config_bytes);
        Ok(Self { names: Vec::new(), id, config_bytes, config, manifest, layers })
    }
}

/// The images of a docker archive: those that `manifest.json` lists.
fn docker(archive: &Archive, wanted: Option<&Platform>) -> Result<Vec<ImagePlan>> {
    let entries: Vec<DockerEntry> = parse(&archive.document("manifest.json")?, "manifest.json")?;
    let mut images = Vec::new();
    for entry in entries {
        let bytes = archive.document(&entry.config)?;
        // The config's file is named by its digest: `HEX.json`, or `blobs/sha256/HEX` since Docker 25.
        let stem = entry.config.rsplit('/').next().unwrap_or_default();
        let stem = stem.strip_suffix(".json").unwrap_or(stem);
        if is_sha256_hex(stem) && Digest::of(&bytes).hex() != stem {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("has the digest {} and not that of its name", Digest::of(&bytes)),
            )
            .with_path(entry.config));
        }
        let files = entry.layers.into_iter().map(|file| (file, None)).collect();
        let mut image = ImagePlan::new(bytes, files, None).map_err(|error| error.with_path(&entry.config))?;
        for tag in entry.repo_tags.unwrap_or_default() {
            image.names.push(normalize(&tag).map_err(|error| error.with_path("manifest.json"))?);
        }
        images.push(image);
    }
    if let Some(wanted) = wanted {
        let offered: Vec<String> = images.iter().map(|image| image.config.platform().to_string()).collect();
        images.retain(|image| wanted.accepts(&image.config.platform()));
        if images.is_empty() {
            return Err(no_such_platform(wanted, &offered));
        }
    }
    if images.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "lists no images").with_path("manifest.json"));
    }
    Ok(images)
}

pub(super) fn no_such_platform(wanted: &Platform, offered: &[String]) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("no image for the platform {wanted} (there are: {})", offered.join(", ")),
    )
}
