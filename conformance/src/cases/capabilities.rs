//! What a driver says that it can do: proven. What it says that it cannot: refused, with the reason.

use std::fs;

use layerstack_core::ErrorKind;
use layerstack_core::driver::Candidates;
use layerstack_core::options::Options;
use layerstack_core::registry::OpenRequest;

use crate::case::{Stop, Verdict, cases, check, check_eq};
use crate::files::{self, write};
use crate::kernel;
use crate::scene::{Scene, edit, grow, id, import, sealed};
use crate::tarball::{Item, Tarball};

cases!("capabilities.rs":
    what_is_not_offered_has_a_reason,
    capabilities_are_the_same_at_every_open,
    a_native_diff_looks_at_less_than_everything,
    what_is_shared_with_the_parent_takes_no_space,
    every_declared_name_space_of_attributes_is_kept,
    the_longest_name_can_be_used_and_no_longer_one,
    an_unavailable_driver_says_what_is_missing,
);

/// Capabilities are structured, with limits and, where off, the reason.
fn what_is_not_offered_has_a_reason(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let capabilities = layers.capabilities();
    for (name, feature) in capabilities.features() {
        if let Some(reason) = feature.reason() {
            check!(reason.len() > 5, "the reason why {name} is off is {reason:?}");
            check!(!reason.ends_with('.'), "the reason why {name} is off is no fragment: {reason:?}");
        }
    }
    check_eq!(
        capabilities.quota_kind.is_some(),
        capabilities.quota.offered(),
        "whether it is said what quota counts"
    );
    check!(
        capabilities.max_depth.is_none_or(|most| most >= 2),
        "the longest chain is {:?}",
        capabilities.max_depth
    );
    check!((14..=255).contains(&capabilities.max_name), "the longest name is {}", capabilities.max_name);
    Ok(())
}

/// Found out at open, constant since.
fn capabilities_are_the_same_at_every_open(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let before = layers.capabilities().clone();
    grow(&*layers, "layer", None, files::sample)?;
    check_eq!(*layers.capabilities(), before, "the capabilities after a layer was made");
    check_eq!(*scene.open()?.capabilities(), before, "the capabilities after reopening");
    Ok(())
}

/// A native diff: the candidates are narrower than the whole tree.
fn a_native_diff_looks_at_less_than_everything(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    if let Some(reason) = layers.capabilities().native_diff.reason() {
        return Err(Stop::not_offered(format!("no native diff: {reason}")));
    }
    let tar = Tarball::of((0..500).map(|count| Item::file(format!("d{}/f{count}", count % 10), "x")));
    import(&*layers, "base", None, &tar)?;
    grow(&*layers, "top", Some("base"), |root| {
        write(&root.join("d3/f3"), "changed")?;
        Ok(fs::remove_file(root.join("d4/f4"))?)
    })?;
    let home = layers.home().to_owned();
    drop(layers);
    let options = Options::new();
    let driver = (scene.registration().open)(&OpenRequest::new(&home, &options))?;
    match driver.candidates(&id("top"))? {
        Candidates::All { .. } => Err(Stop::failed("the driver says that it narrows, and gives everything")),
        Candidates::Paths(paths) => {
            let paths = paths.collect::<layerstack_core::Result<Vec<_>>>()?;
            check!(paths.len() < 20, "{} candidates for two changes", paths.len());
            for changed in ["d3/f3", "d4/f4"] {
                let found =
                    paths.iter().any(|candidate| std::path::Path::new(changed).starts_with(&candidate.path));
                check!(found, "{changed} is not among the candidates: {paths:?}");
            }
            Ok(())
        }
    }
}

/// Files that a layer shares with its parent take no space of their own.
fn what_is_shared_with_the_parent_takes_no_space(scene: &Scene) -> Verdict {
    const SIZE: u64 = 96 << 20;
    let layers = scene.open()?;
    if let Some(reason) = layers.capabilities().shares_blocks.reason() {
        return Err(Stop::not_offered(format!("nothing is shared: {reason}")));
    }
    sealed(&*layers, "base", None, |root| {
        let chunk: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
        write(&root.join("data"), chunk.repeat(usize::try_from(SIZE >> 20).unwrap_or_default()))
    })?;
    layerstack_core::fs::sync_file_system(&scene.work())?;
    let before = kernel::free_bytes(&scene.work())?;
    for name in ["one", "two", "three", "four"] {
        layers.create(&id(name), Some(&id("base")), &Options::new())?;
    }
    layerstack_core::fs::sync_file_system(&scene.work())?;
    let taken = before.saturating_sub(kernel::free_bytes(&scene.work())?);
    // Other cases work on the same store meanwhile; four copies would be four times the size.
    check!(taken < SIZE * 2, "four new layers on one of {SIZE} bytes took {taken}");
    Ok(())
}

/// Every name space of extended attributes that is declared is kept.
fn every_declared_name_space_of_attributes_is_kept(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let declared = layers.capabilities().xattrs.clone();
    layers.create(&id("layer"), None, &Options::new())?;
    edit(&*layers, "layer", |root| {
        let path = root.join("file");
        write(&path, "x")?;
        for space in ["user.", "trusted.", "security."] {
            let kept = files::xattr(&path, &format!("{space}suite"), "value").is_ok();
            check!(kept || !declared.contains(&space), "{space} is declared, and cannot be set");
        }
        Ok(())
    })?;
    layers.seal(&id("layer"))?;
    layers.create(&id("child"), Some(&id("layer")), &Options::new())?;
    let tree = crate::scene::snapshot(&*layers, "child")?;
    let kept = tree.get("file").map(|node| node.xattrs.clone()).unwrap_or_default();
    for space in ["user.", "trusted.", "security."] {
        let found = kept.get(&format!("{space}suite")).is_some_and(|value| value == b"value");
        check!(found || !declared.contains(&space), "{space} is declared, and a child does not have it");
    }
    Ok(())
}

/// The longest file name in a layer, in bytes, is the one that is declared.
fn the_longest_name_can_be_used_and_no_longer_one(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let longest = layers.capabilities().max_name as usize;
    sealed(&*layers, "base", None, |root| write(&root.join("n".repeat(longest)), "x"))?;
    grow(&*layers, "top", Some("base"), |root| {
        write(&root.join("n".repeat(longest)), "changed")?;
        let past = fs::write(root.join("n".repeat(longest + 1)), "x").err();
        check!(past.is_some(), "a name one byte longer can be made");
        Ok(())
    })?;
    check_eq!(crate::scene::changes(&*layers, "top")?.len(), 1, "the number of changes");
    Ok(())
}

/// The host lacks what the driver needs: `Unavailable` with what is missing and how to get it.
fn an_unavailable_driver_says_what_is_missing(scene: &Scene) -> Verdict {
    // No driver can have its home where there can be no directory.
    let file = scene.work().join("file");
    write(&file, "x")?;
    let opened = scene.try_open(&file.join("root"), &scene.config());
    let error = opened.err().ok_or_else(|| Stop::failed("a root below a file was opened"))?;
    check!(error.to_string().len() > 20, "the error says little: {error}");
    check!(error.kind() != ErrorKind::Corrupt, "the error is {error:?}");
    let kept = fs::read_to_string(&file)?;
    check_eq!(kept, "x", "the file");
    Ok(())
}
