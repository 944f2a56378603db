//! What a diff must be, found out the slow way: by reading both trees whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::case::{Stop, Verdict};
use crate::snapshot::{Kind, Node, Snapshot};

/// The lines that `docker diff` prints for the change from one tree to another: `A`, `C` or `D` and the path, what
/// changed and the directories above it, in the order of a walk.
///
/// A directory of which only the time changed has not changed: every change below it does that (moby#9874).
#[must_use]
pub fn changes(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut lines: Vec<(PathBuf, char)> = Vec::new();
    let mut above: BTreeSet<&Path> = BTreeSet::new();
    let paths: BTreeSet<&PathBuf> = before.nodes.keys().chain(after.nodes.keys()).collect();
    for path in paths.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        let letter = match (before.get(path), after.get(path)) {
            (None, Some(_)) => 'A',
            (Some(_), None) if gone_with_a_parent(path, before, after) => continue,
            (Some(_), None) => 'D',
            (Some(old), Some(new)) if differs(old, new) => 'C',
            _ => continue,
        };
        lines.push((path.clone(), letter));
        above.extend(path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()));
    }
    let changed: BTreeSet<PathBuf> = lines.iter().map(|(path, _)| path.clone()).collect();
    lines
        .extend(above.into_iter().filter(|path| !changed.contains(*path)).map(|path| (path.to_owned(), 'C')));
    lines.sort_by(|one, other| one.0.components().cmp(other.0.components()));
    lines.into_iter().map(|(path, letter)| format!("{letter} /{}", path.display())).collect()
}

/// Of a directory that was removed or replaced by something else, only it itself is listed.
fn gone_with_a_parent(path: &Path, before: &Snapshot, after: &Snapshot) -> bool {
    let parents = path.ancestors().skip(1).filter(|parent| before.get(parent).is_some());
    parents.into_iter().any(|parent| after.get(parent).is_none_or(|node| node.kind != Kind::Directory))
}

fn differs(old: &Node, new: &Node) -> bool {
    let same =
        old.kind == new.kind && old.mode == new.mode && old.owner == new.owner && old.xattrs == new.xattrs;
    !same || (old.kind != Kind::Directory && old.mtime != new.mtime)
}

/// Fails the case where the changes that the front lists are not those between the two trees.
///
/// Which names of one file are linked to each other is left out: no line of `docker diff` tells it.
///
/// # Errors
/// Where they differ.
#[track_caller]
pub fn must_list(found: &[String], before: &Snapshot, after: &Snapshot) -> Verdict {
    let wanted = changes(before, after);
    if found == wanted {
        return Ok(());
    }
    let extra: Vec<_> = found.iter().filter(|line| !wanted.contains(line)).collect();
    let missing: Vec<_> = wanted.iter().filter(|line| !found.contains(line)).collect();
    Err(Stop::failed(format_args!("the changes are {found:?}; too many: {extra:?}, missing: {missing:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{directory, mtime, write};
    use std::fs;

    #[test]
    fn each_change_and_what_is_above_it_is_listed_once() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        directory(&root.join("d/kept")).unwrap();
        directory(&root.join("gone/in")).unwrap();
        directory(&root.join("replaced/in")).unwrap();
        for name in ["d/a", "d/kept/b", "f", "gone/in/x"] {
            write(&root.join(name), "1").unwrap();
            mtime(&root.join(name), 5, 5).unwrap();
        }
        let before = Snapshot::read(root).unwrap();
        write(&root.join("d/kept/b"), "2").unwrap();
        mtime(&root.join("d/kept/b"), 5, 5).unwrap();
        write(&root.join("d-after"), "2").unwrap();
        fs::remove_dir_all(root.join("gone")).unwrap();
        fs::remove_dir_all(root.join("replaced")).unwrap();
        write(&root.join("replaced"), "").unwrap();
        let after = Snapshot::read(root).unwrap();
        let wanted = ["C /d", "C /d/kept", "C /d/kept/b", "A /d-after", "D /gone", "C /replaced"];
        assert_eq!(changes(&before, &after), wanted);
        assert_eq!(changes(&after, &after), Vec::<String>::new());
    }
}
