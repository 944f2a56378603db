//! What `remove` takes away, and what it refuses to.

use std::fs;

use layerstack_core::ErrorKind;
use layerstack_core::layers::MountRequest;
use layerstack_core::options::Options;

use crate::case::{Verdict, cases, check, check_eq, refused};
use crate::files::{self, write};
use crate::scene::{Scene, grow, id, import, must_be_clean, sealed, snapshot};
use crate::tarball::{Item, Tarball};

cases!("remove.rs":
    an_unknown_layer_is_not_found,
    a_layer_with_children_is_not_removed,
    a_mounted_layer_is_not_removed,
    a_removed_layer_leaves_nothing,
    a_removed_layer_is_unknown_to_every_call,
    a_removed_id_can_be_created_again,
    parents_and_siblings_stay_as_they_are,
    a_parent_can_go_after_its_children,
    a_layer_with_anything_in_it_can_be_removed,
    a_link_in_a_layer_does_not_lead_removal_outside,
);

/// Mount, diff, remove, usage … of an unknown id: `NotFound`.
fn an_unknown_layer_is_not_found(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let before = scene.names()?;
    let error = refused(layers.remove(&id("missing")), ErrorKind::NotFound)?;
    check_eq!(error.layer(), Some(&id("missing")), "the layer that the error names");
    scene.must_have(&before)?;
    Ok(())
}

/// Remove a layer with children: refused, `HasChildren`, also where the back end could do it.
fn a_layer_with_children_is_not_removed(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "child", Some("base"), |root| write(&root.join("file"), "x"))?;
    let before = (snapshot(&*layers, "child")?, scene.names()?);
    refused(layers.remove(&id("base")), ErrorKind::HasChildren)?;
    scene.must_have(&before.1)?;
    snapshot(&*layers, "child")?.must_equal(&before.0, "the child afterwards")?;
    drop(layers);
    refused(scene.open()?.remove(&id("base")), ErrorKind::HasChildren).map(drop)
}

/// Remove a mounted layer: refused, `InUse`.
fn a_mounted_layer_is_not_removed(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "writable", None, files::sample)?;
    sealed(&*layers, "sealed", None, files::sample)?;
    let other = scene.open()?;
    for name in ["writable", "sealed"] {
        let mount = layers.mount(&id(name), &MountRequest::default())?;
        refused(layers.remove(&id(name)), ErrorKind::InUse)?;
        refused(other.remove(&id(name)), ErrorKind::InUse)?;
        check!(mount.target().join("etc/passwd").exists(), "layer {name} is damaged");
        mount.unmount()?;
        layers.remove(&id(name))?;
    }
    must_be_clean(&*layers)
}

/// Remove leaves no layer, directory, link, subvolume, dataset, device or mount behind.
fn a_removed_layer_leaves_nothing(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let before = scene.names()?;
    grow(&*layers, "writable", Some("base"), |root| write(&root.join("etc/passwd"), "changed"))?;
    sealed(&*layers, "sealed", Some("base"), |root| Ok(fs::remove_dir_all(root.join("etc"))?))?;
    grow(&*layers, "on-sealed", Some("sealed"), |root| write(&root.join("file"), "x"))?;
    for name in ["writable", "on-sealed", "sealed"] {
        layers.remove(&id(name))?;
    }
    scene.must_have(&before)?;
    must_be_clean(&*layers)
}

/// A removed layer is an unknown one: mount, diff, remove, usage … give `NotFound`.
fn a_removed_layer_is_unknown_to_every_call(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    layers.remove(&id("layer"))?;
    for layers in [&layers, &scene.open()?] {
        let layer = id("layer");
        check!(!layers.contains(&layer)?, "it is still there");
        check_eq!(layers.list()?, [], "the layers");
        refused(layers.layer(&layer), ErrorKind::NotFound)?;
        refused(layers.remove(&layer), ErrorKind::NotFound)?;
        refused(layers.mount(&layer, &MountRequest::default()), ErrorKind::NotFound)?;
    }
    Ok(())
}

