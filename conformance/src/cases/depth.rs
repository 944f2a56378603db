//! Chains as long as the driver says that they can be, and one layer longer.

use layerstack_core::ErrorKind;
use layerstack_core::layers::{Durability, MountRequest};
use layerstack_core::options::Options;

use crate::case::{Stop, Verdict, cases, check, check_eq, refused};
use crate::files::write;
use crate::scene::{Scene, changes, diff, id, import, must_be_clean, snapshot};
use crate::snapshot::{Kind, Snapshot, hash_of};
use crate::subject::Subject;
use crate::tarball::{Item, Tarball, names};

cases!("depth.rs":
    a_chain_of_the_declared_length_works,
    a_chain_one_layer_longer_is_refused,
    a_root_with_a_long_path_takes_the_same_chains,
);

/// How long a chain is tried where the driver declares no limit: more than Docker's 125 and overlay2's 128.
const WITHOUT_LIMIT: u32 = 150;

/// Opens a root whose layers need not survive a power loss, which would only make the case slow.
fn open(scene: &Scene, root: &std::path::Path) -> Verdict<Box<dyn Subject>> {
    Ok(scene.try_open(root, &scene.config().with_durability(Durability::Never))?)
}

fn name(level: u32) -> String {
    format!("level-{level:04}")
}

/// Whether the layer of a [`chain`] has files: those at both ends have, and the many between are only there.
fn has_files(level: u32, length: u32) -> bool {
    level <= 4 || level + 4 > length
}

/// Makes a chain of sealed layers, those at both ends with a file of their own and with their number in a file that
/// all of them have.
fn chain(layers: &dyn Subject, length: u32) -> Verdict {
    for level in 1..=length {
        let parent = (level > 1).then(|| name(level - 1));
        if has_files(level, length) {
            let tar =
                Tarball::of([Item::file(format!("of-{level}"), "x"), Item::file("level", level.to_string())]);
            import(layers, &name(level), parent.as_deref(), &tar)?;
        } else {
            layers.create(&id(&name(level)), parent.as_deref().map(id).as_ref(), &Options::new())?;
            layers.seal(&id(&name(level)))?;
        }
    }
    Ok(())
}

fn must_show_all(tree: &Snapshot, length: u32) -> Verdict {
    for level in (1..=length).filter(|level| has_files(*level, length)) {
        check!(tree.get(format!("of-{level}")).is_some(), "the file of level {level} of {length} is missing");
    }
    let text = length.to_string();
    let level = tree.get("level").map(|node| node.kind.clone());
    let wanted = Kind::File { size: text.len() as u64, hash: hash_of(text.as_bytes()) };
    check_eq!(level, Some(wanted), "the file that the layers change");
    Ok(())
}

/// The longest chain of layers that can be mounted is as long as the capabilities say, the topmost one counted.
fn a_chain_of_the_declared_length_works(scene: &Scene) -> Verdict {
    let layers = open(scene, &scene.root())?;
    let most = layers.capabilities().max_depth.unwrap_or(WITHOUT_LIMIT);
    chain(&*layers, most - 1)?;
    let below = name(most - 1);
    must_show_all(&snapshot(&*layers, &below)?, most - 1)?;
    layers.create(&id("top"), Some(&id(&below)), &Options::new())?;
    check_eq!(layers.layer(&id("top"))?.depth, most, "the depth of the topmost layer");
    let mount = layers.mount(&id("top"), &MountRequest::default())?;
    write(&mount.target().join("of-1"), "changed")?;
    std::fs::remove_file(mount.target().join("of-2"))?;
    let read = std::fs::read_to_string(mount.target().join("level"))?;
    check_eq!(read, (most - 1).to_string(), "the content of the file that the layers change");
    mount.unmount()?;
    check_eq!(changes(&*layers, "top")?, ["C /of-1", "D /of-2"], "the changes of the topmost layer");
    check_eq!(names(&diff(&*layers, "top")?)?.len(), 2, "the number of entries of its tar");
    check_eq!(layers.chain(&id("top"))?.len(), most as usize, "the length of its chain");
    layers.seal(&id("top"))?;
    check!(snapshot(&*layers, "top")?.get("of-2").is_none(), "a file that was removed is back");
    must_be_clean(&*layers)
}

/// A capability that is not offered: `Unsupported`, with the limit in the message; any failed call leaves nothing
/// behind.
fn a_chain_one_layer_longer_is_refused(scene: &Scene) -> Verdict {
    let layers = open(scene, &scene.root())?;
    let Some(most) = layers.capabilities().max_depth else {
        return Err(Stop::not_offered("the driver declares no limit"));
    };
    chain(&*layers, most)?;
    must_show_all(&snapshot(&*layers, &name(most))?, most)?;
    let before = scene.names()?;
    let error =
        refused(layers.create(&id("past"), Some(&id(&name(most))), &Options::new()), ErrorKind::Unsupported)?;
    check!(error.to_string().contains(&most.to_string()), "the error does not name the limit: {error}");
    let tar = Tarball::of([Item::file("x", "x")]);
    refused(import(&*layers, "past", Some(&name(most)), &tar), ErrorKind::Unsupported)?;
    scene.must_have(&before)?;
    layers.remove(&id(&name(most)))?;
    Ok(layers.create(&id("again"), Some(&id(&name(most - 1))), &Options::new())?)
}

/// The limit is one of layers, not of characters: it holds wherever the root is
/// (<https://github.com/containerd/containerd/issues/2497>, <https://github.com/containers/storage/issues/1159>).
fn a_root_with_a_long_path_takes_the_same_chains(scene: &Scene) -> Verdict {
    let root = (0..8).fold(scene.work(), |path, level| path.join(format!("{level}{}", "long".repeat(30))));
    let layers = open(scene, &root)?;
    let most = layers.capabilities().max_depth.unwrap_or(WITHOUT_LIMIT).min(WITHOUT_LIMIT);
    chain(&*layers, most)?;
    must_show_all(&snapshot(&*layers, &name(most))?, most)?;
    for level in (1..=most).rev() {
        layers.remove(&id(&name(level)))?;
    }
    Ok(())
}
