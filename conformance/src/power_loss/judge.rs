//! Judging what a power loss left by what was promised before.

use std::collections::BTreeSet;
use std::path::Path;

use layerstack_core::layers::{Base, Recovered};
use layerstack_core::{Layer, LayerState};

use super::Promises;
use super::content::{Name, Role, Trees};
use crate::case::{Stop, Verdict, check};
use crate::scene::{self, id};
use crate::snapshot::Snapshot;
use crate::subject::Subject;

/// What is there, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Sealed layers with exactly their content.
    pub(super) sealed: BTreeSet<String>,
    /// The others.
    pub(super) others: BTreeSet<String>,
    /// What must not be, a line each.
    pub(super) troubles: Vec<String>,
}

impl Judgement {
    pub(super) fn is_there(&self, name: &str) -> bool {
        self.sealed.contains(name) || self.others.contains(name)
    }

    /// Fails where anything is wrong.
    pub(super) fn must_be_good(&self) -> Verdict {
        check!(self.troubles.is_empty(), "after a power loss:\n    {}", self.troubles.join("\n    "));
        Ok(())
    }
}

/// Judges a root that has just been opened.
pub(super) fn judge(layers: &dyn Subject, promises: &Promises) -> Verdict<Judgement> {
    let mut judgement = Judgement::default();
    for recovered in layers.recovered() {
        if let Recovered::Unusable { .. } = recovered {
            judgement.troubles.push(format!("recovery: {recovered}"));
        }
    }
    judgement.troubles.extend(layers.check()?.iter().map(|finding| format!("check: {finding}")));
    judgement.troubles.extend(layers.mounts(None)?.iter().map(|mount| format!("still there: {mount:?}")));
    layers.status()?;
    let there: BTreeSet<String> = layers.list()?.iter().map(ToString::to_string).collect();
    for name in promises.sealed.difference(&there) {
        judgement.troubles.push(format!("{name}: it was sealed, and is lost"));
    }
    let mut trees = Trees::default();
    for name in there {
        let promised = promises.sealed.contains(&name);
        if !promised && !promises.doubtful.contains(&name) {
            judgement.troubles.push(format!("{name}: it was gone, or nobody has made it, and it is there"));
        }
        match look(layers, &name, promised, &mut trees) {
            Ok(LayerState::Sealed) => drop(judgement.sealed.insert(name)),
            Ok(_) => drop(judgement.others.insert(name)),
            Err(stop) => judgement.troubles.push(format!("{name}: {}", stop.reason())),
        }
    }
    Ok(judgement)
}

/// Looks at a layer, which must be whole.
fn look(layers: &dyn Subject, text: &str, promised: bool, trees: &mut Trees) -> Verdict<LayerState> {
    let layer = layers.layer(&id(text))?;
    let name = Name::parse(text).ok_or_else(|| Stop::failed("no victim gives such a name"))?;
    check!(!promised || layer.state == LayerState::Sealed, "it was sealed, and is {:?}", layer.state);
    let seen = scene::snapshot(layers, text)?.without_root();
    if layer.state == LayerState::Sealed {
        let parent = name.parent().map(|parent| parent.to_string());
        check!(
            layer.parent.as_ref().map(ToString::to_string) == parent,
            "it stands on {:?}, must stand on {parent:?}",
            layer.parent
        );
        seen.must_equal(&trees.of(name), "its content")?;
        return Ok(layer.state);
    }
    if name.role == Role::Container {
        look_at_container(&layer, seen, trees)?;
    }
    if layer.state == LayerState::Writable {
        scene::edit(layers, text, |_| Ok(()))?;
    }
    layers.changes(&layer.id, Base::Parent)?;
    Ok(layer.state)
}

