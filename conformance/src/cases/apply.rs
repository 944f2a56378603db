//! What a layer tar becomes.

use std::io::Read;

use layerstack_core::layers::{LayerState, MountRequest};
use layerstack_core::options::Options;
use layerstack_core::{Error, ErrorKind};

use crate::case::{Stop, Verdict, cases, check, check_eq, refused};
use crate::files::{self, write};
use crate::scene::{Scene, changes, edit, grow, id, import, must_be_clean, sealed, snapshot};
use crate::snapshot::{Kind, Snapshot, hash_of};
use crate::tarball::{Item, Tarball};

cases!("apply.rs":
    entries_become_files,
    an_imported_layer_is_sealed_and_in_its_place,
    a_tar_without_entries_is_an_empty_layer,
    a_tar_is_read_as_it_comes,
    a_tar_can_be_applied_to_a_layer_that_has_something,
    the_last_of_several_entries_of_one_name_counts,
    a_whiteout_removes_the_parents_file,
    a_whiteout_does_not_remove_what_its_own_tar_adds,
    a_whiteout_of_what_is_not_there_does_nothing,
    an_opaque_directory_hides_the_parents_files,
    an_opaque_directory_shows_its_own_tars_files_in_any_order,
    a_directory_over_a_directory_merges,
    another_kind_of_file_replaces_what_was_there,
    a_symlink_is_replaced_and_not_followed,
    missing_directories_are_made,
    the_parents_directories_are_kept_as_they_are,
    an_entry_below_a_symlink_goes_where_it_leads,
    a_hardlink_to_the_parents_file_is_one_file,
    names_are_taken_as_relative_to_the_root,
    an_unknown_layer_is_not_found,
    a_mounted_layer_takes_no_tar,
    a_layer_is_absent_after_a_failed_apply,
    an_imported_layer_is_absent_after_a_failure,
    an_imported_layer_is_absent_where_it_is_not_verified,
    an_imported_layer_is_not_seen_before_it_is_whole,
    importing_an_id_that_exists_is_refused,
    importing_on_a_missing_parent_is_not_found,
);

fn file(tree: &Snapshot, path: &str) -> Option<(u64, u64)> {
    match tree.get(path)?.kind {
        Kind::File { size, hash } => Some((size, hash)),
        _ => None,
    }
}

fn content(text: &str) -> Option<(u64, u64)> {
    Some((text.len() as u64, hash_of(text.as_bytes())))
}

/// Apply writes what the tar says: kind, content, mode, owner, time.
fn entries_become_files(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let tar = Tarball::of([
        Item::directory("d").mode(0o2751).owner(1, 2).mtime(1_000_000_000, 5),
        Item::file("d/f", "content").mode(0o4711).owner(3, 70_000).mtime(1_100_000_000, 999_999_999),
        Item::symlink("d/s", "../nowhere").owner(5, 6),
        Item::hardlink("d/h", "d/f"),
        Item::fifo("p").mode(0o622),
    ]);
    import(&*layers, "layer", None, &tar)?;
    let tree = snapshot(&*layers, "layer")?;
    let seen = |path: &str| tree.get(path).map(|node| (node.mode, node.owner, node.mtime));
    check_eq!(seen("d"), Some((0o2751, (1, 2), (1_000_000_000, 5))), "the directory");
    check_eq!(seen("d/f"), Some((0o4711, (3, 70_000), (1_100_000_000, 999_999_999))), "the file");
    check_eq!(file(&tree, "d/f"), content("content"), "its content");
    check_eq!(seen("d/s").map(|seen| seen.1), Some((5, 6)), "the owner of the symbolic link");
    check_eq!(
        tree.get("d/s").map(|node| &node.kind),
        Some(&Kind::Symlink(b"../nowhere".to_vec())),
        "the link"
    );
    check_eq!(seen("p").map(|seen| seen.0), Some(0o622), "the mode of the pipe");
    check!(tree.get("d/h").is_some_and(|node| node.same_as.is_some()), "the two names are not one file");
    check_eq!(tree.paths().len(), 5, "the number of files");
    Ok(())
}

