//! Container storage drivers behind one contract: the crate that engines depend on.
//!
//! One cargo feature a driver; all of `layerstack-core` is re-exported.

pub use layerstack_core::*;

use layerstack_core::registry::{Registration, Registry};

/// The drivers that this crate was built with. They register themselves too; naming them here keeps linkers from
/// dropping their crates.
static LINKED: &[&Registration] = &[
    #[cfg(feature = "btrfs")]
    &layerstack_btrfs::REGISTRATION,
    #[cfg(feature = "devicemapper")]
    &layerstack_devicemapper::REGISTRATION,
    #[cfg(feature = "overlay2")]
    &layerstack_overlay2::REGISTRATION,
    #[cfg(feature = "vfs")]
    &layerstack_vfs::REGISTRATION,
];

/// The drivers to choose from: those of the features, and those that other crates of the program registered.
///
/// # Errors
/// `AlreadyExists` where two different drivers have one name.
pub fn registry() -> Result<Registry> {
    Registry::new(LINKED)
}

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    #[test]
    fn every_feature_is_a_driver_and_no_driver_comes_twice() {
        let names: Vec<_> = crate::registry().unwrap().iter().map(|driver| driver.name).collect();
        let expected: &[&str] = &[
            #[cfg(feature = "btrfs")]
            "btrfs",
            #[cfg(feature = "devicemapper")]
            "devicemapper",
            #[cfg(feature = "overlay2")]
            "overlay2",
            #[cfg(feature = "vfs")]
            "vfs",
        ];
        assert_eq!(names, expected);
    }
}
