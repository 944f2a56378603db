//! Saving as an OCI image layout.

use std::collections::HashSet;

use layerstack::{Error, ErrorKind, Result};

use super::Chosen;
use super::sink::Sink;
use crate::digest::Digest;
use crate::image::{Annotations, CONTAINERD_NAME, Config, Descriptor, INDEX, Index, REF_NAME, parse};
use crate::progress::Progress;
use crate::store::Store;

impl Store {
    pub(super) fn write_layout(
        &self,
        chosen: &[Chosen],
        sink: &mut Sink<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        sink.add_bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut written = HashSet::new();
        for image in chosen {
            for (digest, bytes) in
                [(&image.manifest.digest, &image.manifest.body), (&image.image.id, &image.image.config)]
            {
                if written.insert(digest) {
                    sink.add_bytes(&path(digest), bytes)?;
                }
            }
            for blob in &image.blobs {
                if written.insert(blob) {
                    self.write_layer(&path(blob), blob, sink, progress)?;
                }
            }
        }
        // Last, so that a layout that is there already never names what it does not have.
        let index = index(chosen, sink.existing("index.json")?)?;
        let bytes = serde_json::to_vec(&index)
            .map_err(|error| Error::new(ErrorKind::Other, "write index.json").with_source(error))?;
        sink.add_bytes("index.json", &bytes)
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The index of the layout: what it had, and the saved images in the place of those of the same name.
fn index(chosen: &[Chosen], existing: Option<Vec<u8>>) -> Result<Index> {
    let mut index = match existing {
        Some(bytes) => parse(&bytes, "index.json")?,
        None => Index {
            schema_version: 2,
            media_type: Some(INDEX.to_owned()),
            manifests: Vec::new(),
            annotations: None,
        },
    };
    for image in chosen {
        let mut descriptor = Descriptor::new(
            &image.manifest.media_type,
            &image.manifest.digest,
            image.manifest.body.len() as u64,
        );
        descriptor.platform = Some(Config::parse(&image.image.config)?.platform());
        if image.names.is_empty() {
            index
                .manifests
                .retain(|known| known.digest != descriptor.digest || known.annotation(REF_NAME).is_some());
            index.manifests.push(descriptor);
            continue;
        }
        for name in &image.names {
            let full = qualified(name);
            index.manifests.retain(|known| known.annotation(CONTAINERD_NAME) != Some(&full));
            let mut named = descriptor.clone();
            named.annotations = Some(Annotations::from([
                (REF_NAME.to_owned(), reference(name, &descriptor, &index, chosen).to_owned()),
                (CONTAINERD_NAME.to_owned(), full),
            ]));
            index.manifests.push(named);
        }
    }
    Ok(index)
}

/// What a layout calls an image: its tag, as Docker and containerd write it and `oci:LAYOUT:TAG` of other tools
/// looks for it; the whole name where another image of the layout has the same tag.
fn reference<'n>(name: &'n str, descriptor: &Descriptor, index: &Index, chosen: &[Chosen]) -> &'n str {
    let tag = tag_of(name);
    let taken = index
        .manifests
        .iter()
        .any(|known| known.annotation(REF_NAME) == Some(tag) && known.digest != descriptor.digest);
    let wanted = chosen
        .iter()
        .filter(|other| other.manifest.digest.to_string() != descriptor.digest)
        .any(|other| other.names.iter().any(|name| tag_of(name) == tag));
    if taken || wanted { name } else { tag }
}

/// The tag of a name that has one: what follows the last colon, which a port's never is.
fn tag_of(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => name,
    }
}

/// A name in full, with the registry and the `library/` that people leave out: as containerd wants it.
fn qualified(name: &str) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}
