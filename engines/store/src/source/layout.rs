//! OCI image layouts: from `index.json` through nested indexes to the images that are wanted.

use layerstack::{Error, ErrorKind, Result};

use super::Archive;
use super::plan::{ImagePlan, PlannedManifest, no_such_platform};
use crate::digest::Digest;
use crate::image::{
    CONTAINERD_NAME, Config, Descriptor, Index, MANIFEST, Manifest, Packing, REF_NAME, is_index, is_manifest,
    layer_packing, parse,
};
use crate::name::{is_tag, normalize};
use crate::platform::Platform;

/// Indexes in indexes: the specification sets no limit, nobody uses more than two.
const MAX_NESTING: u32 = 8;

/// The images of a layout.
///
/// Descriptors of one name are alternatives, of which that for the wanted platform is taken: the one of this host
/// where none is named. A descriptor that has no alternative is taken whatever its platform, unless one is named.
pub(super) fn plan(
    archive: &Archive,
    wanted: Option<&Platform>,
    hint: Option<&str>,
) -> Result<Vec<ImagePlan>> {
    let index: Index = parse(&archive.document("index.json")?, "index.json")?;
    let mut groups: Vec<(Option<String>, Vec<Candidate>)> = Vec::new();
    for descriptor in &index.manifests {
        let name = name_of(descriptor, hint);
        let mut candidates = Vec::new();
        descend(archive, descriptor, 0, &mut candidates)?;
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => known.extend(candidates),
            None => groups.push((name, candidates)),
        }
    }
    let mut images: Vec<ImagePlan> = Vec::new();
    for (name, candidates) in groups {
        for candidate in choose(archive, candidates, wanted, name.is_none())? {
            let digest = &candidate.digest;
            let known = images
                .iter_mut()
                .find(|image| image.manifest.as_ref().is_some_and(|manifest| manifest.digest == *digest));
            let image = match known {
                Some(image) => image,
                None => {
                    images.push(image(archive, candidate)?);
                    match images.last_mut() {
                        Some(image) => image,
                        None => continue,
                    }
                }
            };
            image.names.extend(name.clone());
        }
    }
    if images.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "lists no images").with_path("index.json"));
    }
    Ok(images)
}

/// A manifest that may be wanted.
struct Candidate {
    digest: Digest,
    media_type: String,
    bytes: Vec<u8>,
    manifest: Manifest,
    platform: Option<Platform>,
}

/// The name that a layout gives to an image: containerd's annotation has it in full; OCI's may be in full too, or
/// a tag alone, which then goes with the layout's own name, as in the `oci:layout:tag` of other tools.
fn name_of(descriptor: &Descriptor, hint: Option<&str>) -> Option<String> {
    if let Some(name) = descriptor.annotation(CONTAINERD_NAME) {
        return normalize(name).ok();
    }
    let name = descriptor.annotation(REF_NAME)?;
    if name.contains([':', '/']) {
        return normalize(name).ok();
    }
    hint.filter(|_| is_tag(name)).and_then(|hint| normalize(&format!("{hint}:{name}")).ok())
}

/// Collects the manifests that a descriptor leads to.
fn descend(
    archive: &Archive,
    descriptor: &Descriptor,
    nesting: u32,
    found: &mut Vec<Candidate>,
) -> Result<()> {
    if descriptor.is_attachment() {
        return Ok(());
    }
    let digest: Digest = descriptor.digest.parse()?;
    if !is_index(&descriptor.media_type) {
        is_manifest(&descriptor.media_type).map_err(|error| error.with_path(blob_path(&digest)))?;
    }
    let bytes = match document(archive, descriptor, &digest) {
        // An index may list more platforms than the layout has, as `docker save --platform` writes it.
        Err(error) if error.kind() == ErrorKind::NotFound && nesting > 0 => return Ok(()),
        other => other?,
    };
    let shape: Shape = parse(&bytes, "the document").map_err(|error| error.with_path(blob_path(&digest)))?;
    if is_index(&descriptor.media_type) || (descriptor.media_type.is_empty() && shape.manifests.is_some()) {
        if nesting == MAX_NESTING {
            return Err(Error::new(ErrorKind::InvalidInput, "indexes are nested too deeply")
                .with_path(blob_path(&digest)));
        }
        let index: Index = parse(&bytes, "the index").map_err(|error| error.with_path(blob_path(&digest)))?;
        for inner in &index.manifests {
            descend(archive, inner, nesting + 1, found)?;
        }
        return Ok(());
    }
    if shape.schema_version == Some(1) {
        is_manifest("application/vnd.docker.distribution.manifest.v1+json")?;
    }
    let manifest: Manifest =
        parse(&bytes, "the manifest").map_err(|error| error.with_path(blob_path(&digest)))?;
    let media_type = match (&manifest.media_type, descriptor.media_type.as_str()) {
        (Some(own), _) => own.clone(),
        (None, "") => MANIFEST.to_owned(),
        (None, given) => given.to_owned(),
    };
    let platform = descriptor.platform.clone();
    found.push(Candidate { digest, media_type, bytes, manifest, platform });
    Ok(())
}

