//! What `create` makes, and what it leaves alone.

use std::io::Write;
use std::path::Path;

use layerstack_core::layers::{Config, LayerState, MountRequest};
use layerstack_core::options::Options;
use layerstack_core::{ErrorKind, LayerId};

use crate::case::{Stop, Verdict, cases, check, check_eq, refused, refused_as_one_of};
use crate::files::{self, SAMPLE, write};
use crate::oracle;
use crate::scene::{Scene, changes, edit, grow, id, must_be_clean, sealed, snapshot};
use crate::snapshot::{Kind, Snapshot};
use crate::subject::Subject;

cases!("create.rs":
    a_base_layer_is_an_empty_directory,
    a_layer_starts_as_its_parent,
    a_layer_takes_over_its_parents_root_directory,
    a_new_layer_is_writable_and_knows_its_place,
    an_id_that_exists_is_refused,
    an_id_that_exists_is_refused_also_with_a_bad_parent,
    an_id_that_exists_is_refused_also_with_a_bad_option,
    a_parent_that_does_not_exist_is_not_found,
    a_parent_that_is_not_sealed_is_refused,
    a_live_layer_is_forked_as_it_is_at_that_moment,
    an_unknown_option_is_refused_with_the_known_ones,
    an_unknown_option_of_the_driver_is_refused_with_the_known_ones,
    a_layer_can_be_created_after_the_call_failed,
    layers_on_one_parent_are_independent,
    a_layer_is_there_after_reopening,
);

/// The root directory of a base layer is 0755 root:root, and there is nothing in it.
fn a_base_layer_is_an_empty_directory(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    layers.create(&id("base"), None, &Options::new())?;
    let tree = snapshot(&*layers, "base")?;
    check_eq!(tree.paths(), Vec::<&Path>::new(), "what is in a new base layer");
    let root = tree.get("").map(|root| (root.mode, root.owner, root.kind.clone(), root.xattrs.len()));
    check_eq!(root, Some((0o755, (0, 0), Kind::Directory, 0)), "its root directory");
    Ok(())
}

/// Makes the storage of a layer, its tree equal to the parent's.
fn a_layer_starts_as_its_parent(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("child"), Some(&id("base")), &Options::new())?;
    let parent = snapshot(&*layers, "base")?.without_root();
    check_eq!(parent.paths(), SAMPLE.map(Path::new), "the paths of the parent");
    snapshot(&*layers, "child")?.without_root().must_equal(&parent, "a new layer against its parent")
}

/// The root directory of the tree has the parent's mode, owner, times and extended attributes.
fn a_layer_takes_over_its_parents_root_directory(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let user = layers.capabilities().xattrs.contains(&"user.");
    sealed(&*layers, "base", None, |root| {
        write(&root.join("file"), "x")?;
        files::owner(root, 12, 34)?;
        files::mode(root, 0o1711)?;
        if user {
            files::xattr(root, "user.of-the-root", "kept")?;
        }
        files::mtime(root, 1_000_000_000, 123_456_789)
    })?;
    layers.create(&id("child"), Some(&id("base")), &Options::new())?;
    let of = |name: &str| Ok::<_, crate::case::Stop>(snapshot(&*layers, name)?.get("").cloned());
    check_eq!(of("child")?, of("base")?, "the root directory of a new layer");
    let root = of("child")?.map(|root| (root.mode, root.owner, root.mtime));
    check_eq!(root, Some((0o1711, (12, 34), (1_000_000_000, 123_456_789))), "the root directory");
    Ok(())
}

/// A layer is writable until it is sealed; it has its parent, and its depth is one more than the parent's.
fn a_new_layer_is_writable_and_knows_its_place(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    check!(!layers.contains(&id("base"))?, "a layer is there before it was created");
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("top"), Some(&id("base")), &Options::new())?;
    let top = layers.layer(&id("top"))?;
    check_eq!(top.state, LayerState::Writable, "the state of a new layer");
    check_eq!(top.parent, Some(id("base")), "its parent");
    check_eq!((layers.layer(&id("base"))?.depth, top.depth), (1, 2), "the depths");
    check_eq!(layers.chain(&id("top"))?, [id("top"), id("base")], "its chain");
    check_eq!(layers.children(&id("base"))?, [id("top")], "the children of its parent");
    check_eq!(layers.children(&id("top"))?, [], "its children");
    check_eq!(layers.list()?, [id("base"), id("top")], "the layers");
    check!(layers.contains(&id("top"))?, "a layer that was created is not there");
    Ok(())
}

/// Create an id that exists: `AlreadyExists`; the existing layer, its children and its links are untouched.
fn an_id_that_exists_is_refused(scene: &Scene) -> Verdict {
    existing_is_untouched(scene, |layers, existing| {
        for parent in [None, Some(id("other")), Some(id("base"))] {
            let again = layers.create(existing, parent.as_ref(), &Options::new());
            let error = refused(again, ErrorKind::AlreadyExists)?;
            check_eq!(error.layer(), Some(existing), "the layer that the error names");
        }
        Ok(())
    })
}