/// An import makes a layer, fills and seals it.
fn an_imported_layer_is_sealed_and_in_its_place(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    import(&*layers, "base", None, &Tarball::of([Item::file("a", "1")]))?;
    import(&*layers, "top", Some("base"), &Tarball::of([Item::file("b", "2")]))?;
    let top = layers.layer(&id("top"))?;
    check_eq!((top.state, top.parent), (LayerState::Sealed, Some(id("base"))), "state and parent");
    check_eq!(changes(&*layers, "top")?, ["A /b"], "its changes");
    check_eq!(snapshot(&*layers, "top")?.paths().len(), 2, "the number of files");
    layers.create(&id("on-it"), Some(&id("top")), &Options::new())?;
    must_be_clean(&*layers)
}

/// An image has layers with nothing in them.
fn a_tar_without_entries_is_an_empty_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    import(&*layers, "base", None, &Tarball::of([Item::file("a", "1")]))?;
    import(&*layers, "nothing", Some("base"), &Tarball::new().end())?;
    check_eq!(changes(&*layers, "nothing")?, Vec::<String>::new(), "its changes");
    let base = snapshot(&*layers, "base")?;
    snapshot(&*layers, "nothing")?.must_equal(&base, "a layer that changes nothing")
}

/// Apply streams: it takes what a reader gives, however little at a time, and reads to the end.
fn a_tar_is_read_as_it_comes(scene: &Scene) -> Verdict {
    struct Dribble<'a>(&'a [u8], usize);
    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 = self.1 % 7 + 1;
            let length = self.1.min(buffer.len()).min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }
    let layers = scene.open()?;
    let text = "0123456789".repeat(2000);
    let tar = Tarball::of([Item::file("a", &text), Item::file("b", "b")]);
    let mut slow = Dribble(&tar, 0);
    layers.import(&id("layer"), None, &mut slow, &mut |_| Ok(()))?;
    check_eq!(slow.0.len(), 0, "the bytes that were not read");
    let tree = snapshot(&*layers, "layer")?;
    check_eq!((file(&tree, "a"), file(&tree, "b")), (content(&text), content("b")), "the files");
    Ok(())
}

/// A tar goes onto a writable layer, which stays writable.
fn a_tar_can_be_applied_to_a_layer_that_has_something(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| write(&root.join("own"), "x"))?;
    for (name, text) in [("etc/passwd", "first"), ("etc/passwd", "second"), ("new", "new")] {
        layers.apply(&id("top"), &mut &Tarball::of([Item::file(name, text)])[..])?;
    }
    let tree = snapshot(&*layers, "top")?;
    check_eq!(file(&tree, "etc/passwd"), content("second"), "the file that was applied twice");
    check!(tree.get("own").is_some() && tree.get("new").is_some(), "a file is missing");
    check_eq!(layers.layer(&id("top"))?.state, LayerState::Writable, "the state");
    edit(&*layers, "top", |root| write(&root.join("own"), "y"))
}

/// Duplicate entries: the last one counts.
fn the_last_of_several_entries_of_one_name_counts(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let tar = Tarball::of([
        Item::file("f", "first and longer"),
        Item::symlink("s", "f"),
        Item::directory("d"),
        Item::file("d/in", "x"),
        Item::file("f", "last").mode(0o600),
        Item::file("s", "no link any more"),
        Item::directory("d").mode(0o700),
    ]);
    import(&*layers, "layer", None, &tar)?;
    let tree = snapshot(&*layers, "layer")?;
    check_eq!(file(&tree, "f"), content("last"), "the file");
    check_eq!(file(&tree, "s"), content("no link any more"), "what was a link first");
    check_eq!(tree.get("f").map(|node| node.mode), Some(0o600), "the mode of the file");
    check_eq!(tree.get("d").map(|node| node.mode), Some(0o700), "the mode of the directory");
    check!(tree.get("d/in").is_some(), "the directory has lost its file");
    Ok(())
}

/// A whiteout `.wh.NAME` removes NAME, whatever it is, and shows nowhere itself.
fn a_whiteout_removes_the_parents_file(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let marks = ["etc/.wh.passwd", "usr/.wh.bin", ".wh.bin", ".wh.tmp"];
    import(&*layers, "top", Some("base"), &Tarball::of(marks.map(|name| Item::file(name, "").mode(0))))?;
    let tree = snapshot(&*layers, "top")?;
    let left: Vec<_> = tree.paths().iter().map(|path| path.display().to_string()).collect();
    check_eq!(left, ["empty", "etc", "etc/init", "etc/init/one", "etc/init/two", "usr"], "the files left");
    import(&*layers, "again", Some("top"), &Tarball::of([Item::file("etc/passwd", "back")]))?;
    check_eq!(file(&snapshot(&*layers, "again")?, "etc/passwd"), content("back"), "the file one layer up");
    Ok(())
}

