//! What a layer changed: the list and the tar, against an oracle that reads both trees whole.

use std::fs;
use std::path::Path;

use layerstack_core::ErrorKind;
use layerstack_core::diff::export;
use layerstack_core::driver::{Candidates, CtimeWindow};
use layerstack_core::layers::{Base, MountRequest};
use layerstack_core::options::Options;

use crate::case::{Verdict, cases, check, check_eq, refused};
use crate::files::{self, SAMPLE, write};
use crate::scene::{Scene, changes, diff, edit, grow, id, import, sealed, snapshot};
use crate::snapshot::Snapshot;
use crate::subject::Subject;
use crate::tarball::{entries, names};
use crate::{oracle, random};

cases!("diff.rs":
    an_unknown_layer_is_not_found,
    an_untouched_layer_has_no_changes,
    a_base_layer_is_all_added,
    what_was_added_is_listed,
    what_was_modified_is_listed,
    what_was_removed_is_listed_once,
    what_was_replaced_by_another_kind_is_listed,
    a_directory_removed_and_made_again_shows_what_is_gone,
    an_edit_that_keeps_size_and_time_is_seen,
    a_change_of_metadata_alone_is_seen,
    a_change_of_an_attribute_alone_is_seen,
    reading_a_layer_changes_nothing,
    a_rename_is_a_removal_and_an_addition,
    a_live_layer_can_be_diffed,
    the_tar_has_whiteouts_as_oci_says,
    the_tar_has_nothing_of_the_drivers_own,
    the_tar_names_parents_before_children,
    the_same_layer_gives_the_same_bytes,
    the_tar_of_a_base_layer_holds_it_whole,
    a_name_that_is_a_whiteout_in_a_tar_is_refused,
    against_another_layer,
    against_nothing,
    the_narrowed_diff_is_the_full_walks,
    random_edits_are_listed_as_the_oracle_does,
    random_edits_give_the_full_walks_bytes,
    random_edits_survive_diff_and_apply,
);

/// How many sequences of random edits a case tries; each prints its seed where it fails.
const SEEDS: u64 = 12;

/// Mount, diff, remove, usage … of an unknown id: `NotFound`.
fn an_unknown_layer_is_not_found(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let missing = id("missing");
    refused(layers.changes(&missing, Base::Parent), ErrorKind::NotFound)?;
    refused(layers.diff(&missing, Base::Parent, &mut Vec::new()), ErrorKind::NotFound)?;
    refused(layers.changes(&id("base"), Base::Layer(&missing)), ErrorKind::NotFound)?;
    refused(layers.tree(&missing).map(drop), ErrorKind::NotFound).map(drop)
}

/// Diff is what a layer changed against its parent: nothing yet.
fn an_untouched_layer_has_no_changes(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("top"), Some(&id("base")), &Options::new())?;
    check_eq!(changes(&*layers, "top")?, Vec::<String>::new(), "the changes of a new layer");
    check_eq!(names(&diff(&*layers, "top")?)?, Vec::<String>::new(), "the names in its tar");
    edit(&*layers, "top", |_| Ok(()))?;
    check_eq!(changes(&*layers, "top")?, Vec::<String>::new(), "the changes after a mount");
    Ok(())
}

/// The diff of a layer without a parent is all of it.
fn a_base_layer_is_all_added(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    check_eq!(changes(&*layers, "base")?, SAMPLE.map(|path| format!("A /{path}")), "the changes");
    Ok(())
}

/// Change kinds A, C and D as `docker diff` prints them, the directories above a change included.
fn what_was_added_is_listed(scene: &Scene) -> Verdict {
    change_shows(
        scene,
        &["C /etc", "A /etc/new", "A /etc/new/deep", "A /etc/new/deep/file", "A /zz"],
        |root| {
            files::directory(&root.join("etc/new/deep"))?;
            write(&root.join("etc/new/deep/file"), "x")?;
            write(&root.join("zz"), "x")
        },
    )
}

/// Change kinds A, C and D as `docker diff` prints them, the directories above a change included.
fn what_was_modified_is_listed(scene: &Scene) -> Verdict {
    change_shows(scene, &["C /etc", "C /etc/init", "C /etc/init/one", "C /etc/passwd"], |root| {
        write(&root.join("etc/init/one"), "one")?;
        write(&root.join("etc/passwd"), "longer than it was before")
    })
}

