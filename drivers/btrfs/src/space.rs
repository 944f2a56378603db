//! What is free of the file system. btrfs sets apart room for data and for metadata, each in large pieces; when all is
//! set apart and one of them is full, it is full, however much is free in the other.

use std::os::fd::AsFd;
use std::path::Path;

use layerstack_core::{Error, Result};

use crate::sys::{self, Space};

/// Bytes by what they are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    data: Space,
    metadata: Space,
    /// A part of the metadata that is kept back.
    reserve: u64,
    /// Not set apart for anything.
    unallocated: u64,
}

/// Below this the file system does not set apart another piece for metadata: the smallest piece is 8 MiB, and by
/// default there are two copies.
const ONE_PIECE: u64 = 16 << 20;

/// A piece for data has 1 GiB on all but small file systems.
const LITTLE: u64 = 1 << 30;

impl Room {
    /// Asks the file system.
    pub(crate) fn of(file_system: impl AsFd) -> Result<Self> {
        let failed = |errno| Error::from_errno(errno, "ask for the space that is set apart");
        let spaces = sys::spaces(&file_system).map_err(failed)?;
        Ok(Self { unallocated: sys::unallocated(&file_system).map_err(failed)?, ..Self::sum(&spaces) })
    }

    fn sum(spaces: &[Space]) -> Self {
        let mut room = Self::default();
        for space in spaces {
            let kinds = [(sys::DATA, &mut room.data), (sys::METADATA, &mut room.metadata)];
            if space.flags & sys::RESERVE != 0 {
                room.reserve += space.total;
                continue;
            }
            // Where both are mixed, what is free is free for either.
            for (_, sum) in kinds.into_iter().filter(|(flag, _)| space.flags & flag != 0) {
                sum.total += space.total;
                sum.used += space.used;
            }
        }
        room
    }

    /// The lines for the driver's status.
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        [
            ("Data Space Total", self.data.total),
            ("Data Space Used", self.data.used),
            ("Data Space Available", self.data.total.saturating_sub(self.data.used)),
            ("Metadata Space Total", self.metadata.total),
            ("Metadata Space Used", self.metadata.used),
            ("Metadata Space Available", self.free_metadata()),
            ("Unallocated Space", self.unallocated),
        ]
        .map(|(key, bytes)| (key.to_owned(), shown(bytes)))
        .to_vec()
    }

    /// What to say where the file system is full, if it is its metadata that are.
    pub(crate) fn why_full(&self, home: &Path) -> Option<String> {
        let free = self.data.total.saturating_sub(self.data.used);
        let full = self.unallocated < ONE_PIECE && self.free_metadata() < self.metadata.total / 8;
        // Where the data are full too, more room is all that helps, and everybody sees it.
        (full && free > self.data.total / 8).then(|| {
            format!(
                "the metadata of this btrfs are full ({} of {} used, the rest is kept back), though {} are free for data: \
                 give room back with: btrfs balance start -dusage=50 {}; or add a device",
                shown(self.metadata.used),
                shown(self.metadata.total),
                shown(free),
                home.display()
            )
        })
    }

    /// Whether so little is left that room is wanted at once where a layer is removed.
    pub(crate) fn is_tight(&self) -> bool {
        let data = self.data.total.saturating_sub(self.data.used);
        self.unallocated.saturating_add(data.min(self.free_metadata())) < LITTLE
    }

    fn free_metadata(&self) -> u64 {
        self.metadata.total.saturating_sub(self.metadata.used).saturating_sub(self.reserve)
    }
}

/// A number of bytes as people read it.
fn shown(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes >> (10 * (unit + 1)) != 0 {
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    // Tenths, rounded down.
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn space(flags: u64, total: u64, used: u64) -> Space {
        Space { flags, total: total * M, used: used * M }
    }

    #[test]
    fn only_metadata_that_are_full_are_named() {
        let spaces = |data, metadata| {
            [
                space(sys::DATA, 100, data),
                space(sys::METADATA | 0x20, 32, metadata),
                space(sys::RESERVE, 4, 0),
            ]
        };
        for (data, metadata, unallocated, full) in [
            (10, 27, 0, true),
            (10, 28, 15, true),
            (10, 20, 0, false),
            (10, 27, 16, false),
            // Full of data.
            (99, 27, 0, false),
            (99, 10, 0, false),
        ] {
            let room = Room { unallocated: unallocated * M, ..Room::sum(&spaces(data, metadata)) };
            let hint = room.why_full(Path::new("/home"));
            assert_eq!(hint.is_some(), full, "{data} {metadata} {unallocated}: {hint:?}");
            assert!(hint.is_none_or(|hint| hint.contains("btrfs balance start")));
        }
        // Where both are mixed, metadata cannot be full alone.
        let mixed = Room::sum(&[space(sys::DATA | sys::METADATA, 100, 99), space(sys::RESERVE, 4, 0)]);
        assert_eq!(mixed.why_full(Path::new("/home")), None);
    }

    #[test]
    fn sizes_are_rounded_down() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1535, "1.4 KiB"),
            (10 * M, "10.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(shown(bytes), text);
        }
    }
}
