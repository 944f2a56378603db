//! The storage driver on the kernel's overlayfs, its home laid out as that of Docker's driver of the same name.

mod driver;

mod probe;

mod layout;

mod options;

mod metacopy;

mod volatile;

mod candidates;

mod sys;

pub use driver::{NAME, Overlay2, REGISTRATION};
