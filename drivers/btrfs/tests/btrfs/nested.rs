//! Subvolumes that somebody made inside a layer.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use layerstack_core::tree::{Tree, dump};

use crate::store::{Store, create, grow, id, names, run};

fn subvolume(words: &[&str], paths: &[&Path]) {
    run(Command::new("btrfs").args(["-q", "subvolume"]).args(words).args(paths));
}

/// A subvolume in a subvolume, below a directory, and a read-only one.
fn fill(root: &Path) {
    fs::create_dir_all(root.join("var/lib")).unwrap();
    subvolume(&["create"], &[&root.join("var/lib/machine")]);
    fs::write(root.join("var/lib/machine/file"), "machine").unwrap();
    fs::create_dir(root.join("var/lib/machine/in")).unwrap();
    subvolume(&["create"], &[&root.join("var/lib/machine/in/inner")]);
    fs::write(root.join("var/lib/machine/in/inner/file"), "inner").unwrap();
    subvolume(
        &["snapshot", "-r"],
        &[&root.join("var/lib/machine/in/inner"), &root.join("var/lib/machine/sealed")],
    );
    subvolume(&["create"], &[&root.join("gone")]);
}

#[test]
fn a_child_has_them_and_removal_takes_them_away() {
    let store = Store::new();
    let layers = store.layers();
    grow(&layers, "base", None, true, fill);
    grow(&layers, "top", Some("base"), false, |_| {});
    let text = |layer: &str| {
        dump(&Tree::from_fd(fs::File::open(store.home().join("subvolumes").join(layer)).unwrap().into()))
            .unwrap()
    };
    assert_eq!(text("top"), text("base"));
    assert!(text("top").contains("/var/lib/machine/in/inner/file file"), "{}", text("top"));
    let inside = store.home().join("subvolumes/top/var/lib/machine/in/inner");
    assert_eq!(inside.metadata().unwrap().ino(), 256, "it is a subvolume, not a copy");
    assert_eq!(store.subvolumes().len(), 10);
    // The parent's are not the child's.
    fs::write(inside.join("file"), "changed").unwrap();
    assert_eq!(
        fs::read(store.home().join("subvolumes/base/var/lib/machine/in/inner/file")).unwrap(),
        b"inner"
    );
    subvolume(&["delete"], &[&store.home().join("subvolumes/top/gone")]);
    let changes: Vec<_> = layers
        .changes(&id("top"), layerstack_core::layers::Base::Parent)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    let wanted = [
        "D /gone",
        "C /var",
        "C /var/lib",
        "C /var/lib/machine",
        "C /var/lib/machine/in",
        "C /var/lib/machine/in/inner",
        "C /var/lib/machine/in/inner/file",
    ];
    assert_eq!(changes, wanted);
    layers.seal(&id("top")).unwrap();
    layers.remove(&id("top")).unwrap();
    assert_eq!(store.subvolumes().len(), 5);
    layers.remove(&id("base")).unwrap();
    assert_eq!(names(&store.home()), [""; 0]);
    assert_eq!(store.subvolumes(), [""; 0]);
}

#[test]
fn an_interrupted_removal_is_finished() {
    let store = Store::new();
    let driver = store.open();
    let base = create(&*driver, "base", None);
    fill(&base);
    // As a kill right after the rename leaves it.
    fs::rename(&base, store.home().join("subvolumes/.base")).unwrap();
    assert_eq!(driver.list().unwrap(), [id("base")]);
    assert_eq!(driver.find(&id("base")).unwrap(), None);
    driver.remove(&id("base")).unwrap();
    assert_eq!(store.subvolumes(), [""; 0]);
}

/// A name that leads nowhere for those who follow it, and out of the layer for those who do so carelessly.
#[test]
fn links_in_a_layer_lead_nowhere() {
    let store = Store::new();
    let driver = store.open();
    let outside = store.path().join("outside");
    subvolume(&["create"], &[&outside]);
    fs::create_dir(outside.join("sub")).unwrap();
    subvolume(&["create"], &[&outside.join("sub/kept")]);
    let base = create(&*driver, "base", None);
    fs::create_dir(base.join("d")).unwrap();
    subvolume(&["create"], &[&base.join("d/kept")]);
    fs::rename(base.join("d"), base.join("e")).unwrap();
    std::os::unix::fs::symlink(outside.join("sub"), base.join("d")).unwrap();
    driver.remove(&id("base")).unwrap();
    assert_eq!(store.subvolumes(), ["outside", "outside/sub/kept"]);
}