/// Whiteouts apply to lower layers only (OCI image-spec, layer.md): not to what the same tar adds, in any order.
fn a_whiteout_does_not_remove_what_its_own_tar_adds(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let mark = || Item::file("etc/.wh.init", "");
    let own = || [Item::directory("etc/init"), Item::file("etc/init/own", "own")];
    let orders = [
        ("before", std::iter::once(mark()).chain(own()).collect::<Vec<_>>()),
        ("after", own().into_iter().chain(std::iter::once(mark())).collect()),
    ];
    for (name, items) in orders {
        import(&*layers, name, Some("base"), &Tarball::of(items))?;
        let tree = snapshot(&*layers, name)?;
        check_eq!(file(&tree, "etc/init/own"), content("own"), "the tar's own file, the whiteout {name} it");
        check!(
            tree.get("etc/init/one").is_none(),
            "the parent's file is there, the whiteout {name} the directory"
        );
    }
    Ok(())
}

/// A whiteout of what is not there does nothing.
fn a_whiteout_of_what_is_not_there_does_nothing(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let marks =
        [Item::file(".wh.missing", ""), Item::file("etc/.wh.missing", ""), Item::file("etc/new", "n")];
    import(&*layers, "top", Some("base"), &Tarball::of(marks))?;
    check_eq!(changes(&*layers, "top")?, ["C /etc", "A /etc/new"], "the changes");
    let tree = snapshot(&*layers, "top")?;
    check!(tree.paths().iter().all(|path| !path.to_string_lossy().contains("missing")), "something shows");
    import(&*layers, "first", None, &Tarball::of([Item::file(".wh.missing", ""), Item::file("a", "a")]))?;
    check_eq!(snapshot(&*layers, "first")?.paths().len(), 1, "the number of files in a base layer");
    Ok(())
}

/// `.wh..wh..opq` hides all that lower layers have in the directory, and shows nowhere itself.
fn an_opaque_directory_hides_the_parents_files(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "middle", Some("base"), |root| write(&root.join("etc/init/three"), "3"))?;
    let tar =
        Tarball::of([Item::directory("etc"), Item::file("etc/.wh..wh..opq", ""), Item::file("etc/new", "n")]);
    import(&*layers, "top", Some("middle"), &tar)?;
    let tree = snapshot(&*layers, "top")?;
    let etc: Vec<_> = tree
        .paths()
        .iter()
        .filter(|path| path.starts_with("etc"))
        .map(|path| path.display().to_string())
        .collect();
    check_eq!(etc, ["etc", "etc/new"], "what is in the directory");
    let listed = ["C /etc", "D /etc/init", "A /etc/new", "D /etc/passwd"];
    check_eq!(changes(&*layers, "top")?, listed, "the changes");
    Ok(())
}

/// An opaque marker applies to lower layers only, wherever in the tar it stands.
fn an_opaque_directory_shows_its_own_tars_files_in_any_order(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let tar = Tarball::of([
        Item::file("etc/init/own", "own"),
        Item::file("etc/new", "n"),
        Item::file("etc/.wh..wh..opq", ""),
        Item::file("etc/late", "l"),
    ]);
    import(&*layers, "top", Some("base"), &tar)?;
    let tree = snapshot(&*layers, "top")?;
    let etc: Vec<_> = tree
        .paths()
        .iter()
        .filter(|path| path.starts_with("etc"))
        .map(|path| path.display().to_string())
        .collect();
    check_eq!(etc, ["etc", "etc/init", "etc/init/own", "etc/late", "etc/new"], "what is in the directory");
    Ok(())
}

