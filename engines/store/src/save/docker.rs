//! Saving as `docker save` does: plain layer tars, and `manifest.json`.

use std::collections::HashSet;

use layerstack::{Error, ErrorKind, Result};

use super::Chosen;
use super::sink::Sink;
use crate::image::DockerEntry;
use crate::progress::Progress;
use crate::store::Store;

impl Store {
    pub(super) fn write_docker(
        &self,
        chosen: &[Chosen],
        sink: &mut Sink<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut entries: Vec<DockerEntry> = Vec::new();
        let mut written = HashSet::new();
        for image in chosen {
            let config = format!("{}.json", image.image.id.hex());
            if written.insert(config.clone()) {
                sink.add_bytes(&config, &image.image.config)?;
            }
            let mut layers = Vec::new();
            for layer in &image.layers {
                let file = format!("{}.tar", layer.diff_id.hex());
                if written.insert(file.clone()) {
                    self.write_layer(&file, &layer.diff_id, sink, progress)?;
                }
                layers.push(file);
            }
            // Several manifests of one image are one image here.
            match entries.iter_mut().find(|known| known.config == config) {
                Some(known) => known.repo_tags.get_or_insert_default().extend(image.names.clone()),
                None => {
                    let repo_tags = (!image.names.is_empty()).then(|| image.names.clone());
                    entries.push(DockerEntry { config, repo_tags, layers });
                }
            }
        }
        let bytes = serde_json::to_vec(&entries)
            .map_err(|error| Error::new(ErrorKind::Other, "write manifest.json").with_source(error))?;
        sink.add_bytes("manifest.json", &bytes)
    }
}
