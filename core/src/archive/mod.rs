//! Layer tars: reading and writing them, and keeping what they have beyond the layer's files.
//! [`apply`](crate::apply) unpacks them into a layer.

mod acl;
mod entry;
mod header;
mod observer;
mod pax;
mod reader;
mod sparse;
mod split;
mod stream;
mod writer;

pub use entry::{Entry, EntryKind, Timestamp};
pub use observer::Observer;
pub use reader::{ContentReader, Reader};
pub use split::{Recorder, reassemble};
pub use writer::Writer;

#[cfg(test)]
mod tests;
