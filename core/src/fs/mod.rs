//! Work on file systems that core and drivers share: relative to directory descriptors, never by way of a path
//! that somebody could change meanwhile.

mod backing;
mod copy;
mod remove;
mod sync;
pub(crate) mod sys;
mod usage;
pub mod xattr;

pub use backing::FileSystemType;
pub use copy::{Reflink, copy_tree};
pub use remove::remove_tree;
pub use sync::{sync_directory, sync_file_system};
pub use usage::tree_usage;
