//! Images and containers on any Layerstack storage driver.
//!
//! A [`Store`] keeps images and containers in one root. It knows names, manifests and configs; of layers it knows what
//! [`Layers`](layerstack::Layers) tells it, whatever the driver. Images come from OCI layouts and docker archives, and
//! go back bit for bit.
//!
//! # What lies where
//! ```text
//! <root>/<driver>/            the driver's layers, laid out as Docker's
//! <root>/layerstack/<driver>/ core's records of them
//! <root>/store/store.db       the database (SQLite, WAL mode): names, manifests, configs, containers
//! <root>/store/blobs/sha256/  layers that came compressed, as they came
//! <root>/store/tars/          what plain layer tars have beyond their files
//! <root>/store/tmp/           running operations: their locks and temporary files
//! ```
//! The driver's root is the truth about layers, the database about names. Nothing is seen before it is whole: layers
//! first, then the kept files, then one transaction that makes the image visible.
//!
//! # Who may remove what
//! Every operation is an owner with a lock that goes with its process, and claims in the database what it needs,
//! makes or removes. Only what nothing refers to and no other owner claims is ever removed. What a killed operation
//! left is known by its claims, and goes with the next opening.

mod digest;
mod name;
mod platform;

mod model;
mod progress;

mod image;
mod inflate;
mod source;

mod db;
mod kept;
mod owner;

mod store;

mod content;
mod load;

mod commit;
mod containers;
mod images;
mod save;

mod check;
mod prune;
mod usage;

pub use digest::Digest;
pub use model::*;
pub use platform::Platform;
pub use progress::{Progress, Silent, Stage, Step};
pub use store::{Store, drivers};

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