/// Change kinds A, C and D as `docker diff` prints them; of a removed directory only it itself is listed.
fn what_was_removed_is_listed_once(scene: &Scene) -> Verdict {
    change_shows(scene, &["D /bin", "C /etc", "D /etc/init", "D /tmp"], |root| {
        fs::remove_dir_all(root.join("etc/init"))?;
        fs::remove_dir(root.join("tmp"))?;
        Ok(fs::remove_file(root.join("bin"))?)
    })
}

/// A path that is now of another kind is modified; what was below it has gone with it, what is below it is new.
fn what_was_replaced_by_another_kind_is_listed(scene: &Scene) -> Verdict {
    let lines = ["C /bin", "C /empty", "A /empty/in", "C /etc", "C /etc/init"];
    change_shows(scene, &lines, |root| {
        fs::remove_file(root.join("bin"))?;
        write(&root.join("bin"), "was a link")?;
        fs::remove_file(root.join("empty"))?;
        files::directory(&root.join("empty"))?;
        write(&root.join("empty/in"), "was a file")?;
        fs::remove_dir_all(root.join("etc/init"))?;
        write(&root.join("etc/init"), "was a directory")
    })
}

/// A directory that was removed and made again hides what was in it: each name that is gone is listed.
fn a_directory_removed_and_made_again_shows_what_is_gone(scene: &Scene) -> Verdict {
    let lines = ["C /etc", "C /etc/init", "D /etc/init/one", "A /etc/init/three", "C /etc/init/two"];
    change_shows(scene, &lines, |root| {
        fs::remove_dir_all(root.join("etc/init"))?;
        files::directory(&root.join("etc/init"))?;
        files::mode(&root.join("etc/init"), 0o700)?;
        write(&root.join("etc/init/two"), "another two")?;
        write(&root.join("etc/init/three"), "3")
    })
}

/// Same-size edits with the mtime forced back are seen.
fn an_edit_that_keeps_size_and_time_is_seen(scene: &Scene) -> Verdict {
    change_shows(scene, &["C /etc", "C /etc/passwd"], |root| {
        let path = root.join("etc/passwd");
        let before = fs::metadata(&path)?;
        write(&path, "ROOT:x:0:0\n")?;
        files::mtime(
            &path,
            std::os::unix::fs::MetadataExt::mtime(&before),
            std::os::unix::fs::MetadataExt::mtime_nsec(&before),
        )
    })
}

/// Metadata that differs is a change: mode, owner, time.
fn a_change_of_metadata_alone_is_seen(scene: &Scene) -> Verdict {
    let lines = ["C /bin", "C /empty", "C /etc", "C /etc/init", "C /etc/passwd", "C /tmp"];
    change_shows(scene, &lines, |root| {
        files::mode(&root.join("etc/init"), 0o700)?;
        files::owner(&root.join("tmp"), 3, 0)?;
        files::owner(&root.join("empty"), 1000, 1002)?;
        files::mtime(&root.join("etc/passwd"), 1_000_000_000, 1)?;
        files::owner(&root.join("bin"), 7, 7)
    })
}

/// Metadata that differs is a change: every extended attribute that the driver keeps.
fn a_change_of_an_attribute_alone_is_seen(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let keys: Vec<_> = ["user.", "trusted.", "security."]
        .into_iter()
        .filter(|space| layers.capabilities().xattrs.contains(space))
        .map(|space| format!("{space}layerstack-test"))
        .collect();
    check!(!keys.is_empty(), "the driver keeps no extended attributes at all");
    sealed(&*layers, "base", None, |root| {
        for key in &keys {
            write(&root.join(key), "x")?;
        }
        files::sample(root)
    })?;
    for key in &keys {
        layers.create(&id("top"), Some(&id("base")), &Options::new())?;
        edit(&*layers, "top", |root| {
            let path = root.join(key);
            let time = fs::metadata(&path)?.modified()?;
            files::xattr(&path, key, "new")?;
            Ok(fs::File::open(&path)?.set_modified(time)?)
        })?;
        check_eq!(changes(&*layers, "top")?, [format!("C /{key}")], "the changes after {key} was set");
        layers.remove(&id("top"))?;
    }
    Ok(())
}

