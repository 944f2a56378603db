//! What `docker info` prints of a pool.

use std::path::Path;

use layerstack_core::Result;

use crate::base::Base;
use crate::layout::Layout;
use crate::options::Settings;
use crate::pool::Pool;

/// The pairs, under Docker's keys and in its order.
pub(crate) fn pairs(
    layout: &Layout,
    pool: &Pool,
    base: &Base,
    settings: &Settings,
) -> Result<Vec<(String, String)>> {
    let status = pool.status()?;
    let block = pool.block_size();
    let (data, metadata) = (status.data, status.metadata);
    let mut pairs = vec![
        ("Pool Name", pool.name().to_owned()),
        ("Pool Blocksize", human(block)),
        ("Base Device Size", human(base.device.size)),
        ("Backing Filesystem", base.file_system.name().to_owned()),
        ("Udev Sync Supported", Path::new("/run/udev/control").exists().to_string()),
    ];
    let [metadata_device, data_device] = pool.devices()?;
    pairs.push(("Data file", data_device));
    pairs.push(("Metadata file", metadata_device));
    if let Some(files) = pool.loop_files() {
        pairs.push(("Data loop file", files.data.display().to_string()));
        pairs.push(("Metadata loop file", files.metadata.display().to_string()));
    }
    pairs.extend([
        ("Data Space Used", human(data.used * block)),
        ("Data Space Total", human(data.total * block)),
        ("Data Space Available", human(data.free() * block)),
        ("Metadata Space Used", human(metadata.used * 4096)),
        ("Metadata Space Total", human(metadata.total * 4096)),
        ("Metadata Space Available", human(metadata.free() * 4096)),
        ("Thin Pool Minimum Free Space", human(data.total * block / 100 * settings.min_free)),
        ("Deferred Removal Enabled", settings.deferred_removal.to_string()),
        ("Deferred Deletion Enabled", settings.deferred_deletion.to_string()),
        ("Deferred Deleted Device Count", layout.deleted()?.len().to_string()),
        ("Library Version", pool.mapper().version()?),
    ]);
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// A size in bytes as Docker prints it: four digits, in powers of 1000.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    // In thousandths of the unit, so that no digit is lost.
    let (mut unit, mut thousandths) = (0, u128::from(bytes) * 1000);
    while thousandths >= 1_000_000 && unit + 1 < UNITS.len() {
        thousandths /= 1000;
        unit += 1;
    }
    let digits = match thousandths {
        0..10_000 => 3,
        10_000..100_000 => 2,
        100_000..1_000_000 => 1,
        _ => 0,
    };
    let scale = 10_u128.pow(3 - digits);
    let rounded = (thousandths + scale / 2) / scale;
    let power = 10_u128.pow(digits);
    let mut text = format!("{}.{:0width$}", rounded / power, rounded % power, width = digits as usize);
    while text.contains('.') && text.ends_with(['0', '.']) {
        text.pop();
    }
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (512, "512B"),
            (65_536, "65.54kB"),
            (10 << 30, "10.74GB"),
            (107_374_182_400, "107.4GB"),
            (1_000_000, "1MB"),
            (2 << 30, "2.147GB"),
            (u64::MAX, "18.45EB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
