//! Layer tars: reading and writing them. [`apply`](crate::apply) unpacks them into a layer.

mod acl;
mod entry;
mod header;
mod observer;
mod pax;
mod reader;
mod sparse;
mod stream;
mod writer;

pub use entry::{Entry, EntryKind, Timestamp};
pub use observer::Observer;
pub use reader::{ContentReader, Reader};
pub use writer::Writer;

#[cfg(test)]
mod tests;