/// Diff is what a layer changed: reading is no change.
fn reading_a_layer_changes_nothing(scene: &Scene) -> Verdict {
    change_shows(scene, &[], |root| {
        Snapshot::read(root)?;
        let open = fs::OpenOptions::new().append(true).open(root.join("etc/passwd"))?;
        drop(open);
        Ok(())
    })
}

/// A path that is gone was removed, one that is new was added, also where it is the same file.
fn a_rename_is_a_removal_and_an_addition(scene: &Scene) -> Verdict {
    change_shows(scene, &["C /etc", "D /etc/passwd", "A /passwd"], |root| {
        Ok(fs::rename(root.join("etc/passwd"), root.join("passwd"))?)
    })
}

/// Changes a layer on the sample and compares what is listed; twice, since a base layer can lie deeper.
fn change_shows(scene: &Scene, lines: &[&str], change: impl Fn(&Path) -> Verdict) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "between", Some("base"), |root| write(&root.join("usr/between"), "x"))?;
    for parent in ["base", "between"] {
        let name = format!("on-{parent}");
        grow(&*layers, &name, Some(parent), &change)?;
        check_eq!(changes(&*layers, &name)?, lines, "the changes on {parent}");
        oracle::must_list(
            &changes(&*layers, &name)?,
            &snapshot(&*layers, parent)?,
            &snapshot(&*layers, &name)?,
        )?;
        layers.seal(&id(&name))?;
        check_eq!(changes(&*layers, &name)?, lines, "the changes on {parent} of the sealed layer");
    }
    Ok(())
}

/// The layer may be mounted and written to meanwhile: its diff is what its mount shows.
fn a_live_layer_can_be_diffed(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("top"), Some(&id("base")), &Options::new())?;
    let mount = layers.mount(&id("top"), &MountRequest::default())?;
    write(&mount.target().join("etc/passwd"), "changed")?;
    check_eq!(changes(&*layers, "top")?, ["C /etc", "C /etc/passwd"], "the changes of the mounted layer");
    fs::remove_file(mount.target().join("empty"))?;
    let wanted = ["D /empty", "C /etc", "C /etc/passwd"];
    check_eq!(changes(&*layers, "top")?, wanted, "the changes of the mounted layer after another edit");
    let tar = diff(&*layers, "top")?;
    write(&mount.target().join("later"), "x")?;
    mount.unmount()?;
    check!(!names(&tar)?.contains(&"later".to_owned()), "the tar has what was written after it");
    check_eq!(changes(&*layers, "top")?.len(), 4, "the number of changes afterwards");
    Ok(())
}

/// Whiteouts as OCI says on the way out: an empty regular file `.wh.NAME` beside what it removes, and no marker
/// where nothing was removed.
fn the_tar_has_whiteouts_as_oci_says(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| {
        fs::remove_file(root.join("etc/passwd"))?;
        fs::remove_dir_all(root.join("usr/bin"))?;
        write(&root.join("added-and-gone"), "x")?;
        Ok(fs::remove_file(root.join("added-and-gone"))?)
    })?;
    let tar = entries(&diff(&*layers, "top")?)?;
    let marks: Vec<_> = tar.iter().filter(|entry| entry.text().contains(".wh.")).collect();
    let mut found: Vec<_> = marks.iter().map(|entry| entry.text()).collect();
    found.sort();
    check_eq!(found, ["etc/.wh.passwd", "usr/.wh.bin"], "the whiteouts");
    for mark in marks {
        check_eq!((mark.kind, mark.content.len()), (b'0', 0), "type and length of {}", mark.text());
    }
    Ok(())
}

