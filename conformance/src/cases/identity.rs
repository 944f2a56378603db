//! What may name a layer, and that a name names one layer.

use layerstack_core::ErrorKind;
use layerstack_core::options::Options;

use crate::case::{Verdict, cases, check, check_eq, refused};
use crate::files::write;
use crate::scene::{Scene, id, sealed, snapshot};

cases!("identity.rs":
    a_name_outside_the_rule_is_no_id,
    every_form_of_id_can_be_used,
    ids_that_differ_in_case_are_different_layers,
    an_id_that_begins_like_another_is_another_layer,
    names_of_a_layout_are_free_for_layers,
);

/// A layer id that is empty, `.` or `..`, has `/` or NUL, starts with `-`, is over 128 bytes: `InvalidInput`.
fn a_name_outside_the_rule_is_no_id(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let long = "x".repeat(129);
    let names = [
        "",
        ".",
        "..",
        "/",
        "a/b",
        "../a",
        "a\0b",
        "-a",
        ".a",
        "a b",
        "a\n",
        "a:b",
        "a,b",
        "ä",
        "l",
        "empty",
        "staging",
        "a-removing",
        &long,
    ];
    for name in names {
        let error = refused(layers.id(name), ErrorKind::InvalidInput)?;
        check!(!error.to_string().is_empty(), "the error for {name:?} says nothing");
    }
    Ok(())
}

/// A layer is named by a `LayerId`: 1 to 128 bytes of `[A-Za-z0-9_.-]`, whichever they are.
fn every_form_of_id_can_be_used(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let long = "L".repeat(128);
    let hash = "0123456789abcdef".repeat(4);
    let mut parent: Option<&str> = None;
    let names = ["a", "0", "_", "a.b", "a-b_c.d", "abc-init", &hash, &long];
    for name in names {
        layers.id(name)?;
        sealed(&*layers, name, parent, |root| write(&root.join(format!("in-{name}")), name))?;
        parent = Some(name);
    }
    let tree = snapshot(&*layers, &long)?;
    check_eq!(tree.paths().len(), names.len(), "the files in the topmost layer");
    for name in names.iter().rev() {
        layers.remove(&id(name))?;
    }
    check_eq!(layers.list()?, [], "the layers left");
    Ok(())
}

/// Ids are bytes: those that differ in case only are different layers.
fn ids_that_differ_in_case_are_different_layers(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    for name in ["layer", "Layer", "LAYER"] {
        sealed(&*layers, name, None, |root| write(&root.join("name"), name))?;
    }
    for name in ["layer", "Layer", "LAYER"] {
        let tree = snapshot(&*layers, name)?;
        let wanted = crate::snapshot::hash_of(name.as_bytes());
        let kind = tree.get("name").map(|node| node.kind.clone());
        check_eq!(
            kind,
            Some(crate::snapshot::Kind::File { size: name.len() as u64, hash: wanted }),
            "the content of layer {name}"
        );
    }
    Ok(())
}

/// Removing or looking for a layer never meets another whose id begins or ends alike.
fn an_id_that_begins_like_another_is_another_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let names = ["ab", "abc", "abcd", "b", "abc-init"];
    for name in names {
        layers.create(&id(name), None, &Options::new())?;
    }
    check!(!layers.contains(&id("a"))?, "layer \"a\" is found, and was never created");
    refused(layers.remove(&id("a")), ErrorKind::NotFound)?;
    layers.remove(&id("abc"))?;
    let left: Vec<_> = layers.list()?.iter().map(ToString::to_string).collect();
    check_eq!(left, ["ab", "abc-init", "abcd", "b"], "the layers left");
    Ok(())
}

/// Names that a driver's own directories have are no ids; what is an id, a driver can hold, whatever its layout.
fn names_of_a_layout_are_free_for_layers(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let names = [
        "diff",
        "work",
        "merged",
        "lower",
        "link",
        "committed",
        "layers",
        "mnt",
        "dir",
        "subvolumes",
        "quotas",
        "graph",
        "metadata",
        "data",
        "base",
        "layerstack",
        "pending",
        "children",
        "mounts",
        "lock",
        "backingFsBlockDev",
        "tmp",
        "windows",
    ];
    for name in names {
        sealed(&*layers, name, None, |root| write(&root.join("file"), name))?;
    }
    let reopened = scene.open()?;
    check_eq!(reopened.list()?.len(), names.len(), "the layers after reopening");
    for name in names {
        check!(snapshot(&*reopened, name)?.get("file").is_some(), "layer {name} has lost its file");
        reopened.remove(&id(name))?;
    }
    check_eq!(reopened.list()?, [], "the layers left");
    Ok(())
}
