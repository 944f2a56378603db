//! The driver's options, under the names that Docker has for them.

use std::path::PathBuf;

use layerstack_core::options::{OptionSpec, Options, parse_size};
use layerstack_core::{Error, ErrorKind, Result};

/// Options of the driver.
pub(crate) const DRIVER: &[OptionSpec] = &[
    OptionSpec {
        name: "dm.basesize",
        help: "the size of a layer's file system (default 10G); grows what is there, never shrinks it",
    },
    OptionSpec { name: "dm.fs", help: "the file system of layers: ext4 (default) or xfs" },
    OptionSpec { name: "dm.mkfsarg", help: "more arguments for mkfs, separated by spaces" },
    OptionSpec { name: "dm.mountopt", help: "more mount options for layers, separated by commas" },
    OptionSpec {
        name: "dm.blocksize",
        help: "the block size of a new pool (default 64K): a multiple of 64K up to 1G",
    },
    OptionSpec {
        name: "dm.blkdiscard",
        help: "give a removed layer's space back to what the pool lies on (default: true on loop devices, else false)",
    },
    OptionSpec {
        name: "dm.min_free_space",
        help: "refuse new layers where less of the pool's data or metadata is free (default 10%, 0% to 100%)",
    },
    OptionSpec {
        name: "dm.use_deferred_removal",
        help: "devices go by themselves when nobody uses them any more (default true)",
    },
    OptionSpec {
        name: "dm.use_deferred_deletion",
        help: "a removed layer that is still in use is deleted later (default true)",
    },
    OptionSpec {
        name: "dm.thinpooldev",
        help: "an existing thin pool, by its device-mapper name or its path below /dev/mapper",
    },
    OptionSpec { name: "dm.datadev", help: "a block device for the pool's data; needs dm.metadatadev" },
    OptionSpec { name: "dm.metadatadev", help: "a block device for the pool's metadata; needs dm.datadev" },
    OptionSpec {
        name: "dm.directlvm_device",
        help: "a block device of which both data and metadata are made",
    },
    OptionSpec {
        name: "dm.directlvm_device_force",
        help: "take that device even if it holds something (default false)",
    },
    OptionSpec { name: "dm.thinp_percent", help: "how much of that device is for data (default 95)" },
    OptionSpec { name: "dm.thinp_metapercent", help: "how much of that device is for metadata (default 1)" },
    OptionSpec {
        name: "dm.loopdatasize",
        help: "how large the file of a pool on loop devices may become (default 100G); never shrinks",
    },
    OptionSpec { name: "dm.loopmetadatasize", help: "the same for its metadata (default 2G)" },
    OptionSpec {
        name: "dm.xfs_nospace_max_retries",
        help: "how often xfs tries again to write metadata to a full pool; by default what the kernel does",
    },
    OptionSpec {
        name: "dm.override_udev_sync_check",
        help: "taken and without effect: nodes do not depend on udev",
    },
    OptionSpec { name: "dm.libdm_log_level", help: "taken and without effect: libdevmapper is not used" },
    OptionSpec {
        name: "dm.thinp_autoextend_percent",
        help: "taken and without effect: there is no LVM to tell",
    },
    OptionSpec {
        name: "dm.thinp_autoextend_threshold",
        help: "taken and without effect: there is no LVM to tell",
    },
];

/// Options of a layer.
pub(crate) const LAYER: &[OptionSpec] = &[OptionSpec {
    name: "size",
    help: "the size of the layer's file system, such as 20G; not less than its parent's",
}];

/// The file system of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [Self::Ext4, Self::Xfs].into_iter().find(|kind| kind.name() == name)
    }
}

/// What the pool is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Two files in the home, on loop devices; the sizes up to which they may grow, in bytes.
    Loop { data: u64, metadata: u64 },
    /// Two block devices.
    Devices { data: PathBuf, metadata: PathBuf },
    /// One block device.
    Direct { device: PathBuf, force: bool, data_percent: u64, metadata_percent: u64 },
    /// A pool that somebody else made, by its device-mapper name.
    Existing(String),
}

