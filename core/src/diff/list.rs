//! The walk's findings as a list.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::change::{Change, ChangeKind};
use super::walk::{Sink, Spot};
use crate::error::Result;
use crate::tree::Metadata;

/// Collects changes in the order of the walk.
#[derive(Debug, Default)]
pub(super) struct List {
    changes: Vec<Change>,
}

impl List {
    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    fn push(&mut self, path: &[u8], kind: ChangeKind) {
        let mut absolute = Vec::with_capacity(path.len() + 1);
        absolute.push(b'/');
        absolute.extend_from_slice(path);
        self.changes.push(Change { path: OsString::from_vec(absolute).into(), kind });
    }
}

impl Sink for List {
    const EXACT: bool = false;

    fn entry(&mut self, spot: &Spot<'_>, _layer: &Metadata, base: Option<&Metadata>) -> Result<()> {
        let kind = if base.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.push(spot.path, kind);
        Ok(())
    }

    fn above(&mut self, spot: &Spot<'_>, _layer: &Metadata) -> Result<()> {
        self.push(spot.path, ChangeKind::Modified);
        Ok(())
    }

    fn deleted(&mut self, path: &[u8], _base: &Metadata) -> Result<()> {
        self.push(path, ChangeKind::Deleted);
        Ok(())
    }

    fn equal(&mut self, _path: &[u8], _layer: &Metadata, _base: &Metadata) {}
}