/// A directory over a directory merges: its files stay, its metadata are the entry's.
fn a_directory_over_a_directory_merges(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| {
        files::sample(root)?;
        files::xattr(&root.join("etc"), "user.old", "old")
    })?;
    let tar = Tarball::of([Item::directory("etc").mode(0o711).owner(8, 9).mtime(1_200_000_000, 1)]);
    import(&*layers, "top", Some("base"), &tar)?;
    let tree = snapshot(&*layers, "top")?;
    let etc = tree.get("etc").map(|node| (node.mode, node.owner, node.mtime, node.xattrs.len()));
    check_eq!(etc, Some((0o711, (8, 9), (1_200_000_000, 1), 0)), "the directory");
    check_eq!(tree.paths().len(), files::SAMPLE.len(), "the number of files");
    Ok(())
}

/// What is not a directory replaces whatever was there, a directory with all that is in it too.
fn another_kind_of_file_replaces_what_was_there(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let tar = Tarball::of([
        Item::file("etc", "was a directory"),
        Item::directory("empty"),
        Item::file("empty/in", "was a file"),
        Item::symlink("usr", "tmp"),
        Item::fifo("tmp"),
    ]);
    import(&*layers, "top", Some("base"), &tar)?;
    let tree = snapshot(&*layers, "top")?;
    let left: Vec<_> = tree.paths().iter().map(|path| path.display().to_string()).collect();
    check_eq!(left, ["bin", "empty", "empty/in", "etc", "tmp", "usr"], "the files");
    check_eq!(file(&tree, "etc"), content("was a directory"), "the file");
    // A directory where a lower layer has a file, and one more layer below that has a directory.
    import(
        &*layers,
        "next",
        Some("top"),
        &Tarball::of([Item::directory("etc"), Item::file("etc/new", "n")]),
    )?;
    let tree = snapshot(&*layers, "next")?;
    let etc = tree.paths().iter().filter(|path| path.starts_with("etc")).count();
    check_eq!(etc, 2, "the number of paths in a directory that shadows a file");
    Ok(())
}

/// A symbolic link where a file goes is replaced; what it points to is not written to.
fn a_symlink_is_replaced_and_not_followed(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| {
        files::sample(root)?;
        Ok(std::os::unix::fs::symlink("etc/passwd", root.join("link"))?)
    })?;
    import(&*layers, "top", Some("base"), &Tarball::of([Item::file("link", "a file")]))?;
    let tree = snapshot(&*layers, "top")?;
    check_eq!(file(&tree, "link"), content("a file"), "what was a link");
    check_eq!(file(&tree, "etc/passwd"), content("root:x:0:0\n"), "what it pointed to");
    Ok(())
}

/// Directories that the tar does not name and nobody has are made, 0755 root:root.
fn missing_directories_are_made(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    import(&*layers, "layer", None, &Tarball::of([Item::file("a/b/c", "x").owner(5, 5)]))?;
    let tree = snapshot(&*layers, "layer")?;
    for path in ["a", "a/b"] {
        let seen = tree.get(path).map(|node| (node.kind.clone(), node.mode, node.owner));
        check_eq!(seen, Some((Kind::Directory, 0o755, (0, 0))), "the directory {path}");
    }
    Ok(())
}

/// Directories that the tar does not name are the parent's, with their mode, owner, times and attributes.
fn the_parents_directories_are_kept_as_they_are(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| {
        files::directory(&root.join("closed/inner"))?;
        files::xattr(&root.join("closed"), "user.kept", "kept")?;
        files::owner(&root.join("closed"), 11, 12)?;
        files::mode(&root.join("closed"), 0o710)?;
        files::mode(&root.join("closed/inner"), 0o1777)?;
        write(&root.join("closed/inner/old"), "o")
    })?;
    let before = snapshot(&*layers, "base")?;
    import(&*layers, "top", Some("base"), &Tarball::of([Item::file("closed/inner/new", "n")]))?;
    let after = snapshot(&*layers, "top")?;
    for path in ["closed", "closed/inner"] {
        let seen = |tree: &Snapshot| tree.get(path).map(|node| (node.mode, node.owner, node.xattrs.clone()));
        check_eq!(seen(&after), seen(&before), "the directory {path}");
    }
    check_eq!(after.paths().len(), before.paths().len() + 1, "the number of files");
    Ok(())
}

