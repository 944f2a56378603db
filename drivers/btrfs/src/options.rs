//! The options of the driver and of its layers.

use layerstack_core::options::{OptionSpec, Options};
use layerstack_core::{Error, ErrorKind, Result};

/// Options of the driver.
pub(crate) const DRIVER: &[OptionSpec] = &[
    OptionSpec {
        name: "btrfs.min_space",
        help: "the smallest size limit that a layer can be given, such as 1G; by default there is none",
    },
    OptionSpec {
        name: "btrfs.size",
        help: "the size limit of each new layer, such as 10G; by default there is none",
    },
];

/// Options of a layer.
pub(crate) const LAYER: &[OptionSpec] =
    &[OptionSpec { name: "size", help: "how many bytes the layer may add to its parent, such as 10G" }];

/// What the options of the driver say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The smallest size limit, in bytes.
    min_space: u64,
    /// The size limit of each new layer, in bytes.
    size: Option<u64>,
}

impl Settings {
    pub(crate) fn parse(options: &Options) -> Result<Self> {
        let min_space = options.size("btrfs.min_space")?.unwrap_or(0);
        let settings = Self { min_space, size: options.size("btrfs.size")? };
        settings.limit(&Options::new())?;
        Ok(settings)
    }

    /// The limit of a new layer in bytes, None where it has none: as with Docker, 0 is no limit.
    pub(crate) fn limit(&self, layer: &Options) -> Result<Option<u64>> {
        let limit = layer.size("size")?.or(self.size).filter(|bytes| *bytes > 0);
        if let Some(bytes) = limit
            && bytes < self.min_space
        {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a size of {bytes} bytes is below btrfs.min_space, which is {}", self.min_space),
            ));
        }
        Ok(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(driver: &str, layer: &str) -> Result<Option<u64>> {
        let parse = |text: &str| Options::parse(text.split_whitespace());
        Settings::parse(&parse(driver)?)?.limit(&parse(layer)?)
    }

    #[test]
    fn the_layers_size_takes_the_place_of_the_drivers() {
        for (driver, layer, bytes) in [
            ("", "", None),
            ("btrfs.size=1k", "", Some(1024)),
            ("btrfs.size=1k", "size=2k", Some(2048)),
            ("btrfs.size=1k btrfs.min_space=1k", "size=0", None),
            ("btrfs.min_space=2k", "size=2k", Some(2048)),
        ] {
            assert_eq!(limit(driver, layer).unwrap(), bytes, "{driver}, {layer}");
        }
    }

    #[test]
    fn what_is_no_size_or_too_small_a_one_is_refused() {
        for (driver, layer) in [
            ("btrfs.size=much", ""),
            ("btrfs.min_space=-1", ""),
            ("btrfs.min_space=2k btrfs.size=1k", ""),
            ("btrfs.min_space=2k", "size=2047"),
            ("", "size=banana"),
        ] {
            assert_eq!(
                limit(driver, layer).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{driver}, {layer}"
            );
        }
    }
}