/// The tar of a layer is the same for every driver: native whiteouts, attributes and names stay inside.
fn the_tar_has_nothing_of_the_drivers_own(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| {
        fs::remove_file(root.join("etc/passwd"))?;
        fs::remove_dir_all(root.join("etc/init"))?;
        files::directory(&root.join("etc/init"))?;
        write(&root.join("usr/bin/tool"), "changed")
    })?;
    for entry in entries(&diff(&*layers, "top")?)? {
        check!(matches!(entry.kind, b'0' | b'1' | b'2' | b'5'), "{} is of type {}", entry.text(), entry.kind);
        let own = entry.pax.keys().find(|key| key.contains("overlay.") || key.contains("layerstack"));
        check!(own.is_none(), "{} has the record {own:?}", entry.text());
    }
    Ok(())
}

/// The tar can be unpacked as it is read: a directory comes before what is in it, each name once.
fn the_tar_names_parents_before_children(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| {
        write(&root.join("usr/bin/tool"), "changed")?;
        files::directory(&root.join("new/deep/er"))?;
        write(&root.join("new/deep/er/file"), "x")
    })?;
    let names = names(&diff(&*layers, "top")?)?;
    for (at, name) in names.iter().enumerate() {
        check!(!names[..at].contains(name), "{name} is there twice");
        check!(!name.starts_with('/') && !name.starts_with("./"), "{name} is not relative to the root");
        if let Some((parent, _)) = name.rsplit_once('/') {
            check!(names[..at].iter().any(|before| before == parent), "{name} comes before its directory");
        }
    }
    check!(names.contains(&"usr".to_owned()), "the directory above a change is not there");
    Ok(())
}

/// The tar is deterministic: same layer, same bytes.
fn the_same_layer_gives_the_same_bytes(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| {
        for count in (0..40).rev() {
            write(&root.join(format!("file-{count}")), "x")?;
        }
        fs::hard_link(root.join("file-7"), root.join("a-link"))?;
        Ok(fs::remove_file(root.join("empty"))?)
    })?;
    let first = diff(&*layers, "top")?;
    check!(diff(&*layers, "top")? == first, "the second tar differs from the first");
    let mount = layers.mount(&id("top"), &MountRequest::default())?;
    check!(diff(&*layers, "top")? == first, "the tar of the mounted layer differs");
    mount.unmount()?;
    layers.seal(&id("top"))?;
    drop(layers);
    check!(diff(&*scene.open()?, "top")? == first, "the tar after reopening differs");
    Ok(())
}

/// Diff without a parent is the whole layer: unpacked as a base layer it is the same tree.
fn the_tar_of_a_base_layer_holds_it_whole(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let tar = diff(&*layers, "base")?;
    import(&*layers, "copy", None, &tar)?;
    let base = snapshot(&*layers, "base")?;
    snapshot(&*layers, "copy")?.must_equal(&base, "the layer unpacked again")?;
    check!(diff(&*layers, "copy")? == tar, "its tar differs");
    Ok(())
}

/// A name that means a whiteout in a tar cannot be written: an error naming it, never a silent omission.
fn a_name_that_is_a_whiteout_in_a_tar_is_refused(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| match fs::write(root.join("etc/.wh.passwd"), "x") {
        // aufs keeps such names for itself and lets nobody make one.
        Err(_) => {
            Err(crate::case::Stop::not_offered("the driver's file system lets nobody make such a name"))
        }
        Ok(()) => Ok(()),
    })?;
    match layers.diff(&id("top"), Base::Parent, &mut Vec::new()) {
        Ok(_) => Err(crate::case::Stop::failed("the diff succeeded")),
        Err(error) => {
            check!(format!("{error}").contains(".wh.passwd"), "the error does not name the file: {error}");
            Ok(())
        }
    }
}

/// Diff against any other layer is what is between the two.
fn against_another_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "one", Some("base"), |root| write(&root.join("one"), "1"))?;
    sealed(&*layers, "two", Some("one"), |root| write(&root.join("two"), "2"))?;
    let between = |upper: &str, lower: &str| -> Verdict<Vec<String>> {
        let changes = layers.changes(&id(upper), Base::Layer(&id(lower)))?;
        Ok(changes.iter().map(ToString::to_string).collect())
    };
    check_eq!(between("two", "base")?, ["A /one", "A /two"], "the changes over two layers");
    check_eq!(between("base", "two")?, ["D /one", "D /two"], "the changes the other way");
    check_eq!(between("two", "two")?, Vec::<String>::new(), "the changes against itself");
    let mut tar = Vec::new();
    layers.diff(&id("two"), Base::Layer(&id("base")), &mut tar)?;
    check_eq!(names(&tar)?, ["one", "two"], "the names in the tar over two layers");
    Ok(())
}

