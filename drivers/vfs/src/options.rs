//! The driver's options.

use layerstack_core::fs::Reflink;
use layerstack_core::options::{OptionSpec, Options};
use layerstack_core::{Error, ErrorKind, Result};

/// Options of the driver.
pub(crate) const DRIVER: &[OptionSpec] = &[
    OptionSpec {
        name: "vfs.reflink",
        help: "share blocks with the parent: auto (default: where the file system can), always, never",
    },
    OptionSpec {
        name: "vfs.size",
        help: "the size limit of each new layer, such as 10G; by default there is none",
    },
];

/// Options of a layer.
pub(crate) const LAYER: &[OptionSpec] = &[OptionSpec {
    name: "size",
    help: "how many bytes the layer's whole tree may take, the parent's files included, such as 10G",
}];

/// What the options of the driver say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Whether to share blocks with the parent.
    pub(crate) reflink: Reflink,
    /// The size limit of each new layer, in bytes.
    pub(crate) size: Option<u64>,
}

impl Settings {
    pub(crate) fn parse(options: &Options) -> Result<Self> {
        let reflink = match options.get("vfs.reflink") {
            None | Some("auto") => Reflink::Auto,
            Some("always") => Reflink::Always,
            Some("never") => Reflink::Never,
            Some(other) => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("option \"vfs.reflink\" has the value \"{other}\" (known: auto, always, never)"),
                ));
            }
        };
        Ok(Self { reflink, size: options.size("vfs.size")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_has_its_values() {
        let parse = |text: &str| Settings::parse(&Options::parse(text.split_whitespace())?);
        assert_eq!(parse("").unwrap(), Settings::default());
        assert_eq!(parse("vfs.reflink=auto").unwrap().reflink, Reflink::Auto);
        assert_eq!(parse("vfs.reflink=always").unwrap().reflink, Reflink::Always);
        assert_eq!(parse("vfs.reflink=never vfs.size=1k").unwrap().size, Some(1024));
        for wrong in ["vfs.reflink=maybe", "vfs.size=much"] {
            assert_eq!(parse(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }
}
