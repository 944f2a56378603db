//! The reference driver: every layer is a directory with a whole tree in it, made as a copy of its parent's.
//!
//! It works on every file system, and costs space and time for each layer unless the file system can share blocks.
//! Read it to learn what a driver is: [`driver.rs`](../src/driver.rs) is the contract, the rest serves it.

mod driver;

mod layout;

mod window;

mod options;

mod probe;

mod sys;

pub use driver::{NAME, REGISTRATION, Vfs};
