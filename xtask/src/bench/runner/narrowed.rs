//! Finding what a layer changed, by what the driver knows of it and by walking over both trees.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use layerstack::LayerId;
use layerstack::layers::{Base, Layers, MountRequest};

/// Changes the first `count` files of data set B, a thousand directories one after the other.
pub(crate) fn change(layers: &Layers, id: &LayerId, count: u32) -> Result<()> {
    let mount = layers.mount(id, &MountRequest::new())?;
    for number in 0..count {
        let path = format!("d{:03}/f{:02}", number % 1000, number / 1000);
        fs::write(mount.target().join(path), format!("changed {number}"))?;
    }
    Ok(mount.unmount()?)
}

/// Milliseconds, one for each time that it was done.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Narrowed {
    list: Vec<f64>,
    walked_list: Vec<f64>,
    tar: Vec<f64>,
    walked_tar: Vec<f64>,
}

/// Compares a layer with its parent, and with a twin of the parent: of that the driver knows nothing, so both trees
/// are walked, and files with equal metadata count as equal.
pub(crate) fn run(layers: &Layers, id: &LayerId, twin: &LayerId, count: u32) -> Result<Narrowed> {
    let mut found = Narrowed::default();
    let millis = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    // Whichever came first would read what the other then finds in memory.
    for base in [Base::Parent, Base::Layer(twin)] {
        layers.changes(id, base)?;
    }
    for _ in 0..count {
        let mut sizes = Vec::new();
        for (base, list, tar) in [
            (Base::Parent, &mut found.list, &mut found.tar),
            (Base::Layer(twin), &mut found.walked_list, &mut found.walked_tar),
        ] {
            let start = Instant::now();
            let changes = layers.changes(id, base)?.len();
            list.push(millis(start));
            let start = Instant::now();
            let written = layers.diff(id, base, &mut std::io::sink())?;
            tar.push(millis(start));
            sizes.push((changes, written.entries, written.bytes));
        }
        ensure!(sizes[0] == sizes[1], "the two ways found different changes: {sizes:?}");
    }
    Ok(found)
}
