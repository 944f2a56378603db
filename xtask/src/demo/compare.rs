//! Whether two trees are equal, by nothing but the standard library. `diff -r` calls any two device nodes different.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Fails naming the first paths at which the trees differ in type, mode, owner, device number, link target or content.
pub(super) fn must_be_equal(left: &Path, right: &Path) -> Result<()> {
    let (ours, theirs) = (files(left)?, files(right)?);
    let mut different = Vec::new();
    for path in ours.keys().chain(theirs.keys().filter(|path| !ours.contains_key(*path))) {
        let same =
            ours.get(path) == theirs.get(path) && content(&left.join(path))? == content(&right.join(path))?;
        if !same {
            different.push(path.display().to_string());
        }
    }
    if !different.is_empty() {
        different.truncate(20);
        bail!("{} and {} differ at {}", left.display(), right.display(), different.join(", "));
    }
    Ok(())
}

/// Mode with the file's type, owner, group, device number.
type Metadata = (u32, u32, u32, u64);

fn files(root: &Path) -> Result<BTreeMap<PathBuf, Metadata>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let listing = fs::read_dir(root.join(&folder));
        for entry in listing.with_context(|| format!("failed to read {}", root.join(&folder).display()))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let data = entry.metadata()?;
            if data.is_dir() {
                folders.push(path.clone());
            }
            found.insert(path, (data.mode(), data.uid(), data.gid(), data.rdev()));
        }
    }
    Ok(found)
}

/// What a file holds, or where a symbolic link points.
fn content(path: &Path) -> Result<Vec<u8>> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_symlink() {
        return Ok(fs::read_link(path)?.into_os_string().into_encoded_bytes());
    }
    if kind.is_file() { Ok(fs::read(path)?) } else { Ok(Vec::new()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("folder")).unwrap();
        fs::write(root.path().join("folder/file"), "content").unwrap();
        symlink("file", root.path().join("folder/link")).unwrap();
        root
    }

    #[test]
    fn every_difference_is_seen() {
        let edits: [fn(&Path); 6] = [
            |root| fs::write(root.join("folder/file"), "kontent").unwrap(),
            |root| fs::set_permissions(root.join("folder"), fs::Permissions::from_mode(0o700)).unwrap(),
            |root| fs::remove_file(root.join("folder/file")).unwrap(),
            |root| fs::write(root.join("more"), "").unwrap(),
            |root| {
                fs::remove_file(root.join("folder/link")).unwrap();
                symlink("elsewhere", root.join("folder/link")).unwrap();
            },
            |root| {
                fs::remove_file(root.join("folder/link")).unwrap();
                fs::write(root.join("folder/link"), "file").unwrap();
            },
        ];
        let plain = tree();
        must_be_equal(plain.path(), tree().path()).unwrap();
        for (number, edit) in edits.iter().enumerate() {
            let edited = tree();
            edit(edited.path());
            assert!(must_be_equal(plain.path(), edited.path()).is_err(), "edit {number}");
            assert!(must_be_equal(edited.path(), plain.path()).is_err(), "edit {number} the other way round");
        }
    }
}