/// Diff against nothing is the whole tree, the parents' files included.
fn against_nothing(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "top", Some("base"), |root| write(&root.join("zz"), "x"))?;
    let mut tar = Vec::new();
    layers.diff(&id("top"), Base::Nothing, &mut tar)?;
    import(&*layers, "flat", None, &tar)?;
    let top = snapshot(&*layers, "top")?;
    snapshot(&*layers, "flat")?.must_equal(&top, "the layer without its parents")
}

/// The walk of everything is the oracle that every other differ is held against.
fn the_narrowed_diff_is_the_full_walks(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| {
        files::sample(root)?;
        fs::create_dir_all(root.join("old/a/b"))?;
        write(&root.join("old/a/b/c"), "c")
    })?;
    grow(&*layers, "top", Some("base"), |root| {
        write(&root.join("etc/passwd"), "changed")?;
        fs::remove_dir_all(root.join("old"))?;
        fs::create_dir_all(root.join("old/a"))?;
        write(&root.join("old/a/new"), "n")?;
        fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/third"))?;
        fs::rename(root.join("etc/init/one"), root.join("one"))?;
        files::mode(&root.join("tmp"), 0o755)?;
        files::mode(&root.join("tmp"), 0o1777)
    })?;
    let full = full_walk(&*layers, "top", "base")?;
    check_eq!(names(&diff(&*layers, "top")?)?, names(&full)?, "the names in the tar");
    check!(diff(&*layers, "top")? == full, "the tar differs from the full walk's");
    Ok(())
}

/// The tar that the full walk gives, which believes no time and no candidate.
fn full_walk(layers: &dyn Subject, upper: &str, lower: &str) -> Verdict<Vec<u8>> {
    let (upper, lower) = (layers.tree(&id(upper))?, layers.tree(&id(lower))?);
    let mut tar = Vec::new();
    export(&upper, Some(&lower), Candidates::All { untouched: Some(CtimeWindow::NEVER) }, &mut tar)?;
    Ok(tar)
}

/// Property: whatever is done to a layer, its changes are those between the two trees.
fn random_edits_are_listed_as_the_oracle_does(scene: &Scene) -> Verdict {
    random::with_each_seed(SEEDS, |seed| {
        let layers = scene.open()?;
        let (base, top) = random::layers(&*layers, seed)?;
        oracle::must_list(&changes(&*layers, &top)?, &snapshot(&*layers, &base)?, &snapshot(&*layers, &top)?)
    })
}

/// Property: whatever is done to a layer, the narrowed diff and the full walk give the same bytes.
fn random_edits_give_the_full_walks_bytes(scene: &Scene) -> Verdict {
    random::with_each_seed(SEEDS, |seed| {
        let layers = scene.open()?;
        let (base, top) = random::layers(&*layers, seed)?;
        let (narrowed, full) = (diff(&*layers, &top)?, full_walk(&*layers, &top, &base)?);
        check_eq!(names(&narrowed)?, names(&full)?, "the names in the tar");
        check!(narrowed == full, "the tar differs from the full walk's");
        Ok(())
    })
}

/// Property: whatever is done to a layer survives apply, diff, apply.
fn random_edits_survive_diff_and_apply(scene: &Scene) -> Verdict {
    random::with_each_seed(SEEDS, |seed| {
        let layers = scene.open()?;
        let (base, top) = random::layers(&*layers, seed)?;
        let copy = format!("copy-{seed}");
        let tar = diff(&*layers, &top)?;
        import(&*layers, &copy, Some(&base), &tar)?;
        let wanted = snapshot(&*layers, &top)?.without_sockets();
        // A socket of the parent's is in both, one of the layer's own in none but the layer.
        snapshot(&*layers, &copy)?.without_sockets().must_equal(&wanted, "the layer from its tar")?;
        check!(diff(&*layers, &copy)? == tar, "the tar of the layer from its tar differs");
        Ok(())
    })
}
