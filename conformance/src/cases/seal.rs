//! What sealing promises.

use layerstack_core::ErrorKind;
use layerstack_core::layers::{LayerState, MountRequest};
use layerstack_core::mount::Access;
use layerstack_core::options::Options;

use crate::case::{Verdict, cases, check, check_eq, refused};
use crate::files::{self, write};
use crate::scene::{Scene, edit, grow, id, sealed, snapshot};
use crate::tarball::{Item, Tarball};

cases!("seal.rs":
    a_sealed_layer_says_so,
    sealing_an_unknown_layer_is_not_found,
    a_mounted_layer_is_not_sealed,
    a_sealed_layer_is_not_written_to_through_a_mount,
    a_sealed_layer_has_no_writable_mount,
    a_sealed_layer_takes_no_tar,
    sealing_again_changes_nothing,
    a_sealed_layer_never_changes,
    what_was_sealed_is_the_same_after_reopening,
);

/// A layer is writable until it is sealed.
fn a_sealed_layer_says_so(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    check_eq!(layers.layer(&id("layer"))?.state, LayerState::Writable, "the state before");
    layers.seal(&id("layer"))?;
    check_eq!(layers.layer(&id("layer"))?.state, LayerState::Sealed, "the state afterwards");
    Ok(())
}

/// Mount, diff, remove, usage … of an unknown id: `NotFound`.
fn sealing_an_unknown_layer_is_not_found(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let error = refused(layers.seal(&id("missing")), ErrorKind::NotFound)?;
    check_eq!(error.layer(), Some(&id("missing")), "the layer that the error names");
    Ok(())
}

/// A sealed layer never changes: one that is mounted is not sealed, `InUse`.
fn a_mounted_layer_is_not_sealed(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    layers.create(&id("layer"), None, &Options::new())?;
    let mount = layers.mount(&id("layer"), &MountRequest::default())?;
    refused(layers.seal(&id("layer")), ErrorKind::InUse)?;
    write(&mount.target().join("file"), "still writable")?;
    mount.unmount()?;
    check_eq!(layers.layer(&id("layer"))?.state, LayerState::Writable, "the state afterwards");
    Ok(layers.seal(&id("layer"))?)
}

/// Write to a sealed layer through a mount: `EROFS` from the kernel.
fn a_sealed_layer_is_not_written_to_through_a_mount(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "layer", None, files::sample)?;
    let before = snapshot(&*layers, "layer")?;
    let mount = layers.mount(&id("layer"), &MountRequest::default())?;
    let root = mount.target().to_owned();
    let attempts = [
        ("make a file", std::fs::write(root.join("new"), "x")),
        ("overwrite", std::fs::write(root.join("etc/passwd"), "x")),
        ("make a directory", std::fs::create_dir(root.join("new"))),
        ("remove", std::fs::remove_file(root.join("etc/passwd"))),
        ("rename", std::fs::rename(root.join("empty"), root.join("full"))),
        (
            "change the mode",
            std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o700)),
        ),
    ];
    for (what, attempt) in attempts {
        let code = attempt.err().and_then(|error| error.raw_os_error());
        check_eq!(
            code,
            Some(rustix::io::Errno::ROFS.raw_os_error()),
            "the error number of the attempt to {what}"
        );
    }
    mount.unmount()?;
    snapshot(&*layers, "layer")?.must_equal(&before, "the layer afterwards")
}

/// A sealed layer never changes: a writable mount of it is refused, `InvalidInput`.
fn a_sealed_layer_has_no_writable_mount(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "layer", None, files::sample)?;
    let request = MountRequest::default().with_access(Access::ReadWrite);
    refused(layers.mount(&id("layer"), &request), ErrorKind::InvalidInput)?;
    refused(layers.mount_plan(&id("layer"), Access::ReadWrite), ErrorKind::InvalidInput)?;
    check_eq!(crate::kernel::mounts_below(&scene.root())?.len(), 0, "the number of mounts left");
    Ok(())
}

/// A sealed layer never changes: a tar is not applied to it, and it stays as it is.
fn a_sealed_layer_takes_no_tar(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "layer", None, files::sample)?;
    let before = snapshot(&*layers, "layer")?;
    let tar = Tarball::of([Item::file("new", "x")]);
    refused(layers.apply(&id("layer"), &mut &tar[..]), ErrorKind::InvalidInput)?;
    check!(layers.contains(&id("layer"))?, "the sealed layer is gone");
    snapshot(&*layers, "layer")?.must_equal(&before, "the layer afterwards")
}

/// Sealing a sealed layer does nothing.
fn sealing_again_changes_nothing(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "layer", None, files::sample)?;
    let before = (layers.layer(&id("layer"))?, snapshot(&*layers, "layer")?);
    layers.seal(&id("layer"))?;
    check_eq!(layers.layer(&id("layer"))?, before.0, "the layer's record");
    snapshot(&*layers, "layer")?.must_equal(&before.1, "the layer")
}

/// A sealed layer never changes, whatever is done to the layers on it.
fn a_sealed_layer_never_changes(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let before = snapshot(&*layers, "base")?;
    grow(&*layers, "top", Some("base"), |root| {
        write(&root.join("usr/bin/alias"), "changed")?;
        files::mode(&root.join("etc"), 0o700)?;
        files::owner(&root.join("empty"), 5, 5)?;
        files::mtime(&root.join("bin"), 1, 1)?;
        std::fs::rename(root.join("etc/passwd"), root.join("passwd"))?;
        Ok(std::fs::remove_dir_all(root.join("tmp"))?)
    })?;
    snapshot(&*layers, "base")?.must_equal(&before, "the parent of a changed layer")?;
    layers.remove(&id("top"))?;
    snapshot(&*layers, "base")?.must_equal(&before, "the parent of a removed layer")
}

/// What was sealed is there for the next who opens the root, byte for byte.
fn what_was_sealed_is_the_same_after_reopening(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "top", Some("base"), |root| write(&root.join("etc/passwd"), "changed"))?;
    let before = (snapshot(&*layers, "base")?, snapshot(&*layers, "top")?);
    drop(layers);
    let layers = scene.open()?;
    check_eq!(layers.layer(&id("top"))?.state, LayerState::Sealed, "the state");
    snapshot(&*layers, "base")?.must_equal(&before.0, "the base layer")?;
    snapshot(&*layers, "top")?.must_equal(&before.1, "the topmost layer")?;
    check!(edit(&*layers, "top", |root| write(&root.join("x"), "x")).is_err(), "it can be written to");
    Ok(())
}