/// An entry below a symbolic link to a directory goes where the link leads inside the layer, as images have it
/// (`lib` → `usr/lib` in one layer, `lib/x` in the next).
fn an_entry_below_a_symlink_goes_where_it_leads(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| {
        files::sample(root)?;
        Ok(std::os::unix::fs::symlink("/etc", root.join("absolute"))?)
    })?;
    let tar = Tarball::of([Item::file("bin/new", "n"), Item::file("absolute/also", "a")]);
    import(&*layers, "top", Some("base"), &tar)?;
    let tree = snapshot(&*layers, "top")?;
    check_eq!(tree.get("bin").map(|node| &node.kind), Some(&Kind::Symlink(b"usr/bin".to_vec())), "the link");
    check_eq!(file(&tree, "usr/bin/new"), content("n"), "the file below a relative link");
    check_eq!(file(&tree, "etc/also"), content("a"), "the file below an absolute link");
    Ok(())
}

/// A hardlink may name a file of a lower layer: both names are then one file.
fn a_hardlink_to_the_parents_file_is_one_file(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let tar = Tarball::of([Item::hardlink("etc/other", "etc/passwd")]);
    import(&*layers, "top", Some("base"), &tar)?;
    let (base, tree) = (snapshot(&*layers, "base")?, snapshot(&*layers, "top")?);
    check_eq!(file(&tree, "etc/other"), content("root:x:0:0\n"), "the new name's content");
    check!(
        tree.get("etc/passwd").is_some_and(|node| node.same_as.is_some()),
        "the two names are not one file"
    );
    let seen = |tree: &Snapshot| tree.get("etc/passwd").map(|node| (node.mode, node.owner, node.mtime));
    check_eq!(seen(&tree), seen(&base), "the old name's metadata");
    Ok(())
}

/// Names with `./` or `/` before them, or a slash at the end, are names in the layer.
fn names_are_taken_as_relative_to_the_root(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let tar = Tarball::of([
        Item::directory("./").mode(0o700),
        Item::directory("./d/"),
        Item::file("./d/one", "1"),
        Item::file("/d/two", "2"),
        Item::file("d//three", "3"),
    ]);
    import(&*layers, "layer", None, &tar)?;
    let tree = snapshot(&*layers, "layer")?;
    let found: Vec<_> = tree.paths().iter().map(|path| path.display().to_string()).collect();
    check_eq!(found, ["d", "d/one", "d/three", "d/two"], "the files");
    check_eq!(tree.get("").map(|root| root.mode), Some(0o700), "the mode of the root");
    Ok(())
}

/// Mount, diff, remove, usage … of an unknown id: `NotFound`.
fn an_unknown_layer_is_not_found(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    refused(layers.apply(&id("missing"), &mut &Tarball::new().end()[..]), ErrorKind::NotFound)?;
    check_eq!(layers.list()?, [], "the layers");
    Ok(())
}

/// A layer that is mounted is in use: no tar is applied to it, and it stays as it is.
fn a_mounted_layer_takes_no_tar(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    let mount = layers.mount(&id("layer"), &MountRequest::default())?;
    let before = Snapshot::read(mount.target())?;
    let tar = Tarball::of([Item::file("new", "x")]);
    refused(layers.apply(&id("layer"), &mut &tar[..]), ErrorKind::InUse)?;
    Snapshot::read(mount.target())?.must_equal(&before, "the layer afterwards")?;
    Ok(mount.unmount()?)
}

/// An entry that cannot be applied: an error naming it, and the layer is then absent.
fn a_layer_is_absent_after_a_failed_apply(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "other", Some("base"), |root| write(&root.join("own"), "x"))?;
    let before = (snapshot(&*layers, "base")?, snapshot(&*layers, "other")?, scene.names()?);
    layers.create(&id("layer"), Some(&id("base")), &Options::new())?;
    let tar = Tarball::of([Item::file("good", "x"), Item::file("../bad", "x")]);
    let error = refused(layers.apply(&id("layer"), &mut &tar[..]), ErrorKind::InvalidInput)?;
    check!(error.to_string().contains("bad"), "the error does not name the entry: {error}");
    check!(!layers.contains(&id("layer"))?, "the layer is still there");
    scene.must_have(&before.2)?;
    snapshot(&*layers, "base")?.must_equal(&before.0, "the parent")?;
    snapshot(&*layers, "other")?.must_equal(&before.1, "the sibling")?;
    must_be_clean(&*layers)
}

