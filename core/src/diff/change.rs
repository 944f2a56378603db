//! One change, as `docker diff` prints it.

use std::fmt;
use std::path::PathBuf;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub enum ChangeKind {
    /// It is there and was not in the parent: `A`.
    Added,
    /// Its content or metadata differ, or something below it changed: `C` in `docker diff`.
    Modified,
    /// It was in the parent and is not there: `D`.
    Deleted,
}

impl ChangeKind {
    /// The letter that `docker diff` prints: `A`, `C` or `D`.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Modified => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// One path that differs between a layer and its parent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Change {
    /// The path, from the layer's root: `/etc/passwd`.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.letter(), self.path.display())
    }
}