/// Enough of a document to see what it is.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// Chooses among alternatives. Without a name they need not be alternatives: then all that fit are taken.
fn choose(
    archive: &Archive,
    mut candidates: Vec<Candidate>,
    wanted: Option<&Platform>,
    unnamed: bool,
) -> Result<Vec<Candidate>> {
    if candidates.is_empty() || (candidates.len() == 1 && wanted.is_none()) {
        return Ok(candidates);
    }
    for candidate in candidates.iter_mut().filter(|candidate| candidate.platform.is_none()) {
        candidate.manifest.check().map_err(|error| error.with_path(blob_path(&candidate.digest)))?;
        let digest: Digest = candidate.manifest.config.digest.parse()?;
        let bytes = document(archive, &candidate.manifest.config, &digest)?;
        candidate.platform = Some(Config::parse(&bytes)?.platform());
    }
    let host = Platform::host();
    let wanted = wanted.unwrap_or(&host);
    let offered: Vec<String> =
        candidates.iter().flat_map(|candidate| &candidate.platform).map(Platform::to_string).collect();
    candidates
        .retain(|candidate| candidate.platform.as_ref().is_some_and(|platform| wanted.accepts(platform)));
    if candidates.is_empty() {
        return Err(no_such_platform(wanted, &offered));
    }
    if !unnamed {
        // "If multiple manifests match, the first matching entry SHOULD be used" (image-spec image-index.md).
        candidates.truncate(1);
    }
    Ok(candidates)
}

/// Reads an image's config and checks its layers.
fn image(archive: &Archive, candidate: Candidate) -> Result<ImagePlan> {
    let Candidate { digest, media_type, bytes, manifest, .. } = candidate;
    let context = |error: Error| error.with_path(blob_path(&digest));
    manifest.check().map_err(context)?;
    let mut files = Vec::new();
    for layer in &manifest.layers {
        let packing = layer_packing(&layer.media_type).map_err(context)?;
        let blob: Digest = layer.digest.parse().map_err(context)?;
        let file = blob_path(&blob);
        match archive.file(&file) {
            Ok(member) => check_size(layer, member.size()).map_err(|error| error.with_path(&file))?,
            Err(error) if error.kind() == ErrorKind::NotFound && packing == Packing::Foreign => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the layer is foreign and not in the archive; it is to be had from {}",
                        layer.urls.first().map_or("nowhere that the manifest says", String::as_str)
                    ),
                )
                .with_path(file));
            }
            Err(error) => return Err(error),
        }
        files.push((file, Some(blob)));
    }
    let config_digest: Digest = manifest.config.digest.parse().map_err(context)?;
    let config = document(archive, &manifest.config, &config_digest)?;
    let planned = PlannedManifest { digest: digest.clone(), media_type, bytes };
    ImagePlan::new(config, files, Some(planned)).map_err(|error| error.with_path(blob_path(&config_digest)))
}

/// Reads a document and checks its size and digest.
fn document(archive: &Archive, descriptor: &Descriptor, digest: &Digest) -> Result<Vec<u8>> {
    let path = blob_path(digest);
    let bytes = archive.document(&path)?;
    check_size(descriptor, bytes.len() as u64).map_err(|error| error.with_path(&path))?;
    let found = Digest::of(&bytes);
    if found != *digest {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("has the digest {found} and not that of its name"),
        )
        .with_path(path));
    }
    Ok(bytes)
}

fn check_size(descriptor: &Descriptor, size: u64) -> Result<()> {
    if size == descriptor.size {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("has {size} bytes where its descriptor says {}", descriptor.size),
    ))
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