/// An import becomes visible in one step or not at all: after a failure nothing of it is there.
fn an_imported_layer_is_absent_after_a_failure(scene: &Scene) -> Verdict {
    struct Breaking<'a>(&'a [u8]);
    impl Read for Breaking<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(std::io::Error::other("the line went dead")),
                length => Ok(length),
            }
        }
    }
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "other", Some("base"), |_| Ok(()))?;
    let before = scene.names()?;
    let tar = Tarball::new().item(Item::file("a", "x")).item(Item::file("b", "y")).unfinished();
    let cut = layers.import(&id("layer"), Some(&id("base")), &mut Breaking(&tar), &mut |_| Ok(()));
    let error = cut.err().ok_or_else(|| Stop::failed("the import succeeded"))?;
    check!(
        format!("{error:?}").contains("the line went dead"),
        "the error does not give its cause: {error:?}"
    );
    check!(!layers.contains(&id("layer"))?, "the layer is there");
    scene.must_have(&before)?;
    Ok(import(&*layers, "layer", Some("base"), &Tarball::of([Item::file("a", "x")]))?)
}

/// Nothing is visible before it is verified: where the caller finds the tar wrong, the layer is absent.
fn an_imported_layer_is_absent_where_it_is_not_verified(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let tar = Tarball::of([Item::file("a", "x")]);
    let mut visible = None;
    let imported = layers.import(&id("layer"), None, &mut &tar[..], &mut |_| {
        visible = Some(layers.contains(&id("layer"))?);
        Err(Error::new(ErrorKind::Corrupt, "the digest differs"))
    });
    let error = refused(imported, ErrorKind::Corrupt)?;
    check!(
        format!("{error:?}").contains("the digest differs"),
        "the error does not give its cause: {error:?}"
    );
    check_eq!(visible, Some(false), "whether the layer was visible while it was verified");
    check!(!layers.contains(&id("layer"))?, "the layer is there");
    check_eq!(layers.list()?, [], "the layers");
    must_be_clean(&*layers)
}

/// No one sees a half-made layer.
fn an_imported_layer_is_not_seen_before_it_is_whole(scene: &Scene) -> Verdict {
    struct Watched<'a>(&'a [u8], &'a mut dyn FnMut());
    impl Read for Watched<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            (self.1)();
            let length = buffer.len().min(512);
            self.0.read(&mut buffer[..length])
        }
    }
    let layers = scene.open()?;
    let other = scene.open()?;
    let tar = Tarball::of((0..20).map(|count| Item::file(format!("f{count}"), "x")));
    let mut seen = Vec::new();
    let mut look = || {
        for layers in [&layers, &other] {
            seen.push(layers.contains(&id("layer")).is_ok_and(|there| !there));
            seen.push(layers.list().is_ok_and(|ids| ids.is_empty()));
            seen.push(layers.mount(&id("layer"), &MountRequest::default()).is_err());
        }
    };
    layers.import(&id("layer"), None, &mut Watched(&tar, &mut look), &mut |_| Ok(()))?;
    check!(!seen.is_empty() && seen.iter().all(|unseen| *unseen), "the layer was seen while it was made");
    check!(other.contains(&id("layer"))?, "the layer is not seen afterwards");
    Ok(())
}

/// Create an id that exists: `AlreadyExists`; the existing layer is untouched.
fn importing_an_id_that_exists_is_refused(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let before = (snapshot(&*layers, "base")?, scene.names()?);
    let tar = Tarball::of([Item::file("new", "x")]);
    for parent in [None, Some("base"), Some("missing")] {
        refused(import(&*layers, "base", parent, &tar), ErrorKind::AlreadyExists)?;
    }
    scene.must_have(&before.1)?;
    snapshot(&*layers, "base")?.must_equal(&before.0, "the existing layer")
}

/// Create on a parent that does not exist: `NotFound`; any failed call leaves nothing behind.
fn importing_on_a_missing_parent_is_not_found(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    layers.create(&id("live"), None, &Options::new())?;
    let before = scene.names()?;
    let tar = Tarball::of([Item::file("new", "x")]);
    refused(import(&*layers, "layer", Some("missing"), &tar), ErrorKind::NotFound)?;
    if !layers.capabilities().fork_live.offered() {
        refused(import(&*layers, "layer", Some("live"), &tar), ErrorKind::NotSealed)?;
    }
    scene.must_have(&before)?;
    Ok(())
}
