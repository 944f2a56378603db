//! The folder that everything happens in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::process;

/// A folder that goes with all that is in it and mounted below it, unless it is to be kept.
#[derive(Debug)]
pub(super) struct Workplace {
    folder: TempDir,
    keep: bool,
}

impl Workplace {
    /// A new folder in `/var/tmp`, which other than `/tmp` is seldom held in memory.
    pub(super) fn new(keep: bool) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("layerstack-demo-")
            .disable_cleanup(keep)
            .tempdir_in("/var/tmp")
            .context("failed to make a folder in /var/tmp")?;
        Ok(Self { folder, keep })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Unmounts what is mounted below the folder and removes it.
    pub(super) fn remove(self) -> Result<()> {
        self.unmount()?;
        if self.keep {
            println!("    {} is kept, as asked", self.path().display());
            return Ok(());
        }
        fs::remove_dir_all(self.path()).with_context(|| format!("failed to remove {}", self.path().display()))
    }

    fn unmount(&self) -> Result<()> {
        let table = fs::read_to_string("/proc/self/mountinfo").context("failed to read the mount table")?;
        // The newest mount comes last, and may lie on an older one.
        for target in mounts_below(&table, self.path()).iter().rev() {
            process::run(Command::new("umount").arg(target))?;
        }
        Ok(())
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("{error:#}");
        }
    }
}

/// The mount points below `folder` in a table of the form of `/proc/self/mountinfo`: the fifth word of each line, with
/// some characters as octal escapes (proc(5)), none of which the folder's own name has.
fn mounts_below(table: &str, folder: &Path) -> Vec<PathBuf> {
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    targets.filter(|target| target.starts_with(folder)).collect()
}

fn unescaped(word: &str) -> PathBuf {
    let mut text = word.to_owned();
    for (escape, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(escape, character);
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_folder_are_found() {
        let table = "1 2 0:1 / / rw - ext4 /dev/a rw\n3 1 0:2 / /var/tmp/d/root/a\\040b rw - overlay overlay rw\n\
                     4 1 0:3 / /var/tmp/dd rw - tmpfs tmpfs rw\n";
        assert_eq!(mounts_below(table, Path::new("/var/tmp/d")), [Path::new("/var/tmp/d/root/a b")]);
    }

    #[test]
    fn a_workplace_goes_unless_it_is_kept() {
        let gone = Workplace::new(false).unwrap();
        let path = gone.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(gone);
        assert!(!path.exists());
        let kept = Workplace::new(true).unwrap();
        let path = kept.path().to_owned();
        kept.remove().unwrap();
        assert!(path.exists());
        fs::remove_dir(path).unwrap();
    }
}
