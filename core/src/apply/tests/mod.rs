//! Each rule as a table of a parent layer, a layer on it, and the tree that must come out: the same where the layer
//! holds the whole tree and where overlayfs merges it with the parent's.

mod fidelity;
mod hostile;
mod random;
mod rules;

use std::os::fd::OwnedFd;
use std::path::Path;

use super::*;
use crate::archive::{Entry, EntryKind, Writer};
use crate::mount::{Access, MountOption, MountPlan};
use crate::tree::dump;

/// An entry and its content.
type Item = (Entry, Vec<u8>);

fn file(path: &str, content: &str) -> Item {
    (Entry::new(path, EntryKind::File { size: content.len() as u64 }, 0o644), content.into())
}

fn dir(path: &str) -> Item {
    (Entry::new(path, EntryKind::Directory, 0o755), Vec::new())
}

fn symlink(path: &str, target: &str) -> Item {
    (Entry::new(path, EntryKind::Symlink { target: target.into() }, 0o777), Vec::new())
}

fn hardlink(path: &str, target: &str) -> Item {
    (Entry::new(path, EntryKind::Hardlink { target: target.into() }, 0o644), Vec::new())
}

fn special(path: &str, kind: EntryKind) -> Item {
    (Entry::new(path, kind, 0o600), Vec::new())
}

/// A whiteout, or an opaque mark.
fn gone(path: &str) -> Item {
    file(path, "")
}

fn tar(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in items {
        writer.append(entry, Some(&mut &content[..])).unwrap();
    }
    writer.finish().unwrap()
}

fn open(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

fn unpack(target: &Path, form: LayerForm, parent: Option<&Path>, tar: &[u8]) -> Result<Applied> {
    let mut view = || Ok(parent.map(|parent| Tree::from_fd(open(parent))));
    apply(open(target), form, &mut view, &mut &tar[..], ApplyRequest::new())
}

const OVERLAY: LayerForm = LayerForm::Overlay { userxattr: false };

/// A parent layer, and the layer on it in each form.
struct Bench {
    scratch: tempfile::TempDir,
}

impl Bench {
    fn new(parent: &[Item]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let bench = Self { scratch };
        for name in ["parent", "whole", "upper", "aufs", "work"] {
            std::fs::create_dir(bench.path(name)).unwrap();
        }
        // The drivers give a layer's root the owner, mode and time of the parent's.
        for name in ["parent", "whole", "upper", "aufs"] {
            let items = if matches!(name, "parent" | "whole") { parent } else { &[] };
            let tar = tar(&[&[dir("./")], items].concat());
            unpack(&bench.path(name), LayerForm::Whole, None, &tar).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.path().join(name)
    }

    fn whole(&self, tar: &[u8]) -> Result<Applied> {
        unpack(&self.path("whole"), LayerForm::Whole, Some(&self.path("parent")), tar)
    }

    fn overlay(&self, tar: &[u8]) -> Result<Applied> {
        unpack(&self.path("upper"), OVERLAY, Some(&self.path("parent")), tar)
    }

    fn aufs(&self, tar: &[u8]) -> Result<Applied> {
        unpack(&self.path("aufs"), LayerForm::Aufs, Some(&self.path("parent")), tar)
    }

    /// The parent with the overlay layer on it, without a place in the mount table.
    fn merged(&self) -> Tree {
        let mut plan = MountPlan::bind("overlay", Access::ReadOnly, "/nowhere");
        plan.fstype = "overlay".to_owned();
        plan.options =
            vec![MountOption::Layers("lowerdir".to_owned(), vec![self.path("upper"), self.path("parent")])];
        Tree::open(&plan).unwrap()
    }

    fn whole_tree(&self) -> Tree {
        Tree::from_fd(open(&self.path("whole")))
    }

    /// Applies the layer in all forms and returns the tree, which must be the same in both that can be looked at.
    fn tree(&self, layer: &[Item]) -> String {
        let tar = tar(layer);
        let whole = self.whole(&tar).unwrap();
        assert_eq!(self.overlay(&tar).unwrap(), whole);
        assert_eq!(self.aufs(&tar).unwrap(), whole);
        let text = dump(&self.whole_tree()).unwrap();
        assert_eq!(dump(&self.merged()).unwrap(), text, "the merged tree (left) is not the whole one");
        text
    }

    /// As [`Bench::tree`], as words: `dir/`, `file=content`, `link->target`, `other!`.
    fn words(&self, layer: &[Item]) -> String {
        self.tree(layer);
        words(&self.path("whole"))
    }

    /// Applies a layer that must be refused in every form, and returns the error, with the entry it names.
    fn refused(&self, tar: &[u8]) -> (String, String) {
        let errors: Vec<_> = [self.whole(tar), self.overlay(tar), self.aufs(tar)]
            .into_iter()
            .map(|result| {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
                (error.message().to_owned(), error.path().unwrap().to_string_lossy().into_owned())
            })
            .collect();
        assert_eq!(errors[0], errors[1]);
        assert_eq!(errors[0], errors[2]);
        errors[0].clone()
    }
}

fn words(root: &Path) -> String {
    fn walk(directory: &Path, prefix: &str, found: &mut Vec<String>) {
        let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()).collect();
        names.sort_by_key(std::fs::DirEntry::file_name);
        for entry in names {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                found.push(format!("{name}/"));
                walk(&entry.path(), &format!("{name}/"), found);
            } else if kind.is_symlink() {
                found.push(format!("{name}->{}", std::fs::read_link(entry.path()).unwrap().display()));
            } else if kind.is_file() {
                found.push(format!("{name}={}", std::fs::read_to_string(entry.path()).unwrap()));
            } else {
                found.push(format!("{name}!"));
            }
        }
    }
    let mut found = Vec::new();
    walk(root, "", &mut found);
    found.join(" ")
}
