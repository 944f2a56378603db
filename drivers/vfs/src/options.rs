//! The driver's options.

use layerstack_core::fs::Reflink;
use layerstack_core::options::{OptionSpec, Options};
use layerstack_core::{Error, ErrorKind, Result};

/// Options of the driver.
pub(crate) const DRIVER: &[OptionSpec] = &[OptionSpec {
    name: "vfs.reflink",
    help: "share blocks with the parent: auto (default: where the file system can), always, never",
}];

/// Options of a layer.
pub(crate) const LAYER: &[OptionSpec] = &[];

/// The value of `vfs.reflink`.
pub(crate) fn reflink(options: &Options) -> Result<Reflink> {
    match options.get("vfs.reflink") {
        None | Some("auto") => Ok(Reflink::Auto),
        Some("always") => Ok(Reflink::Always),
        Some("never") => Ok(Reflink::Never),
        Some(other) => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("option \"vfs.reflink\" has the value \"{other}\" (known: auto, always, never)"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflink_has_three_values() {
        let value = |text| reflink(&Options::parse([format!("vfs.reflink={text}")])?);
        assert_eq!(reflink(&Options::new()).unwrap(), Reflink::Auto);
        assert_eq!(value("auto").unwrap(), Reflink::Auto);
        assert_eq!(value("always").unwrap(), Reflink::Always);
        assert_eq!(value("never").unwrap(), Reflink::Never);
        assert_eq!(value("maybe").unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
