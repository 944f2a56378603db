//! A home that Docker's driver of the same name made.

use std::fs;
use std::process::Command;

use layerstack_core::ErrorKind;
use layerstack_core::driver::FoundLayer;
use layerstack_core::layers::{Base, LayerState, MountRequest};

use crate::store::{Store, id, run};

/// As moby's `daemon/graphdriver/btrfs` does it: subvolumes that can all be written to, each a snapshot of its parent;
/// sizes as decimal numbers.
fn make(store: &Store) {
    let home = store.home();
    fs::create_dir_all(home.join("subvolumes")).unwrap();
    fs::create_dir_all(home.join("quotas")).unwrap();
    let at = |name: &str| home.join("subvolumes").join(name);
    run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(at("aaaa")));
    fs::write(at("aaaa").join("release"), "12").unwrap();
    for (parent, layer) in [("aaaa", "bbbb"), ("bbbb", "cccc-init"), ("cccc-init", "cccc")] {
        run(Command::new("btrfs").args(["-q", "subvolume", "snapshot"]).arg(at(parent)).arg(at(layer)));
        fs::write(at(layer).join(format!("of-{layer}")), layer).unwrap();
    }
    fs::write(home.join("quotas/cccc"), "10737418240").unwrap();
    let known = [("sha256/1111/cache-id", "aaaa"), ("sha256/2222/cache-id", "bbbb")];
    let containers = [("mounts/3333/init-id", "cccc-init"), ("mounts/3333/mount-id", "cccc")];
    for (path, layer) in known.into_iter().chain(containers) {
        let path = store.root().join("image/btrfs/layerdb").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, layer).unwrap();
    }
}

#[test]
fn it_opens_and_mounts() {
    let store = Store::new();
    make(&store);
    let layers = store.layers();
    let found: Vec<_> = ["aaaa", "bbbb", "cccc-init", "cccc"]
        .map(|name| layers.layer(&id(name)).unwrap())
        .map(|layer| (layer.parent.map(String::from), layer.state))
        .into();
    let parent = |name: &str| Some(name.to_owned());
    let wanted = [
        (None, LayerState::Sealed),
        (parent("aaaa"), LayerState::Sealed),
        (parent("bbbb"), LayerState::Sealed),
        (parent("cccc-init"), LayerState::Writable),
    ];
    assert_eq!(found, wanted);
    let mount = layers.mount(&id("cccc"), &MountRequest::new()).unwrap();
    assert_eq!(fs::read_to_string(mount.target().join("release")).unwrap(), "12");
    fs::write(mount.target().join("release"), "13").unwrap();
    mount.unmount().unwrap();
    // None of them is read-only, so both sides of the diff are looked at as snapshots.
    for (layer, wanted) in [("cccc", &["A /of-cccc", "C /release"][..]), ("bbbb", &["A /of-bbbb"])] {
        let changes: Vec<_> =
            layers.changes(&id(layer), Base::Parent).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(changes, wanted);
    }
    for layer in ["cccc", "cccc-init", "bbbb", "aaaa"] {
        layers.remove(&id(layer)).unwrap();
    }
    assert_eq!(crate::store::names(&store.home()), [""; 0]);
    assert_eq!(store.subvolumes(), [""; 0]);
}

#[test]
fn what_is_no_subvolume_is_left_alone_and_debris_goes() {
    let store = Store::new();
    make(&store);
    let home = store.home();
    fs::create_dir(home.join("subvolumes/copied")).unwrap();
    fs::write(home.join("subvolumes/copied/file"), "x").unwrap();
    fs::write(home.join("quotas/dddd"), "1").unwrap();
    let driver = store.open();
    assert_eq!(driver.find(&id("copied")).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(driver.find(&id("dddd")).unwrap(), None);
    // Its parent is gone.
    driver.remove(&id("bbbb")).unwrap();
    let whole = FoundLayer { parent: None, sealed: None };
    assert_eq!(driver.find(&id("cccc-init")).unwrap(), Some(whole));
    drop(driver);
    drop(store.layers());
    assert_eq!(fs::read(home.join("subvolumes/copied/file")).unwrap(), b"x");
    assert!(!home.join("quotas/dddd").exists());
}
