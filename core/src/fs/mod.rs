//! Work on file systems that core and drivers share: relative to directory descriptors, never by way of a path
//! that somebody could change meanwhile.

mod backing;
mod remove;
mod sync;
pub mod xattr;

pub use backing::FileSystemType;
pub use remove::remove_tree;
pub use sync::{sync_directory, sync_file_system};
