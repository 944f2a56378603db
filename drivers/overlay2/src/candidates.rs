//! Where a layer may differ from its parent: at what its upper directory holds.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstack_core::Result;
use layerstack_core::driver::{Candidate, Scope};
use rustix::fs::FileType;

use crate::sys::Directory;

/// Walks an upper directory: a directory before what is in it, siblings by name.
///
/// A whiteout, a file and a file of which only the metadata was copied up each stand for their own path. A directory
/// that hides what is below it (opaque) or shows what was elsewhere (redirected by a rename) stands for all below it,
/// and is not walked.
///
/// Holds one descriptor at a time, and the names of the directories from the root to where it is.
#[derive(Debug)]
pub(crate) struct Upper {
    root: Directory,
    /// `trusted.overlay.` or `user.overlay.`
    prefix: &'static str,
    path: PathBuf,
    /// What is left in each directory of `path`, the last name first. None before the root was visited.
    levels: Option<Vec<Vec<Name>>>,
}

type Name = (CString, FileType);

impl Upper {
    pub(crate) fn new(root: Directory, userxattr: bool) -> Self {
        Self { root, prefix: attribute_prefix(userxattr), path: PathBuf::new(), levels: None }
    }

    fn step(&mut self) -> Result<Option<Candidate>> {
        let Some(levels) = &mut self.levels else {
            self.levels = Some(vec![names(&self.root)?]);
            return Ok(Some(Candidate { path: PathBuf::new(), scope: Scope::Entry }));
        };
        let (name, kind) = loop {
            let Some(level) = levels.last_mut() else { return Ok(None) };
            if let Some(name) = level.pop() {
                break name;
            }
            levels.pop();
            self.path.pop();
        };
        self.path.push(OsStr::from_bytes(name.to_bytes()));
        let path = self.path.clone();
        let directory = match kind {
            FileType::Directory => self.root.descend(&path)?,
            _ => None,
        };
        let scope = match &directory {
            Some(directory) if hides_or_moves(directory, self.prefix)? => Scope::Subtree,
            _ => Scope::Entry,
        };
        match directory {
            Some(directory) if scope == Scope::Entry => levels.push(names(&directory)?),
            _ => {
                self.path.pop();
            }
        }
        Ok(Some(Candidate { path, scope }))
    }
}

impl Iterator for Upper {
    type Item = Result<Candidate>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            // Nothing comes after an error.
            self.levels = Some(Vec::new());
        }
        step.transpose()
    }
}

/// The name space of overlayfs' own extended attributes.
pub(crate) fn attribute_prefix(userxattr: bool) -> &'static str {
    if userxattr { "user.overlay." } else { "trusted.overlay." }
}

/// The value `x` of `opaque` only says that files in the directory may be whiteouts by attribute
/// (Documentation/filesystems/overlayfs.rst, "nesting overlayfs mounts").
fn hides_or_moves(directory: &Directory, prefix: &str) -> Result<bool> {
    Ok(directory.attribute(&format!("{prefix}opaque"))?.as_deref() == Some(b"y")
        || directory.attribute(&format!("{prefix}redirect"))?.is_some())
}

fn names(directory: &Directory) -> Result<Vec<Name>> {
    let mut names = directory.entries()?;
    names.sort_unstable_by(|a, b| b.0.cmp(&a.0));
    Ok(names)
}