/// What a container has written may be lost, what it stands on is whole.
fn look_at_container(layer: &Layer, mut seen: Snapshot, trees: &mut Trees) -> Verdict {
    let parent = layer.parent.as_ref().and_then(|parent| Name::parse(parent.as_str()));
    let parent = parent.ok_or_else(|| Stop::failed("the container stands on nothing"))?;
    seen.nodes.retain(|path, _| !path.starts_with(Path::new(layer.id.as_str())));
    seen.must_equal(&trees.of(parent), "what the container has of its parent")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use layerstack_core::layers::{Config, Layers};
    use layerstack_core::options::Options;
    use layerstack_core::registry::Registry;

    use super::*;

    /// A root of vfs with the sealed layers i1-0 and i1-1, and the container w1-1 on the second.
    struct Root(tempfile::TempDir);

    impl Root {
        fn new() -> Self {
            let root = Self(tempfile::tempdir().unwrap());
            let layers = root.open();
            let layers: &dyn Subject = &layers;
            for text in ["i1-0", "i1-1"] {
                let name = Name::parse(text).unwrap();
                let parent = name.parent().map(|parent| parent.to_string());
                scene::import(layers, text, parent.as_deref(), &name.tar()).unwrap();
            }
            layers.create(&id("w1-1"), Some(&id("i1-1")), &Options::new()).unwrap();
            root
        }

        fn open(&self) -> Layers {
            let registry = Registry::new(&[&layerstack_vfs::REGISTRATION]).unwrap();
            Layers::open(self.0.path(), &registry, &Config::new()).unwrap()
        }

        /// A directory below which a layer's tree is.
        fn layer(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join("vfs/dir").join(name)
        }

        fn troubles(&self, sealed: &[&str], doubtful: &[&str]) -> Vec<String> {
            let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let promises = Promises { sealed: set(sealed), doubtful: set(doubtful) };
            judge(&self.open(), &promises).unwrap().troubles
        }
    }

    const SEALED: [&str; 2] = ["i1-0", "i1-1"];

    #[track_caller]
    fn must_be_one(troubles: &[String], parts: &[&str]) {
        let good = troubles.len() == 1 && parts.iter().all(|part| troubles[0].contains(part));
        assert!(good, "{troubles:?} should be one that has {parts:?}");
    }

    #[test]
    fn what_is_as_promised_is_good() {
        let root = Root::new();
        assert_eq!(root.troubles(&SEALED, &["w1-1"]), Vec::<String>::new());
        assert_eq!(root.troubles(&SEALED[..1], &["i1-1", "w1-1", "i1-2"]), Vec::<String>::new());
    }

    #[test]
    fn a_sealed_layer_that_is_lost_is_found() {
        let root = Root::new();
        must_be_one(
            &root.troubles(&["i1-0", "i1-1", "i1-2"], &["w1-1"]),
            &["i1-2: it was sealed, and is lost"],
        );
        // As a power loss would leave it that took the directory and not the record, which others stand on.
        fs::remove_dir_all(root.layer("i1-1")).unwrap();
        let troubles = root.troubles(&SEALED, &["w1-1"]);
        assert!(troubles.iter().any(|trouble| trouble.starts_with("check: layer i1-1: ")), "{troubles:?}");
        assert!(troubles.iter().any(|trouble| trouble.starts_with("i1-1: ")), "{troubles:?}");
    }

    #[test]
    fn a_layer_that_is_there_and_must_not_be_is_found() {
        must_be_one(&Root::new().troubles(&SEALED, &[]), &["w1-1: it was gone"]);
    }

    #[test]
    fn a_sealed_layer_that_has_changed_is_found() {
        for (name, promised) in [("i1-1", true), ("i1-1", false)] {
            let change = |change: &dyn Fn(&Path)| {
                let root = Root::new();
                change(&root.layer(name));
                let (sealed, doubtful) = if promised {
                    (&SEALED[..], &["w1-1"][..])
                } else {
                    (&SEALED[..1], &["i1-1", "w1-1"][..])
                };
                root.troubles(sealed, doubtful)
            };
            let gone = change(&|layer| fs::remove_file(layer.join("i1-1/f1")).unwrap());
            must_be_one(&gone, &["i1-1: its content", "\"i1-1/f1\" is missing"]);
            let empty = change(&|layer| fs::write(layer.join("shared"), "").unwrap());
            must_be_one(&empty, &["i1-1: its content", "\"shared\" is "]);
            let more = change(&|layer| fs::write(layer.join("more"), "").unwrap());
            must_be_one(&more, &["i1-1: its content", "\"more\" must not be there"]);
        }
    }

    #[test]
    fn a_sealed_layer_that_is_no_longer_sealed_is_found() {
        must_be_one(
            &Root::new().troubles(&["i1-0", "i1-1", "w1-1"], &[]),
            &["w1-1: it was sealed, and is Writable"],
        );
    }

    #[test]
    fn a_container_that_lacks_something_of_its_image_is_found() {
        let root = Root::new();
        fs::create_dir(root.layer("w1-1").join("w1-1")).unwrap();
        assert_eq!(root.troubles(&SEALED, &["w1-1"]), Vec::<String>::new());
        fs::write(root.layer("w1-1").join("shared"), "").unwrap();
        must_be_one(&root.troubles(&SEALED, &["w1-1"]), &["w1-1: what the container has of its parent"]);
    }
}
