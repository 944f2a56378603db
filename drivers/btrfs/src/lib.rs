//! The storage driver on btrfs subvolumes, its home laid out as that of Docker's driver of the same name.

mod driver;

mod probe;

mod layout;

mod options;

mod subvolume;

mod nested;

mod names;

mod snapshots;

mod candidates;

mod share;

mod stream;

mod namespace;

mod quota;

mod groups;

mod usage;

mod space;

mod release;

mod sys;

pub use driver::{Btrfs, NAME, REGISTRATION};
