//! The reference driver: every layer is a directory with a whole tree in it, made as a copy of its parent's.
//!
//! It works on every file system, and costs space and time for each layer unless the file system can share blocks.
//! Read it to learn what a driver is: [`driver.rs`](../src/driver.rs) is the contract, the rest serves it.

mod driver;
mod layout;
mod options;
mod probe;
mod sys;
mod window;

pub use driver::Vfs;

layerstack_core::register_driver! {
    name: driver::NAME,
    summary: "whole copies in plain directories; works everywhere",
    rank: 100,
    options: options::DRIVER,
    layer_options: options::LAYER,
    probe: probe::probe,
    open: driver::open,
}
