//! Unpacking a layer tar onto a copy of the parent's tree, by GNU tar: somebody else's reading of the archive.

use std::path::Path;
use std::process::Command;

use layerstack_core::apply::{ApplyRequest, apply};
use layerstack_core::driver::LayerForm;
use layerstack_core::mount::{Access, MountPlan};
use layerstack_core::tree::Tree;

/// The names in an archive, in order.
pub(crate) fn names(tar: &[u8]) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tar).unwrap();
    run(Command::new("tar").args(["--quoting-style=literal", "-tf"]).arg(file.path()))
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Makes `target`, a copy of the parent's tree, what the layer is.
pub(crate) fn unpack(tar: &[u8], target: &Path) {
    for name in names(tar) {
        let (parent, last) =
            name.trim_end_matches('/').rsplit_once('/').unwrap_or(("", name.trim_end_matches('/')));
        let whiteout = last.strip_prefix(".wh.");
        let path = target.join(parent).join(whiteout.unwrap_or(last));
        let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
        if found.is_dir() && (whiteout.is_some() || !name.ends_with('/')) {
            std::fs::remove_dir_all(&path).unwrap();
        } else if !found.is_dir() {
            std::fs::remove_file(&path).unwrap();
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tar).unwrap();
    // Attributes that the archive does not have must go, which GNU tar leaves to us.
    for name in names(tar).iter().filter(|name| name.ends_with('/')) {
        clear_attributes(&target.join(name));
    }
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--delay-directory-restore", "-xpf"])
        .arg(file.path())
        .args(["--exclude=.wh.*", "-C"])
        .arg(target));
}

/// Unpacks the archive as core does.
pub(crate) fn apply_to(tar: &[u8], target: &Path, form: LayerForm, parent: Option<&Path>) {
    let mut parent = || match parent {
        Some(parent) => Tree::open(&MountPlan::bind(parent, Access::ReadOnly, "/none")).map(Some),
        None => Ok(None),
    };
    let target = std::fs::File::open(target).unwrap();
    apply(&target, form, &mut parent, &mut &*tar, ApplyRequest::new()).unwrap();
}

/// Gives the directory `to` the metadata of `from`.
pub(crate) fn same_metadata(from: &Path, to: &Path) {
    let from = std::fs::File::open(from).unwrap();
    let stat = rustix::fs::fstat(&from).unwrap();
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    let target = std::fs::File::open(to).unwrap();
    rustix::fs::fchown(&target, Some(uid), Some(gid)).unwrap();
    rustix::fs::fchmod(&target, rustix::fs::Mode::from_raw_mode(stat.st_mode)).unwrap();
    for (key, value) in layerstack_core::fs::xattr::list(&from, c"").unwrap() {
        let key = std::ffi::CString::new(key).unwrap();
        layerstack_core::fs::xattr::set(&target, c"", &key, &value).unwrap();
    }
    target.set_modified(std::fs::File::metadata(&from).unwrap().modified().unwrap()).unwrap();
}

fn clear_attributes(directory: &Path) {
    let Ok(directory) = std::fs::File::open(directory) else { return };
    for (key, _) in layerstack_core::fs::xattr::list(&directory, c"").unwrap() {
        let key = std::ffi::CString::new(key).unwrap();
        layerstack_core::fs::xattr::remove(&directory, c"", &key).unwrap();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
