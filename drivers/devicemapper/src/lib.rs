//! The storage driver on device-mapper: every layer is a thin snapshot of its parent's device, with a file system of its
//! own on it.
//!
//! A pool of blocks (dm-thin) holds all devices. A snapshot shares its blocks with its origin until one of them is
//! written to, so a layer is made in milliseconds and costs what is changed in it. The pool lies on block devices, or on
//! two files in the home for a first try.

mod driver;

mod layout;

mod transaction;

mod pool;

mod backing;

mod base;

mod file_system;

mod candidates;

mod inodes;

mod thin_metadata;

mod crc32c;

mod gate;

mod mapper;

mod loop_device;

mod status;

mod options;

mod probe;

mod sys;

pub use driver::{Devicemapper, NAME, REGISTRATION};