/// What the options of the driver say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) source: Source,
    /// In bytes; None where it was not given.
    pub(crate) base_size: Option<u64>,
    /// None where it was not given.
    pub(crate) file_system: Option<FileSystem>,
    pub(crate) mkfs_arguments: Vec<String>,
    pub(crate) mount_options: Vec<String>,
    /// Of a new pool, in bytes.
    pub(crate) block_size: u64,
    pub(crate) discard: bool,
    /// In percent.
    pub(crate) min_free: u64,
    pub(crate) deferred_removal: bool,
    pub(crate) deferred_deletion: bool,
    /// None where it was not given.
    pub(crate) xfs_retries: Option<u32>,
}

/// The size of layers where none is given, in bytes: Docker's.
pub(crate) const BASE_SIZE: u64 = 10 << 30;

impl Settings {
    pub(crate) fn parse(options: &Options) -> Result<Self> {
        let source = source(options)?;
        let discard = options.boolean("dm.blkdiscard")?.unwrap_or(matches!(source, Source::Loop { .. }));
        let file_system = match options.get("dm.fs") {
            None => None,
            Some(name) => {
                Some(FileSystem::of_name(name).ok_or_else(|| wrong("dm.fs", name, "neither ext4 nor xfs"))?)
            }
        };
        let words = |key: &str, separator: char| {
            let words = options.get(key).unwrap_or_default().split(separator).map(str::trim);
            words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let deferred_removal = options.boolean("dm.use_deferred_removal")?.unwrap_or(true);
        let deferred_deletion = options.boolean("dm.use_deferred_deletion")?.unwrap_or(deferred_removal);
        if deferred_deletion && !deferred_removal {
            return Err(invalid("dm.use_deferred_deletion needs dm.use_deferred_removal"));
        }
        Ok(Self {
            base_size: base_size(options)?,
            file_system,
            mkfs_arguments: words("dm.mkfsarg", ' '),
            mount_options: words("dm.mountopt", ','),
            block_size: block_size(options)?,
            discard,
            min_free: min_free(options)?,
            deferred_removal,
            deferred_deletion,
            xfs_retries: xfs_retries(options)?,
            source,
        })
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

fn wrong(key: &str, value: &str, what: &str) -> Error {
    invalid(format!("option \"{key}\" has the value \"{value}\", which is {what}"))
}

fn base_size(options: &Options) -> Result<Option<u64>> {
    match options.size("dm.basesize")? {
        // No less than what mkfs.xfs takes: 300 MiB since xfsprogs 5.19; ext4 with a journal would do with 8 MiB.
        Some(size) if size < 16 << 20 => {
            Err(wrong("dm.basesize", options.get("dm.basesize").unwrap_or_default(), "less than 16M"))
        }
        size => Ok(size),
    }
}

/// Documentation/admin-guide/device-mapper/thin-provisioning.rst: 64 KiB to 1 GiB, in steps of 64 KiB.
fn block_size(options: &Options) -> Result<u64> {
    let size = options.size("dm.blocksize")?.unwrap_or(64 << 10);
    if (64 << 10..=1 << 30).contains(&size) && size.is_multiple_of(64 << 10) {
        return Ok(size);
    }
    let value = options.get("dm.blocksize").unwrap_or_default();
    Err(wrong("dm.blocksize", value, "not a multiple of 64K from 64K to 1G"))
}

fn xfs_retries(options: &Options) -> Result<Option<u32>> {
    let Some(value) = options.get("dm.xfs_nospace_max_retries") else { return Ok(None) };
    let number = value.parse().ok();
    number.map(Some).ok_or_else(|| wrong("dm.xfs_nospace_max_retries", value, "not a number"))
}

fn min_free(options: &Options) -> Result<u64> {
    let Some(value) = options.get("dm.min_free_space") else { return Ok(10) };
    let number = value.strip_suffix('%').unwrap_or(value).parse::<u64>().ok();
    number
        .filter(|number| *number <= 100)
        .ok_or_else(|| wrong("dm.min_free_space", value, "not a percentage"))
}

fn percent(options: &Options, key: &'static str, default: u64) -> Result<u64> {
    let Some(value) = options.get(key) else { return Ok(default) };
    let number = value.strip_suffix('%').unwrap_or(value).parse::<u64>().ok();
    number.filter(|number| (1..100).contains(number)).ok_or_else(|| wrong(key, value, "not a percentage"))
}

fn source(options: &Options) -> Result<Source> {
    let path = |key: &str| options.get(key).map(PathBuf::from);
    let pool = options.get("dm.thinpooldev").map(|name| name.strip_prefix("/dev/mapper/").unwrap_or(name));
    let (data, metadata, direct) = (path("dm.datadev"), path("dm.metadatadev"), path("dm.directlvm_device"));
    let loops = ["dm.loopdatasize", "dm.loopmetadatasize"].iter().any(|key| options.get(key).is_some());
    let ways = [pool.is_some(), data.is_some() || metadata.is_some(), direct.is_some(), loops]
        .iter()
        .filter(|way| **way)
        .count();
    if ways > 1 {
        return Err(invalid(
            "a pool is made of one thing: dm.thinpooldev, dm.datadev with dm.metadatadev, dm.directlvm_device, or the \
             files that dm.loopdatasize and dm.loopmetadatasize are about",
        ));
    }
    match (pool, data, metadata, direct) {
        (Some(""), ..) => Err(wrong("dm.thinpooldev", "", "not a name")),
        (Some(pool), ..) => Ok(Source::Existing(pool.to_owned())),
        (None, Some(data), Some(metadata), _) => Ok(Source::Devices { data, metadata }),
        (None, Some(_), None, _) => Err(invalid("dm.datadev needs dm.metadatadev")),
        (None, None, Some(_), _) => Err(invalid("dm.metadatadev needs dm.datadev")),
        (None, None, None, Some(device)) => {
            let force = options.boolean("dm.directlvm_device_force")?.unwrap_or(false);
            let data_percent = percent(options, "dm.thinp_percent", 95)?;
            let metadata_percent = percent(options, "dm.thinp_metapercent", 1)?;
            if data_percent + metadata_percent > 100 {
                return Err(invalid("dm.thinp_percent and dm.thinp_metapercent are more than 100 together"));
            }
            Ok(Source::Direct { device, force, data_percent, metadata_percent })
        }
        (None, None, None, None) => {
            let size = |key: &'static str, default: &'static str| {
                parse_size(key, options.get(key).unwrap_or(default))
            };
            Ok(Source::Loop {
                data: size("dm.loopdatasize", "100G")?,
                metadata: size("dm.loopmetadatasize", "2G")?,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings> {
        Settings::parse(&Options::parse(text.split_whitespace())?)
    }

    #[test]
    fn without_options_the_pool_is_on_loop_devices() {
        let settings = parse("").unwrap();
        assert_eq!(settings.source, Source::Loop { data: 100 << 30, metadata: 2 << 30 });
        assert!(settings.discard && settings.deferred_removal && settings.deferred_deletion);
        assert_eq!((settings.min_free, settings.block_size), (10, 64 << 10));
    }

    #[test]
    fn each_option_has_its_values() {
        let settings = parse("dm.thinpooldev=/dev/mapper/vg-pool dm.fs=xfs dm.basesize=20G").unwrap();
        assert_eq!(settings.source, Source::Existing("vg-pool".to_owned()));
        assert_eq!((settings.file_system, settings.base_size), (Some(FileSystem::Xfs), Some(20 << 30)));
        assert!(!settings.discard);
        let settings =
            parse("dm.mountopt=discard,nodelalloc dm.min_free_space=5% dm.blocksize=128K").unwrap();
        assert_eq!(settings.mount_options, ["discard", "nodelalloc"]);
        assert_eq!((settings.min_free, settings.block_size), (5, 128 << 10));
        for wrong in [
            "dm.fs=btrfs",
            "dm.xfs_nospace_max_retries=many",
            "dm.blocksize=100K",
            "dm.blocksize=2G",
            "dm.min_free_space=101%",
            "dm.min_free_space=some",
            "dm.basesize=1M",
            "dm.datadev=/dev/sda",
            "dm.metadatadev=/dev/sda",
            "dm.thinpooldev=a dm.datadev=/dev/sda dm.metadatadev=/dev/sdb",
            "dm.thinpooldev=a dm.loopdatasize=1G",
            "dm.thinpooldev=",
            "dm.use_deferred_removal=false dm.use_deferred_deletion=true",
            "dm.directlvm_device=/dev/sda dm.thinp_percent=100",
            "dm.directlvm_device=/dev/sda dm.thinp_percent=99 dm.thinp_metapercent=2",
        ] {
            assert_eq!(parse(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }
}