/// Create an id that exists: `AlreadyExists`, the existing layer untouched, also when the call had a bad parent.
fn an_id_that_exists_is_refused_also_with_a_bad_parent(scene: &Scene) -> Verdict {
    existing_is_untouched(scene, |layers, existing| {
        let again = layers.create(existing, Some(&id("missing")), &Options::new());
        refused(again, ErrorKind::AlreadyExists)?;
        let again = layers.create(existing, Some(existing), &Options::new());
        refused(again, ErrorKind::AlreadyExists).map(drop)
    })
}

/// Create an id that exists: `AlreadyExists`, the existing layer untouched, also when the call had a bad option.
fn an_id_that_exists_is_refused_also_with_a_bad_option(scene: &Scene) -> Verdict {
    existing_is_untouched(scene, |layers, existing| {
        let bad = Options::parse(["no-such-option=1"])?;
        refused(layers.create(existing, None, &bad), ErrorKind::AlreadyExists).map(drop)
    })
}

/// Tries what must be refused on a base layer and on a writable one, and compares everything before and after.
fn existing_is_untouched(scene: &Scene, attempt: impl Fn(&dyn Subject, &LayerId) -> Verdict) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "other", None, |root| write(&root.join("other"), "o"))?;
    grow(&*layers, "child", Some("base"), |root| write(&root.join("added"), "a"))?;
    let seen =
        |layers: &dyn Subject| -> Verdict<_> { Ok((snapshot(layers, "base")?, snapshot(layers, "child")?)) };
    let before = (seen(&*layers)?, scene.names()?);
    attempt(&*layers, &id("base"))?;
    attempt(&*layers, &id("child"))?;
    scene.must_have(&before.1)?;
    let after = seen(&*layers)?;
    after.0.must_equal(&before.0.0, "the existing layer")?;
    after.1.must_equal(&before.0.1, "its child")?;
    edit(&*layers, "child", |root| write(&root.join("added"), "b"))?;
    must_be_clean(&*layers)
}

/// Create on a parent that does not exist: `NotFound`; any failed call leaves nothing behind.
fn a_parent_that_does_not_exist_is_not_found(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let before = scene.names()?;
    let missing = layers.create(&id("child"), Some(&id("missing")), &Options::new());
    let error = refused(missing, ErrorKind::NotFound)?;
    check!(error.to_string().contains("missing"), "the error does not name the parent: {error}");
    let itself = layers.create(&id("child"), Some(&id("child")), &Options::new());
    refused(itself, ErrorKind::NotFound)?;
    scene.must_have(&before)?;
    check!(!layers.contains(&id("child"))?, "the layer is there");
    Ok(())
}

/// Create on a parent that is not sealed: `NotSealed`, unless the driver declares the capability to fork a live
/// layer; any failed call leaves nothing behind.
fn a_parent_that_is_not_sealed_is_refused(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "live", None, files::sample)?;
    let before = scene.names()?;
    let forked = layers.create(&id("child"), Some(&id("live")), &Options::new());
    if layers.capabilities().fork_live.offered() {
        forked?;
        edit(&*layers, "live", |root| write(&root.join("later"), "x"))?;
        check!(
            snapshot(&*layers, "child")?.get("later").is_none(),
            "a later change of the parent is in the child"
        );
        return Ok(());
    }
    refused(forked, ErrorKind::NotSealed)?;
    scene.must_have(&before)?;
    Ok(())
}

/// The capability to fork a live layer: a layer that is mounted and written to has children, each equal to it as it was
/// when the child was created, and independent of it from then on; its changes are those against the live layer.
fn a_live_layer_is_forked_as_it_is_at_that_moment(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    if let Some(reason) = layers.capabilities().fork_live.reason() {
        return Err(Stop::not_offered(format!("no forks: {reason}")));
    }
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("live"), Some(&id("base")), &Options::new())?;
    let mount = layers.mount(&id("live"), &MountRequest::default())?;
    let path = mount.target().join("log");
    let mut log = std::fs::File::create(&path)?;
    let mut forks = Vec::new();
    for count in 0..5_u8 {
        // Not flushed, by a file that stays open.
        log.write_all(&[count; 5000])?;
        let fork = format!("fork{count}");
        layers.create(&id(&fork), Some(&id("live")), &Options::new())?;
        forks.push((fork, Snapshot::read(mount.target())?));
    }
    write(&mount.target().join("later"), "x")?;
    std::fs::remove_dir_all(mount.target().join("etc/init"))?;
    for (fork, tree) in &forks {
        snapshot(&*layers, fork)?.must_equal(tree, &format!("the layer {fork}"))?;
    }
    let live = Snapshot::read(mount.target())?;
    edit(&*layers, "fork0", |root| write(&root.join("own"), "y"))?;
    Snapshot::read(mount.target())?.must_equal(&live, "the live layer, a fork of which changed")?;
    for (fork, _) in &forks {
        let found = changes(&*layers, fork)?;
        oracle::must_list(&found, &live, &snapshot(&*layers, fork)?)?;
    }
    drop(log);
    refused_as_one_of(layers.remove(&id("live")), &[ErrorKind::HasChildren, ErrorKind::InUse])?;
    mount.unmount()?;
    refused(layers.remove(&id("live")), ErrorKind::HasChildren)?;
    must_be_clean(&*layers)?;
    layers.seal(&id("live"))?;
    snapshot(&*layers, "live")?.must_equal(&live, "the layer that was live")?;
    for (fork, _) in &forks {
        layers.remove(&id(fork))?;
    }
    layers.remove(&id("live"))?;
    must_be_clean(&*layers)
}

