//! Opening a root that has many layers, against reading the names that are in its directories.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use layerstack::LayerId;
use layerstack::layers::{Config, Layers};
use layerstack::options::Options;

/// Milliseconds, one for each time that it was done.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Open {
    open: Vec<f64>,
    names: Vec<f64>,
}

/// Sees to it that the root has `number` layers, then opens it `count` times.
pub(crate) fn run(layers: &Layers, number: usize, count: u32) -> Result<Open> {
    for layer in layers.list()?.len()..number {
        layers.create(&LayerId::new(format!("layer{layer}"))?, None, &Options::new())?;
    }
    let config = Config::new().with_driver(layers.driver_name());
    let registry = layerstack::registry()?;
    let records = layers.root().join("layerstack").join(layers.driver_name()).join("layers");
    // Where the driver has a directory for each layer.
    let pieces = layers.inspect(&LayerId::new("layer0")?)?;
    let piece = pieces.values().map(Path::new).find(|piece| piece.starts_with(layers.home()));
    let piece = piece.context("the driver names no directory in its home")?;
    let below = piece.ancestors().find(|path| path.ends_with("layer0")).and_then(Path::parent);
    let below = below.context("the driver's directory is not called as the layer")?;
    let mut open = Open::default();
    for _ in 0..count {
        let start = Instant::now();
        let opened = Layers::open(layers.root(), &registry, &config)?;
        open.open.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(opened.recovered().is_empty(), "opening found {:?}", opened.recovered());
        drop(opened);
        let start = Instant::now();
        let names = names(&records)? + names(below)?;
        open.names.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(names >= 2 * number, "{names} names of {number} layers");
    }
    Ok(open)
}

fn names(directory: &Path) -> Result<usize> {
    Ok(std::fs::read_dir(directory)?.count())
}
