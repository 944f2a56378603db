//! What the front says of a root and of a layer.

use std::fs;

use layerstack_core::ErrorKind;
use layerstack_core::options::Options;

use crate::case::{Stop, Verdict, cases, check, check_eq, refused};
use crate::files::{self, write};
use crate::scene::{Scene, edit, grow, id, must_be_clean, sealed};

cases!("status.rs":
    the_status_names_driver_and_root,
    a_layers_pieces_are_named,
    pieces_and_usage_of_an_unknown_layer_are_not_found,
    usage_follows_what_is_written,
    usage_does_not_count_what_is_the_parents,
    a_check_of_a_whole_root_finds_nothing,
    a_check_finds_a_layer_whose_storage_is_gone,
    errors_name_driver_operation_and_layer,
);

/// `status()` is structured data from which the text of `docker info` can be printed.
fn the_status_names_driver_and_root(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let status = layers.status()?;
    let name = scene.registration().name;
    check_eq!((layers.driver_name(), status.driver.as_str()), (name, name), "the driver");
    check!(status.root.starts_with(scene.root()), "the root directory is {}", status.root.display());
    check!(!status.backing_file_system.is_empty(), "the backing file system is not named");
    let text = status.to_string();
    check!(text.starts_with(&format!("Storage Driver: {name}\n")), "the text begins otherwise: {text}");
    check!(text.contains("Backing Filesystem: "), "the text does not name the backing file system: {text}");
    for (key, value) in &status.entries {
        check!(text.contains(&format!(" {key}: {value}\n")), "the text lacks {key}: {text}");
    }
    Ok(())
}

/// `inspect()`: where the layer's pieces are, the same at every time.
fn a_layers_pieces_are_named(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| write(&root.join("file"), "x"))?;
    let (base, top) = (layers.inspect(&id("base"))?, layers.inspect(&id("top"))?);
    check!(!top.is_empty(), "nothing is named");
    check!(top.values().all(|value| !value.is_empty()), "something named is empty: {top:?}");
    check!(base != top, "two layers have the same pieces: {top:?}");
    check_eq!(scene.open()?.inspect(&id("top"))?, top, "the pieces after reopening");
    Ok(())
}

/// Mount, diff, remove, usage … of an unknown id: `NotFound`.
fn pieces_and_usage_of_an_unknown_layer_are_not_found(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let missing = id("missing");
    refused(layers.usage(&missing), ErrorKind::NotFound)?;
    refused(layers.inspect(&missing), ErrorKind::NotFound)?;
    refused(layers.layer(&missing), ErrorKind::NotFound)?;
    refused(layers.chain(&missing), ErrorKind::NotFound)?;
    refused(layers.children(&missing), ErrorKind::NotFound)?;
    check!(!layers.contains(&missing)?, "it is there");
    Ok(())
}

/// `usage()`: bytes and inodes of a layer grow with what is written, and shrink with what is removed.
fn usage_follows_what_is_written(scene: &Scene) -> Verdict {
    const SIZE: u64 = 4 << 20;
    let layers = scene.open()?;
    layers.create(&id("layer"), None, &Options::new())?;
    let measure = || -> Verdict<_> {
        layerstack_core::fs::sync_file_system(&scene.root())?;
        Ok(layers.usage(&id("layer"))?)
    };
    let before = measure()?;
    edit(&*layers, "layer", |root| {
        let content: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(SIZE as usize).collect();
        write(&root.join("large"), content)?;
        (0..50).try_for_each(|count| write(&root.join(format!("f{count}")), "x"))
    })?;
    let after = measure()?;
    let grown = after.bytes.saturating_sub(before.bytes);
    check!(
        (SIZE..SIZE * 2).contains(&grown),
        "{SIZE} bytes and 50 small files made the layer grow by {grown}"
    );
    if let (Some(before), Some(after)) = (before.inodes, after.inodes) {
        check!(after >= before + 51, "51 files made the inodes grow from {before} to {after}");
    }
    edit(&*layers, "layer", |root| Ok(fs::remove_file(root.join("large"))?))?;
    let less = measure()?;
    check!(
        less.bytes + SIZE <= after.bytes,
        "removing {SIZE} bytes leaves {} of {}",
        less.bytes,
        after.bytes
    );
    Ok(())
}

