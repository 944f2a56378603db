//! What a layer changed against its parent.

mod change;

pub use change::{Change, ChangeKind};
