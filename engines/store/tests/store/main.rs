//! The store as a whole, on real drivers and with images that the tests make themselves. Runs as root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

mod containers;
mod crash;
mod load;
mod processes;
mod refused;
