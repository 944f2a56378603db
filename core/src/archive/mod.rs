//! Layer tars: reading, writing, and unpacking them into a layer.

mod entry;

pub use entry::{Entry, EntryKind, Timestamp};
