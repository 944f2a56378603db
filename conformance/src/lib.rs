//! The suite that holds every storage driver to the contract of `layerstack_core`.
//!
//! A driver's `tests/conformance.rs` (with `harness = false`) is this and no more:
//!
//! ```no_run
//! # use layerstack_core::registry::Registration;
//! # static REGISTRATION: Registration = Registration {
//! #     name: "mine", summary: "", rank: 0, options: &[], layer_options: &[],
//! #     probe: |_| Ok(()), open: |_| Err(layerstack_core::Error::new(layerstack_core::ErrorKind::Unavailable, "an example")),
//! # };
//! fn main() -> std::process::ExitCode {
//!     layerstack_conformance::main(&REGISTRATION)
//! }
//! ```
//!
//! # What a case is
//! A function that takes a [`Scene`](scene::Scene): a fresh root, a fresh work directory, and the driver under test
//! behind the front. Its doc comment cites the clause that it checks, and is printed where the clause does not hold.
//! What a driver may lack is asked of its capabilities, never of its name. A case that asks for more than they offer
//! says so with their reason; one that could not be run here says why. Neither is the same as passed, and `--require`
//! makes the second a failure.
//!
//! # What it needs
//! Root, for mounts. And in the environment, each optional:
//!
//! | variable | meaning |
//! |---|---|
//! | `LAYERSTACK_CONFORMANCE_STORE` | the directory to work in, on the file system to be used; else a temporary one |
//! | `LAYERSTACK_CONFORMANCE_SMALL_STORE` | a directory on a file system of its own, of about 64 MiB, to be filled up |
//! | `LAYERSTACK_CONFORMANCE_REPORT` | a file to which each case's outcome is appended as a line of JSON |
//! | `LAYERSTACK_CONFORMANCE_OPTIONS` | the driver's options for every root, each `key=value`, separated by spaces |
//!
//! `cargo xtask conformance` provides them all.

mod suite;

pub mod case;

pub mod scene;

pub mod subject;

mod front;

pub mod errand;

mod power_loss;

pub mod snapshot;

pub mod oracle;

pub mod files;

pub mod random;

pub mod tarball;

pub mod kernel;

mod cases;

pub use suite::{Opener, Suite, main};
