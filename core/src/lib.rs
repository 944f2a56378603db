//! The contract of the Layerstack storage drivers, the front that engines call, and what all drivers share.
//!
//! A *layer* is a file tree named by a [`LayerId`], with at most one *parent*. It is *writable* until it is
//! *sealed*; a sealed layer never changes. An image is a chain of sealed layers; a container is one writable
//! layer on top. The *diff* of a layer is what it changed against its parent, as an OCI layer tar.
//!
//! **Core checks, drivers do.** [`Driver`] is the small set of primitives in which back ends differ. The front
//! wraps one opened driver and owns all that is the same for every driver. Core knows no driver by name.

mod id;

mod error;

pub mod options;

pub mod capability;

pub mod driver;

pub mod registry;

pub mod mount;

pub mod quota;

pub mod diff;

pub mod archive;

pub mod apply;

pub mod tree;

pub mod fs;

pub mod kill_point;

pub mod layers;

pub use driver::Driver;
pub use error::{Error, ErrorKind, Result};
pub use id::LayerId;
pub use layers::{Config, Layer, LayerState, Layers};