/// An option the driver does not know: `InvalidInput` naming the option and the known ones.
fn an_unknown_option_is_refused_with_the_known_ones(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    layers.create(&id("before"), None, &Options::new())?;
    let before = scene.names()?;
    let unknown = Options::parse(["no-such-option=1"])?;
    let error = refused(layers.create(&id("layer"), None, &unknown), ErrorKind::InvalidInput)?;
    let text = error.to_string();
    check!(text.contains("no-such-option"), "the error does not name the option: {text}");
    for known in scene.registration().layer_options {
        check!(text.contains(known.name), "the error does not name the known option {}: {text}", known.name);
    }
    scene.must_have(&before)?;
    Ok(())
}

/// An option the driver does not know: `InvalidInput` naming the option and the known ones; any failed call
/// leaves nothing behind.
fn an_unknown_option_of_the_driver_is_refused_with_the_known_ones(scene: &Scene) -> Verdict {
    let config: Config = scene.config().with_option("no.such.option", "1");
    let error = refused(scene.try_open(&scene.root(), &config), ErrorKind::InvalidInput)?;
    let text = error.to_string();
    check!(text.contains("no.such.option"), "the error does not name the option: {text}");
    for known in scene.registration().options {
        check!(text.contains(known.name), "the error does not name the known option {}: {text}", known.name);
    }
    let left = std::fs::read_dir(scene.root()).map_or(0, Iterator::count);
    check_eq!(left, 0, "the number of names that the failed open left in the root");
    Ok(())
}

/// Any failed call leaves nothing behind, so that the right call can be made afterwards.
fn a_layer_can_be_created_after_the_call_failed(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let unknown = Options::parse(["no-such-option=1"])?;
    let attempts = [
        layers.create(&id("layer"), Some(&id("base")), &Options::new()),
        layers.create(&id("layer"), None, &unknown),
    ];
    check!(attempts.iter().all(std::result::Result::is_err), "a wrong call succeeded");
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("layer"), Some(&id("base")), &Options::new())?;
    let parent = snapshot(&*layers, "base")?;
    snapshot(&*layers, "layer")?.must_equal(&parent, "the layer against its parent")?;
    must_be_clean(&*layers)
}

/// A layer is a file tree of its own: what is written to it shows in no other layer.
fn layers_on_one_parent_are_independent(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let before = snapshot(&*layers, "base")?;
    for name in ["one", "two"] {
        layers.create(&id(name), Some(&id("base")), &Options::new())?;
    }
    edit(&*layers, "one", |root| {
        write(&root.join("etc/passwd"), "changed in one")?;
        write(&root.join("usr/bin/alias"), "changed in one")?;
        files::mode(&root.join("tmp"), 0o700)?;
        Ok(std::fs::remove_dir_all(root.join("etc/init"))?)
    })?;
    snapshot(&*layers, "two")?.must_equal(&before, "a layer whose sibling changed")?;
    snapshot(&*layers, "base")?.must_equal(&before, "the parent of a layer that changed")
}

/// What was created is there for the next who opens the root, with its parent, state and content.
fn a_layer_is_there_after_reopening(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| write(&root.join("added"), "a"))?;
    let before = snapshot(&*layers, "top")?;
    drop(layers);
    let layers = scene.open()?;
    check_eq!(layers.list()?, [id("base"), id("top")], "the layers after reopening");
    let top = layers.layer(&id("top"))?;
    check_eq!((top.state, top.parent), (LayerState::Writable, Some(id("base"))), "the topmost layer");
    check_eq!(layers.layer(&id("base"))?.state, LayerState::Sealed, "the state of the base layer");
    snapshot(&*layers, "top")?.must_equal(&before, "the topmost layer")?;
    must_be_clean(&*layers)
}
