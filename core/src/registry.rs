//! The drivers that are linked in, and the choice among them.
//!
//! A driver crate calls [`register_driver!`](crate::register_driver) once. That emits a `pub static REGISTRATION`
//! and hands it to `inventory`, so that a driver is found without core knowing its name. A linker drops a crate
//! that nobody names, though; so the facade also names each `REGISTRATION` that it was built with, and
//! [`Registry::new`] merges both lists.

use std::path::Path;

use crate::driver::Driver;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{OptionSpec, Options};

/// What a driver crate says of itself.
#[derive(Debug)]
pub struct Registration {
    /// The driver's name.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// The place in the order of automatic choice, the lowest first.
    pub rank: u32,
    /// Options of the driver: `<name>.…` as Docker's `--storage-opt`.
    pub options: &'static [OptionSpec],
    /// Options of a single layer: `size`, …
    pub layer_options: &'static [OptionSpec],
    /// Finds out whether the driver can work in a home (which need not exist yet), leaving nothing behind.
    /// Fails with `Unavailable` saying what is missing and how to get it.
    pub probe: fn(&OpenRequest<'_>) -> Result<()>,
    /// Opens a home, making it where it is absent.
    pub open: fn(&OpenRequest<'_>) -> Result<Box<dyn Driver>>,
}

/// What a driver is opened with.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct OpenRequest<'a> {
    /// The driver's home. Absolute.
    pub home: &'a Path,
    /// The driver's options; every key is one that its registration lists.
    pub options: &'a Options,
}

impl<'a> OpenRequest<'a> {
    /// A request for the home and the options given.
    #[must_use]
    pub fn new(home: &'a Path, options: &'a Options) -> Self {
        Self { home, options }
    }
}

/// The list that `inventory` gathers; filled by [`register_driver!`](crate::register_driver).
#[derive(Debug)]
#[doc(hidden)]
pub struct Linked(pub &'static Registration);

inventory::collect!(Linked);

#[doc(hidden)]
pub use inventory;

/// Registers a driver: `register_driver! { name: "vfs", … }` with the fields of [`Registration`].
#[macro_export]
macro_rules! register_driver {
    ($($fields:tt)*) => {
        /// What this crate tells the registry.
        pub static REGISTRATION: $crate::registry::Registration =
            $crate::registry::Registration { $($fields)* };
        $crate::registry::inventory::submit! { $crate::registry::Linked(&REGISTRATION) }
    };
}

/// The drivers to choose from, by name.
#[derive(Debug, Clone)]
pub struct Registry(Vec<&'static Registration>);

impl Registry {
    /// All drivers that registered themselves, and those that `named` names, sorted by name.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where two different drivers have one name.
    pub fn new(named: &[&'static Registration]) -> Result<Self> {
        let registered = inventory::iter::<Linked>.into_iter().map(|linked| linked.0);
        let mut all: Vec<&'static Registration> = Vec::new();
        for registration in registered.chain(named.iter().copied()) {
            match all.iter().find(|known| known.name == registration.name) {
                None => all.push(registration),
                Some(known) if std::ptr::eq(*known, registration) => {}
                Some(_) => {
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        format!("two drivers are registered under the name \"{}\"", registration.name),
                    ));
                }
            }
        }
        all.sort_by_key(|registration| registration.name);
        Ok(Self(all))
    }

    /// The drivers, by name.
    pub fn iter(&self) -> impl Iterator<Item = &'static Registration> {
        self.0.iter().copied()
    }

    /// The driver of this name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] naming the drivers that there are.
    pub fn get(&self, name: &str) -> Result<&'static Registration> {
        self.iter().find(|registration| registration.name == name).ok_or_else(|| {
            let names: Vec<_> = self.iter().map(|registration| registration.name).collect();
            Error::new(
                ErrorKind::NotFound,
                format!("unknown storage driver \"{name}\" (built with: {})", names.join(", ")),
            )
        })
    }
}
