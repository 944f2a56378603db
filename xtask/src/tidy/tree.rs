//! The files that the rules look at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The workspace's source files: what is in the text files, and where everything is.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Names at the top level, without what begins with a dot.
    pub(super) top: BTreeSet<String>,
    /// Content by path relative to the workspace: every `.rs`, `.toml` and `.md` file.
    pub(super) files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the workspace, what cargo built left out.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.walk(root, "")?;
        Ok(tree)
    }

    fn walk(&mut self, directory: &Path, prefix: &str) -> Result<()> {
        let failed = || format!("failed to read {}", directory.display());
        for entry in fs::read_dir(directory).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if prefix.is_empty() {
                self.top.insert(name.clone());
            }
            let path = format!("{prefix}{name}");
            if entry.file_type().with_context(failed)?.is_dir() {
                self.walk(&entry.path(), &format!("{path}/"))?;
            } else if [".rs", ".toml", ".md"].iter().any(|suffix| name.ends_with(suffix)) {
                let text =
                    fs::read_to_string(entry.path()).with_context(|| format!("failed to read {path}"))?;
                self.files.insert(path, text);
            }
        }
        Ok(())
    }

    /// The content of a file.
    pub(super) fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// The Rust files, path and content.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(|(path, _)| path.ends_with(".rs"))
    }

    /// The names of the folders directly below `drivers/` that hold a crate.
    pub(super) fn driver_folders(&self) -> BTreeSet<&str> {
        let below = self.files.keys().filter_map(|path| path.strip_prefix("drivers/"));
        let folders = below.filter_map(|path| path.strip_suffix("/Cargo.toml"));
        folders.filter(|folder| !folder.contains('/')).collect()
    }

    /// A tree made of these files, for tests.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            let top = path.split('/').next().unwrap_or(path);
            tree.top.insert(top.to_owned());
            tree.files.insert((*path).to_owned(), (*text).to_owned());
        }
        tree
    }
}

/// The part of a Rust file that is no test: all before its `mod tests`.
pub(super) fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |end| &text[..=end])
}

/// The lines of a text, counted from 1.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_built_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/b.rs", "target/c.rs", "a/target/d.rs", ".git/e.rs", "a/f.bin", "g.md"] {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, path).unwrap();
        }
        let tree = Tree::read(root.path()).unwrap();
        assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["a/b.rs", "g.md"]);
        assert_eq!(tree.top.iter().collect::<Vec<_>>(), ["a", "g.md"]);
    }

    #[test]
    fn tests_are_cut_off() {
        assert_eq!(without_tests("a\n\n#[cfg(test)]\nmod tests {\n}\n"), "a\n\n");
        assert_eq!(without_tests("a\n#[cfg(test)]\nfn b() {}\n"), "a\n#[cfg(test)]\nfn b() {}\n");
    }
}
