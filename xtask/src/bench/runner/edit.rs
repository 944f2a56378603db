//! Ten changes in a layer, as a container makes them.

use std::fs;

use anyhow::Result;
use layerstack::LayerId;
use layerstack::layers::{Layers, MountRequest};

/// Changes four files of data set B, adds three and removes three.
pub(crate) fn run(layers: &Layers, id: &LayerId) -> Result<()> {
    let mount = layers.mount(id, &MountRequest::new())?;
    let root = mount.target();
    for number in 0..4 {
        fs::write(root.join(format!("d{number}00/f05")), "changed")?;
    }
    for number in 0..3 {
        fs::write(root.join(format!("d{number}50/new")), "added")?;
        fs::remove_file(root.join(format!("d{number}75/f99")))?;
    }
    Ok(mount.unmount()?)
}