/// What a layer shares with its parent is not counted where the back end can tell.
fn usage_does_not_count_what_is_the_parents(scene: &Scene) -> Verdict {
    const SIZE: u64 = 8 << 20;
    let layers = scene.open()?;
    if let Some(reason) = layers.capabilities().usage_without_walk.reason()
        && !layers.capabilities().native_diff.offered()
    {
        return Err(Stop::not_offered(format!("the back end cannot tell: {reason}")));
    }
    sealed(&*layers, "base", None, |root| {
        let content: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(SIZE as usize).collect();
        write(&root.join("large"), content)
    })?;
    grow(&*layers, "top", Some("base"), |root| write(&root.join("small"), "x"))?;
    layerstack_core::fs::sync_file_system(&scene.root())?;
    let (base, top) = (layers.usage(&id("base"))?, layers.usage(&id("top"))?);
    check!(base.bytes >= SIZE, "the parent has {} bytes", base.bytes);
    check!(top.exclusive.unwrap_or(top.bytes) < SIZE / 2, "the layer counts its parent's bytes: {top:?}");
    Ok(())
}

/// `check` reports what does not agree: in a root that was only used, nothing.
fn a_check_of_a_whole_root_finds_nothing(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    must_be_clean(&*layers)?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "one", Some("base"), |root| write(&root.join("one"), "1"))?;
    sealed(&*layers, "two", Some("base"), |root| write(&root.join("two"), "2"))?;
    let mount = layers.mount(&id("one"), &layerstack_core::layers::MountRequest::default())?;
    must_be_clean(&*layers)?;
    mount.unmount()?;
    layers.remove(&id("two"))?;
    must_be_clean(&*layers)?;
    must_be_clean(&*scene.open()?)
}

/// `check` reports what does not agree: a layer of which only the record is there.
fn a_check_finds_a_layer_whose_storage_is_gone(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    // Writable: what is in a sealed layer cannot be taken away everywhere.
    grow(&*layers, "lost", None, files::sample)?;
    let home = layers.home().to_owned();
    let pieces: Vec<_> = layers
        .inspect(&id("lost"))?
        .into_values()
        .map(std::path::PathBuf::from)
        .filter(|piece| piece.starts_with(&home) && piece.is_dir())
        .collect();
    if pieces.is_empty() {
        return Err(Stop::not_offered("the driver's layers are not directories that one could take away"));
    }
    for piece in pieces {
        // A piece may be a part of another that has just gone.
        let _ = fs::remove_dir_all(piece);
    }
    let findings = layers.check()?;
    check!(findings.iter().any(|finding| finding.layer == id("lost")), "the check finds {findings:?}");
    check!(findings.iter().all(|finding| finding.layer != id("base")), "the check finds {findings:?}");
    Ok(())
}

/// An error has its context: driver, operation, layer.
fn errors_name_driver_operation_and_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let missing = id("missing");
    let errors = [
        layers.remove(&missing).err(),
        layers.seal(&missing).err(),
        layers.mount(&missing, &layerstack_core::layers::MountRequest::default()).err(),
        layers.create(&missing, Some(&missing), &Options::new()).err(),
        layers.usage(&missing).err(),
    ];
    for error in errors {
        let error = error.ok_or_else(|| Stop::failed("a call for a missing layer succeeded"))?;
        check_eq!(error.driver(), Some(scene.registration().name), "the driver that {error} names");
        check!(error.operation().is_some(), "{error} names no operation");
        check_eq!(error.layer(), Some(&missing), "the layer that {error} names");
    }
    Ok(())
}