/// An id that was removed is free, and nothing of the old layer is in the new one.
fn a_removed_id_can_be_created_again(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| write(&root.join("base"), "b"))?;
    sealed(&*layers, "layer", Some("base"), files::sample)?;
    layers.remove(&id("layer"))?;
    layers.create(&id("layer"), None, &Options::new())?;
    check_eq!(snapshot(&*layers, "layer")?.paths().len(), 0, "the number of files in the new layer");
    check_eq!(layers.layer(&id("layer"))?.parent, None, "its parent");
    layers.remove(&id("layer"))?;
    layers.create(&id("layer"), Some(&id("base")), &Options::new())?;
    let base = snapshot(&*layers, "base")?;
    snapshot(&*layers, "layer")?.must_equal(&base, "the layer created a third time")
}

/// Removing a layer changes no other.
fn parents_and_siblings_stay_as_they_are(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    for name in ["one", "two"] {
        sealed(&*layers, name, Some("base"), |root| write(&root.join(name), name))?;
    }
    grow(&*layers, "on-two", Some("two"), |root| write(&root.join("etc/passwd"), "changed"))?;
    let names = ["base", "two", "on-two"];
    let before = names.map(|name| snapshot(&*layers, name));
    layers.remove(&id("one"))?;
    for (name, before) in names.iter().zip(before) {
        snapshot(&*layers, name)?.must_equal(&before?, &format!("layer {name} afterwards"))?;
    }
    check_eq!(layers.list()?, [id("base"), id("on-two"), id("two")], "the layers left");
    must_be_clean(&*layers)
}

/// A layer without children can be removed: a parent when its children are gone, sealed or not.
fn a_parent_can_go_after_its_children(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let mut parent = None;
    let names = ["a", "b", "c", "d"];
    for name in names {
        sealed(&*layers, name, parent, |root| write(&root.join(name), name))?;
        parent = Some(name);
    }
    for name in &names[..3] {
        refused(layers.remove(&id(name)), ErrorKind::HasChildren)?;
    }
    for name in names.iter().rev() {
        layers.remove(&id(name))?;
    }
    check_eq!(layers.list()?, [], "the layers left");
    must_be_clean(&*layers)
}

/// A layer can be removed whatever is in it: closed directories, odd names, every kind of file, any depth.
fn a_layer_with_anything_in_it_can_be_removed(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "odd", None, |root| {
        files::sample(root)?;
        fs::create_dir_all(root.join("closed/in"))?;
        files::mode(&root.join("closed"), 0)?;
        write(&root.join("new\nline \u{7f}"), "x")?;
        files::special(&root.join("pipe"), rustix::fs::FileType::Fifo, 0)?;
        files::special(&root.join("socket"), rustix::fs::FileType::Socket, 0)?;
        files::special(&root.join("device"), rustix::fs::FileType::BlockDevice, rustix::fs::makedev(7, 200))
    })?;
    let deep = "directory-name/".repeat(600) + "file";
    import(&*layers, "deep", None, &Tarball::of([Item::file(&deep, "x")]))?;
    for name in ["odd", "deep"] {
        layers.remove(&id(name))?;
    }
    check_eq!(layers.list()?, [], "the layers left");
    must_be_clean(&*layers)
}

/// Removing a layer touches nothing outside it, wherever its links point.
fn a_link_in_a_layer_does_not_lead_removal_outside(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let outside = scene.work().join("outside");
    fs::create_dir(&outside)?;
    write(&outside.join("kept"), "x")?;
    grow(&*layers, "layer", None, |root| {
        for name in ["a", "z"] {
            std::os::unix::fs::symlink(&outside, root.join(name))?;
        }
        Ok(fs::create_dir(root.join("m"))?)
    })?;
    layers.remove(&id("layer"))?;
    check!(outside.join("kept").exists(), "a file outside the root is gone");
    Ok(())
}
