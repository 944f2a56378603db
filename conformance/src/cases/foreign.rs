//! Roots that others made, or that have lost the front's records.

use std::collections::BTreeMap;
use std::fs;

use layerstack_core::layers::{Config, LayerState};
use layerstack_core::{ErrorKind, LayerId};

use crate::case::{Verdict, cases, check, check_eq, refused};
use crate::files::{self, write};
use crate::scene::{Scene, grow, id, must_be_clean, sealed, snapshot};

cases!("foreign.rs":
    a_root_without_records_is_adopted,
    an_adopted_layer_can_be_sealed_and_built_upon,
    an_adopted_root_is_the_same_when_it_is_opened_again,
    the_driver_of_a_root_is_found_without_being_named,
    an_unknown_driver_is_refused_with_the_known_ones,
    what_is_no_layer_is_left_alone,
);

/// Makes three layers, one on another, and takes the records away.
fn without_records(scene: &Scene) -> Verdict<BTreeMap<LayerId, crate::snapshot::Snapshot>> {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "middle", Some("base"), |root| Ok(fs::remove_dir_all(root.join("etc/init"))?))?;
    grow(&*layers, "top", Some("middle"), |root| write(&root.join("etc/passwd"), "changed"))?;
    let mut trees = BTreeMap::new();
    for name in ["base", "middle", "top"] {
        trees.insert(id(name), snapshot(&*layers, name)?);
    }
    drop(layers);
    fs::remove_dir_all(scene.root().join("layerstack"))?;
    Ok(trees)
}

/// A root without records is adopted on open: every layer is there and whole; parents are those that the driver's
/// own files name; what cannot be known is asked for, not guessed.
fn a_root_without_records_is_adopted(scene: &Scene) -> Verdict {
    let trees = without_records(scene)?;
    let layers = scene.open()?;
    check_eq!(layers.list()?, trees.keys().cloned().collect::<Vec<_>>(), "the layers");
    check!(!layers.recovered().is_empty(), "what was adopted is not reported");
    for (layer, tree) in &trees {
        snapshot(&*layers, layer.as_str())?.must_equal(tree, &format!("the adopted layer {layer}"))?;
    }
    let parents = [("base", None), ("middle", Some(id("base"))), ("top", Some(id("middle")))];
    for (name, parent) in parents {
        let found = layers.layer(&id(name))?;
        let known = found.parent == parent;
        check!(known || found.parent.is_none(), "the parent of {name} is guessed: {:?}", found.parent);
        check!(
            found.state != LayerState::Writable || name == "top",
            "the sealed layer {name} is now writable"
        );
    }
    must_be_clean(&*layers)
}

/// A layer of which it is not known whether it is sealed can be sealed, and then stood on.
fn an_adopted_layer_can_be_sealed_and_built_upon(scene: &Scene) -> Verdict {
    let trees = without_records(scene)?;
    let layers = scene.open()?;
    for name in ["middle", "top"] {
        layers.seal(&id(name))?;
        let on = format!("on-{name}");
        grow(&*layers, &on, Some(name), |root| write(&root.join("added"), "x"))?;
        check_eq!(crate::scene::changes(&*layers, &on)?, ["A /added"], "the changes on {name}");
        layers.remove(&id(&on))?;
    }
    for (layer, tree) in &trees {
        snapshot(&*layers, layer.as_str())?.must_equal(tree, &format!("the adopted layer {layer}"))?;
    }
    must_be_clean(&*layers)
}

/// What was adopted is recorded: the next open finds nothing to mend.
fn an_adopted_root_is_the_same_when_it_is_opened_again(scene: &Scene) -> Verdict {
    without_records(scene)?;
    let layers = scene.open()?;
    let before: Vec<_> = layers.list()?.iter().map(|layer| layers.layer(layer)).collect();
    drop(layers);
    let layers = scene.open()?;
    let mended: Vec<_> = layers.recovered().iter().map(ToString::to_string).collect();
    check_eq!(mended, Vec::<String>::new(), "what the second open mended");
    for (layer, before) in layers.list()?.iter().zip(before) {
        check_eq!(layers.layer(layer)?, before?, "the record of {layer}");
    }
    Ok(())
}

/// Without a name the driver is the one already used in the root.
fn the_driver_of_a_root_is_found_without_being_named(scene: &Scene) -> Verdict {
    let name = scene.open()?.driver_name();
    grow(&*scene.open()?, "layer", None, files::sample)?;
    let layers = scene.try_open(&scene.root(), &Config::new())?;
    check_eq!(layers.driver_name(), name, "the driver");
    check_eq!(layers.list()?, [id("layer")], "the layers");
    Ok(())
}

/// An unknown name lists the known ones: `NotFound`, and nothing is made.
fn an_unknown_driver_is_refused_with_the_known_ones(scene: &Scene) -> Verdict {
    let config = Config::new().with_driver("no-such-driver");
    let error = refused(scene.try_open(&scene.root(), &config), ErrorKind::NotFound)?;
    let text = error.to_string();
    check!(text.contains("no-such-driver"), "the error does not name what was asked for: {text}");
    check!(text.contains(scene.registration().name), "the error does not name what there is: {text}");
    check!(!scene.root().exists(), "the root was made");
    Ok(())
}

/// What lies in a root and is no layer is nobody's debris.
fn what_is_no_layer_is_left_alone(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    drop(layers);
    write(&scene.root().join("README"), "of the administrator")?;
    files::directory(&scene.root().join("image/overlay2"))?;
    write(&scene.root().join("image/overlay2/repositories.json"), "{}")?;
    let before = scene.names()?;
    let layers = scene.open()?;
    must_be_clean(&*layers)?;
    layers.remove(&id("base"))?;
    for name in ["README", "image/overlay2/repositories.json"] {
        check!(before.iter().any(|line| line.ends_with(name)), "{name} was not there to begin with");
        check!(scene.root().join(name).exists(), "{name} is gone");
    }
    Ok(())
}
