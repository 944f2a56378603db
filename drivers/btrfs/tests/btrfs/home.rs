//! The home itself: where it can be, what is left in it, what it says of itself.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use layerstack_btrfs::REGISTRATION;
use layerstack_core::ErrorKind;
use layerstack_core::layers::Base;
use layerstack_core::mount::Access;
use layerstack_core::options::Options;
use layerstack_core::registry::OpenRequest;

use crate::store::{Store, create, grow, id, names, run};

#[test]
fn it_is_on_btrfs_or_unavailable() {
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = Options::new();
    let probe = |path: &std::path::Path| (REGISTRATION.probe)(&OpenRequest::new(path, &options));
    let error = probe(&scratch.path().join("root/btrfs")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("tmpfs") && error.to_string().contains("mkfs.btrfs"), "{error}");
    let store = Store::new();
    probe(&store.home()).unwrap();
    assert!(!store.root().exists(), "the probe made something");
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(store.path()));
    let error = probe(&store.home()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[test]
fn nobody_else_may_pass_and_a_base_layer_is_roots() {
    let store = Store::new();
    let driver = store.open();
    assert_eq!(driver.home().metadata().unwrap().mode() & 0o7777, 0o710);
    let base = create(&*driver, "base", None);
    assert_eq!(base.metadata().unwrap().mode() & 0o7777, 0o755);
    fs::set_permissions(&base, fs::Permissions::from_mode(0o1770)).unwrap();
    driver.seal(&id("base"), true).unwrap();
    let top = create(&*driver, "top", Some("base"));
    assert_eq!(top.metadata().unwrap().mode() & 0o7777, 0o1770);
    let error = fs::write(base.join("file"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

/// A kill between the sealing and its record leaves a layer that core takes for writable.
#[test]
fn a_layer_that_is_mounted_writable_can_be_written_to() {
    let store = Store::new();
    let driver = store.open();
    let base = create(&*driver, "base", None);
    driver.seal(&id("base"), false).unwrap();
    driver.mount_plan(&id("base"), Access::ReadOnly).unwrap();
    fs::write(base.join("file"), "x").unwrap_err();
    driver.mount_plan(&id("base"), Access::ReadWrite).unwrap();
    fs::write(base.join("file"), "x").unwrap();
}

#[test]
fn snapshots_that_a_killed_process_left_go_and_others_stay() {
    let store = Store::new();
    let driver = store.open();
    let base = create(&*driver, "base", None);
    let left = |name: &str| {
        let path = store.home().join("snapshots").join(name);
        run(Command::new("btrfs").args(["-q", "subvolume", "snapshot", "-r"]).arg(&base).arg(&path));
        path
    };
    left("left");
    let used = fs::File::open(left("used")).unwrap();
    rustix::fs::flock(&used, rustix::fs::FlockOperation::LockExclusive).unwrap();
    drop(store.open());
    assert_eq!(names(&store.home()), ["snapshots/used", "subvolumes/base"]);
    drop(used);
    drop(store.open());
    assert_eq!(names(&store.home()), ["subvolumes/base"]);
}

#[test]
fn it_says_what_docker_says_and_what_is_free() {
    let store = Store::new();
    let driver = store.open();
    let status = driver.status().unwrap();
    let value = |key: &str| &status.iter().find(|(known, _)| known == key).unwrap().1;
    assert!(value("Build Version").starts_with("libbtrfsutil 1."), "{status:?}");
    assert!(value("Library Version").starts_with("1."), "{status:?}");
    assert_eq!(value("Quota"), "off");
    for key in ["Data Space Total", "Metadata Space Available", "Unallocated Space"] {
        assert!(value(key).ends_with("iB"), "{status:?}");
    }
    assert_eq!(driver.why_full(), None);
}

/// To the last byte: there is not even room for the note of a mount.
#[test]
fn a_full_file_system_can_be_opened_read_and_cleared() {
    let store = Store::new();
    let layers = store.layers();
    grow(&layers, "base", None, true, |root| fs::write(root.join("file"), "x").unwrap());
    grow(&layers, "top", Some("base"), false, |root| {
        fs::write(root.join("large"), vec![1; 64 << 20]).unwrap();
    });
    drop(layers);
    let mut filler = fs::File::create(store.path().join("filler")).unwrap();
    for size in [1 << 20, 4096] {
        while filler.write_all(&vec![1; size]).and_then(|()| filler.sync_data()).is_ok() {}
    }
    drop(filler);
    let layers = store.layers();
    let error = layers.create(&id("next"), Some(&id("base")), &Options::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(layers.changes(&id("top"), Base::Parent).unwrap().len(), 1);
    let tree = layers.tree(&id("base")).unwrap();
    assert!(tree.open_file(std::path::Path::new("file")).is_ok());
    drop(tree);
    // Its room is there at once.
    layers.remove(&id("top")).unwrap();
    grow(&layers, "next", Some("base"), true, |root| {
        fs::write(root.join("large"), vec![2; 48 << 20]).unwrap();
    });
}
