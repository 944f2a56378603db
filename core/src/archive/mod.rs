//! Layer tars: reading, writing, and unpacking them into a layer.

mod entry;
mod header;
mod pax;
mod writer;

pub use entry::{Entry, EntryKind, Timestamp};
pub use writer::Writer;
