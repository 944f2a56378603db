//! `layerstack inspect`

use std::collections::BTreeMap;

use layerstack::driver::Usage;
use layerstack::layers::MountInfo;
use layerstack::{Error, ErrorKind, Layer, LayerId, Result};
use layerstack_store::{Container, Image, Store};
use serde::Serialize;

use crate::failure::{Done, Failure, failed};
use crate::output::write_json;
use crate::session::Session;

/// Print all there is to know of containers, images or layers, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names, ids or starts of ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// What the names are of; without it the first of container, image, layer that there is
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Container,
    Image,
    Layer,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Found {
    Container {
        #[serde(flatten)]
        container: Container,
        layer: StoredLayer,
    },
    Image {
        #[serde(flatten)]
        image: Image,
        config: serde_json::Value,
        manifest: serde_json::Value,
    },
    Layer(StoredLayer),
}

#[derive(Serialize)]
struct StoredLayer {
    #[serde(flatten)]
    record: Layer,
    driver: &'static str,
    driver_data: BTreeMap<String, String>,
    usage: Usage,
    mounts: Vec<MountInfo>,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let (found, outcome) = Failure::of_each(&args.names, |name| {
        find(&store, name, args.kind).map_err(failed(format!("inspect {name}")))
    });
    write_json(&found)?;
    outcome
}

fn find(store: &Store, name: &str, kind: Option<Kind>) -> Result<Found> {
    let find = |kind| match kind {
        Kind::Container => container(store, name),
        Kind::Image => image(store, name),
        Kind::Layer => layer(store, name),
    };
    if let Some(kind) = kind {
        return find(kind);
    }
    for kind in [Kind::Container, Kind::Image, Kind::Layer] {
        match find(kind) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
    }
    Err(Error::new(ErrorKind::NotFound, "no container, image or layer has this name or id"))
}

fn container(store: &Store, name: &str) -> Result<Found> {
    let container = store.container(name)?;
    let layer = stored(store, &container.id)?;
    Ok(Found::Container { container, layer })
}

fn image(store: &Store, name: &str) -> Result<Found> {
    let image = store.image(name)?;
    let config = store.image_config(name)?;
    let manifest = store.image_manifest(name)?;
    Ok(Found::Image { image, config, manifest })
}

fn layer(store: &Store, start: &str) -> Result<Found> {
    let all = store.layers().list()?;
    let mut matching = all.iter().filter(|id| id.as_str().starts_with(start));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(Found::Layer(stored(store, id)?)),
        (None, _) => Err(Error::new(ErrorKind::NotFound, "no such layer")),
        (Some(_), Some(_)) => {
            Err(Error::new(ErrorKind::InvalidInput, "the ids of several layers start with this"))
        }
    }
}

fn stored(store: &Store, id: &LayerId) -> Result<StoredLayer> {
    let layers = store.layers();
    Ok(StoredLayer {
        record: layers.layer(id)?,
        driver: layers.driver_name(),
        driver_data: layers.inspect(id)?,
        usage: layers.usage(id)?,
        mounts: layers.mounts(Some(id))?,
    })
}
