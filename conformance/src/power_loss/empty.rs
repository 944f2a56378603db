//! What a root has without layers: what is more after the last layer is gone was left behind.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::case::{Verdict, check};
use crate::scene;
use crate::subject::Subject;

/// A root without layers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EmptyRoot {
    /// What is below the root, by type and name.
    names: Vec<String>,
    /// What the status counts. Nothing where a file system without a fixed number of inodes (btrfs) takes layers away in the
    /// background: what it uses is of no one moment, and all that a driver can leave there has a name.
    counts: BTreeMap<String, String>,
}

impl EmptyRoot {
    pub(super) fn of(layers: &dyn Subject) -> Verdict<Self> {
        let mut names = Vec::new();
        scene::list_names(layers.root(), layers.root(), &mut names)?;
        names.sort();
        let is_at_once = rustix::fs::statvfs(layers.root())?.f_files != 0;
        let entries = layers.status()?.entries.into_iter();
        let counts = entries.filter(|(key, _)| is_at_once && is_count(key)).collect();
        Ok(Self { names, counts })
    }

    /// Fails where there is more or less than there was.
    pub(super) fn must_equal(&self, before: &Self) -> Verdict {
        let mut lines = Vec::new();
        let extra = self.names.iter().filter(|name| !before.names.contains(name));
        lines.extend(extra.map(|name| format!("left behind: {name}")));
        let missing = before.names.iter().filter(|name| !self.names.contains(name));
        lines.extend(missing.map(|name| format!("missing: {name}")));
        for (key, count) in &self.counts {
            let was = before.counts.get(key).map_or("none", String::as_str);
            if was != count {
                lines.push(format!("{key}: {count}, was {was}"));
            }
        }
        check!(lines.is_empty(), "the root without layers is not as it was:\n    {}", lines.join("\n    "));
        Ok(())
    }
}

/// Whether a status has something under this key that grows with what is kept.
fn is_count(key: &str) -> bool {
    key.ends_with(" Used") || key.ends_with(" Count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind_is_named() {
        let root = |names: &[&str], used: &str| EmptyRoot {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            counts: [("Data Space Used".to_owned(), used.to_owned())].into(),
        };
        let before = root(&["file a", "file b"], "1MB");
        assert!(root(&["file a", "file b"], "1MB").must_equal(&before).is_ok());
        let stop = root(&["file a", "file c"], "2MB").must_equal(&before).unwrap_err();
        let text = format!("{stop:?}");
        for part in ["left behind: file c", "missing: file b", "Data Space Used: 2MB, was 1MB"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
