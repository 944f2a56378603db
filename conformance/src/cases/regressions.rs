//! Bugs that other storage drivers had, as cases, each with the place where it was reported. What a clause of
//! another group already covers in full is not repeated here.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use layerstack_core::layers::{Base, MountRequest};
use layerstack_core::options::Options;
use layerstack_core::{ErrorKind, LayerId};
use rustix::fs::{FileType, makedev};

use crate::case::{Stop, Verdict, cases, check, check_eq, refused};
use crate::errand::Step;
use crate::files::{self, write};
use crate::kernel;
use crate::scene::{Scene, changes, diff, edit, grow, id, import, must_be_clean, sealed, snapshot};
use crate::snapshot::Kind;
use crate::subject::Subject;
use crate::tarball::{Item, Tarball, entries, names};

cases!("regressions.rs":
    a_directorys_time_is_no_change,
    a_directory_that_was_touched_below_is_no_change_of_its_siblings,
    a_change_in_the_same_second_is_seen,
    nanoseconds_are_kept,
    attributes_are_the_same_after_a_round_trip,
    a_block_device_is_no_directory,
    a_sparse_file_fills_no_tar_with_pieces,
    zeros_after_the_end_take_no_memory,
    a_layer_that_is_no_tar_ends,
    a_hardlink_to_a_symlink_changes_nothing_outside,
    a_sparse_header_takes_no_memory,
    an_import_writes_no_file_of_the_host,
    a_symlink_and_a_hardlink_break_out_together,
    homes_are_closed_to_others,
    setuid_programs_are_out_of_reach_of_others,
    a_failed_import_leaves_no_orphan,
    whiteouts_are_not_lost_in_sealed_layers,
    a_hundred_and_thirty_layers_can_be_mounted,
    a_layer_can_be_removed_right_after_its_unmount,
    clones_made_at_once_have_names_of_their_own,
    creating_again_does_not_destroy_children,
    creating_again_with_a_bad_parent_does_not_destroy_the_layer,
    a_failed_creation_leaves_no_link,
    a_bad_option_leaves_no_layer,
    a_socket_stays_a_socket,
    holes_stay_holes_in_children,
    a_truncated_file_ends_the_copy,
    an_unmount_too_many_is_no_harm,
    whiteouts_have_no_time_of_their_own,
    links_between_layers_are_by_device_and_inode,
    a_linked_file_that_was_not_changed_keeps_its_link,
    missing_parents_of_an_entry_can_be_entered,
    the_roots_mode_is_the_parents,
    a_volatile_or_stale_work_directory_is_no_obstacle,
    an_absent_layer_cannot_be_mounted,
    failed_creations_take_nothing_from_later_ones,
    lost_records_do_not_keep_others_from_creating;
    alone:
    interrupted_creations_do_not_keep_others_from_creating,
    a_renamed_directory_is_diffed_whole,
    a_layer_removed_behind_ones_back_is_noticed,
    two_rounds_of_mounting_leave_one_mount_at_most,
);

/// Removing a file changes its directory's time, which is no change of the directory
/// (<https://github.com/moby/moby/issues/9874>).
fn a_directorys_time_is_no_change(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| {
        write(&root.join("etc/init/temporary"), "x")?;
        fs::remove_file(root.join("etc/init/temporary"))?;
        files::mtime(&root.join("tmp"), 1, 0)
    })?;
    check_eq!(changes(&*layers, "top")?, Vec::<String>::new(), "the changes");
    Ok(())
}

/// A change below a directory lists the directories above it, and none beside it
/// (<https://github.com/moby/moby/issues/11422>).
fn a_directory_that_was_touched_below_is_no_change_of_its_siblings(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| write(&root.join("etc/init/one"), "changed"))?;
    check_eq!(changes(&*layers, "top")?, ["C /etc", "C /etc/init", "C /etc/init/one"], "the changes");
    Ok(())
}

/// A file written in the second in which its layer was made is seen, also where its parent came from a tar, whose
/// times have no fraction (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/fsdiff.go>).
fn a_change_in_the_same_second_is_seen(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(Stop::failed)?;
    let seconds = i64::try_from(now.as_secs()).map_err(Stop::failed)?;
    import(&*layers, "base", None, &Tarball::of([Item::file("file", "before").mtime(seconds, 0)]))?;
    grow(&*layers, "top", Some("base"), |root| {
        write(&root.join("file"), "behind")?;
        files::mtime(&root.join("file"), seconds, 0)
    })?;
    check_eq!(changes(&*layers, "top")?, ["C /file"], "the changes");
    Ok(())
}

/// A directory of the parent that was renamed is diffed with all that is in it, whatever the file system notes
/// about its origin (<https://github.com/moby/moby/issues/38111>).
fn a_renamed_directory_is_diffed_whole(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| match fs::rename(root.join("etc"), root.join("moved")) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::XDEV.raw_os_error()) => {
            // The file system says that it cannot; programs then copy, as mv(1) does.
            let status =
                std::process::Command::new("mv").arg(root.join("etc")).arg(root.join("moved")).status()?;
            check!(status.success(), "mv: {status}");
            Ok(())
        }
        other => Ok(other?),
    })?;
    let wanted =
        ["D /etc", "A /moved", "A /moved/init", "A /moved/init/one", "A /moved/init/two", "A /moved/passwd"];
    check_eq!(changes(&*layers, "top")?, wanted, "the changes");
    let tar = names(&diff(&*layers, "top")?)?;
    for name in [".wh.etc", "moved", "moved/init", "moved/init/one", "moved/init/two", "moved/passwd"] {
        check!(tar.contains(&name.to_owned()), "the tar lacks {name}: {tar:?}");
    }
    Ok(())
}

/// Times keep their nanoseconds through commit and save (<https://github.com/moby/moby/issues/48447>,
/// <https://github.com/moby/moby/issues/40004>).
fn nanoseconds_are_kept(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "one", None, |root| {
        write(&root.join("file"), "x")?;
        files::mtime(&root.join("file"), 1_700_000_000, 123_456_789)
    })?;
    import(&*layers, "two", None, &diff(&*layers, "one")?)?;
    let time = snapshot(&*layers, "two")?.get("file").map(|node| node.mtime);
    check_eq!(time, Some((1_700_000_000, 123_456_789)), "the time");
    Ok(())
}

/// An attribute that a lower layer has is in the upper layer's tar exactly if the file is
/// (<https://github.com/moby/moby/issues/35699>, <https://github.com/moby/moby/issues/43882>).
fn attributes_are_the_same_after_a_round_trip(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    if !layers.capabilities().xattrs.contains(&"user.") {
        return Err(Stop::not_offered("the driver keeps no attributes of the name space \"user.\""));
    }
    sealed(&*layers, "base", None, |root| {
        files::sample(root)?;
        files::xattr(&root.join("etc/passwd"), "user.kept", "kept")?;
        files::xattr(&root.join("empty"), "user.unchanged", "x")
    })?;
    grow(&*layers, "top", Some("base"), |root| write(&root.join("etc/passwd"), "changed"))?;
    let tar = entries(&diff(&*layers, "top")?)?;
    let file = tar.iter().find(|entry| entry.text() == "etc/passwd").map(|entry| entry.pax.clone());
    let kept = file.and_then(|pax| pax.get("SCHILY.xattr.user.kept").cloned());
    check_eq!(kept, Some(b"kept".to_vec()), "the attribute of a changed file");
    check!(tar.iter().all(|entry| entry.text() != "empty"), "an unchanged file is in the tar");
    Ok(())
}

/// A change of a block device's number is seen: its type bits contain those of a directory, and its change is no
/// directory's (<https://github.com/moby/moby/blob/20.10/pkg/archive/changes_unix.go>).
fn a_block_device_is_no_directory(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| {
        files::special(&root.join("disk"), FileType::BlockDevice, makedev(7, 1))?;
        files::special(&root.join("socket"), FileType::Socket, 0)
    })?;
    grow(&*layers, "top", Some("base"), |root| {
        let time = fs::metadata(root.join("disk"))?;
        fs::remove_file(root.join("disk"))?;
        files::special(&root.join("disk"), FileType::BlockDevice, makedev(7, 2))?;
        files::mtime(&root.join("disk"), time.mtime(), time.mtime_nsec())?;
        files::mtime(&root.join("socket"), 5, 5)
    })?;
    check_eq!(changes(&*layers, "top")?, ["C /disk", "C /socket"], "the changes");
    Ok(())
}

/// A tar has files whole: no sparse format, which other tools read differently
/// (<https://github.com/moby/buildkit/issues/1749>, <https://github.com/containers/storage/issues/1091>).
fn a_sparse_file_fills_no_tar_with_pieces(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, |root| {
        let file = fs::File::create(root.join("sparse"))?;
        Ok(file.set_len(3 << 20)?)
    })?;
    let tar = entries(&diff(&*layers, "layer")?)?;
    let file =
        tar.iter().find(|entry| entry.text() == "sparse").ok_or_else(|| Stop::failed("it is missing"))?;
    check_eq!((file.kind, file.content.len()), (b'0', 3 << 20), "type and length");
    check!(!file.pax.keys().any(|key| key.starts_with("GNU.sparse")), "the tar uses a sparse format");
    Ok(())
}

/// Padding without end at the end of an archive takes no memory
/// (CVE-2017-14992, <https://github.com/moby/moby/issues/35075>).
fn zeros_after_the_end_take_no_memory(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let tar = Tarball::of([Item::file("file", "x")]);
    let before = kernel::watch_memory()?;
    let mut padded = tar.chain(std::io::repeat(0).take(256 << 20));
    layers.import(&id("layer"), None, &mut padded, &mut |_| Ok(()))?;
    kernel::memory_stayed_below(before, 64)
}

/// What is no archive ends with an error, and does not wait for ever
/// (CVE-2021-20291, <https://nvd.nist.gov/vuln/detail/CVE-2021-20291>).
fn a_layer_that_is_no_tar_ends(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let mut noise = std::io::repeat(b'?').take(8 << 20);
    let imported = layers.import(&id("layer"), None, &mut noise, &mut |_| Ok(()));
    refused(imported, ErrorKind::InvalidInput)?;
    check!(!layers.contains(&id("layer"))?, "the layer is there");
    Ok(())
}

/// A hardlink to a symbolic link, with a mode of its own, changes no mode of what the link points to
/// (CVE-2021-32760, <https://nvd.nist.gov/vuln/detail/CVE-2021-32760>).
fn a_hardlink_to_a_symlink_changes_nothing_outside(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let outside = scene.work().join("outside");
    write(&outside, "x")?;
    files::mode(&outside, 0o600)?;
    let tar = Tarball::of([
        Item::symlink("link", outside.to_string_lossy().as_bytes()),
        Item::hardlink("hard", "link").mode(0o777).owner(1, 1),
    ]);
    let _ = import(&*layers, "layer", None, &tar);
    let metadata = fs::metadata(&outside)?;
    check_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o600, 0), "mode and owner of the file outside");
    Ok(())
}

/// A map of a sparse file that claims to have no end takes no memory
/// (CVE-2025-58183, <https://nvd.nist.gov/vuln/detail/CVE-2025-58183>).
fn a_sparse_header_takes_no_memory(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let records = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "vast")];
    let records = records.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
    let start =
        Tarball::new().pax(b'x', &records).item(Item::file("vast", "").claiming(1 << 32)).unfinished();
    let before = kernel::watch_memory()?;
    let mut tar = start.chain(std::io::repeat(b'1').take(1 << 30));
    refused(layers.import(&id("layer"), None, &mut tar, &mut |_| Ok(())), ErrorKind::InvalidInput)?;
    kernel::memory_stayed_below(before, 64)
}

/// A crafted layer overwrites no file of the host (CVE-2025-11395,
/// <https://github.com/advisories/GHSA-3gcv-x57j-xqxv>).
fn an_import_writes_no_file_of_the_host(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let outside = scene.work().join("outside");
    fs::create_dir(&outside)?;
    write(&outside.join("victim"), "untouched")?;
    let outside = outside.to_string_lossy().into_owned();
    let tars = [
        Tarball::of([Item::symlink("a", &outside), Item::symlink("b", "a"), Item::file("b/victim", "x")]),
        Tarball::of([Item::symlink("a", &outside), Item::hardlink("b", "a/victim"), Item::file("b", "x")]),
        Tarball::of([Item::directory("a"), Item::symlink("a", &outside), Item::file("a/victim", "x")]),
        Tarball::of([Item::symlink("a", "."), Item::symlink("a/a", &outside), Item::file("a/a/victim", "x")]),
    ];
    for tar in tars {
        if import(&*layers, "layer", None, &tar).is_ok() {
            layers.remove(&id("layer"))?;
        }
        let kept = fs::read_to_string(scene.work().join("outside/victim"))?;
        check_eq!(kept, "untouched", "the file of the host");
    }
    Ok(())
}

/// Links that are harmless alone lead out together
/// (CVE-2014-9356 and CVE-2014-9357, <https://nvd.nist.gov/vuln/detail/CVE-2014-9356>).
fn a_symlink_and_a_hardlink_break_out_together(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let victim = scene.work().join("victim");
    write(&victim, "untouched")?;
    let up = format!("{}{}", "../".repeat(30), victim.to_string_lossy().trim_start_matches('/'));
    let tars = [
        Tarball::of([Item::hardlink("h", &up), Item::file("h", "x")]),
        Tarball::of([Item::symlink("s", "/"), Item::hardlink("h", format!("s/{up}")), Item::file("h", "x")]),
        Tarball::of([Item::symlink("s", &up), Item::file("s", "x"), Item::hardlink("h", "s")]),
    ];
    for tar in tars {
        if import(&*layers, "layer", None, &tar).is_ok() {
            layers.remove(&id("layer"))?;
        }
        check_eq!(fs::read_to_string(&victim)?, "untouched", "the file of the host");
        check_eq!(fs::metadata(&victim)?.nlink(), 1, "the names that the file of the host has");
    }
    Ok(())
}

/// Roots are 0700 or 0710: who is not root gets to nothing in them
/// (CVE-2021-41091, <https://github.com/moby/moby/issues/42907>).
fn homes_are_closed_to_others(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let mount = layers.mount(&id("base"), &MountRequest::default())?;
    let records = scene.root().join("layerstack");
    for directory in [layers.home(), &records] {
        let mode = fs::metadata(directory)?.permissions().mode() & 0o7777;
        check!(mode & 0o027 == 0, "{} has the mode {mode:o}", directory.display());
    }
    Ok(mount.unmount()?)
}

/// A setuid program in a layer cannot be reached by users of the host
/// (CVE-2021-41103, <https://nvd.nist.gov/vuln/detail/CVE-2021-41103>,
/// and CVE-2024-25621).
fn setuid_programs_are_out_of_reach_of_others(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, |root| {
        write(&root.join("program"), "x")?;
        files::mode(&root.join("program"), 0o4755)
    })?;
    // Everything above the file has to be passable for others, and something is not.
    let mut found = Vec::new();
    collect(&scene.root(), "program", &mut found);
    for path in found {
        let closed =
            path.ancestors().skip(1).take_while(|above| above.starts_with(scene.root())).any(|above| {
                fs::metadata(above).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0)
            });
        check!(closed, "others can get to {}", path.display());
    }
    Ok(())
}

fn collect(directory: &Path, name: &str, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name() == name {
            found.push(entry.path());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), name, found);
        }
    }
}

/// A pull that fails leaves no layer that nothing knows of (<https://github.com/moby/moby/issues/45939>,
/// <https://github.com/moby/moby/issues/22207>, <https://github.com/moby/moby/issues/21925>).
fn a_failed_import_leaves_no_orphan(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "other", Some("base"), |_| Ok(()))?;
    let before = scene.names()?;
    let tar = Tarball::of((0..30).map(|count| Item::file(format!("f{count}"), "x")));
    // Each of these lies within a header.
    for length in [100, 1024 + 300, 1024 * 5 + 100, 1024 * 29 + 511] {
        let cut = import(&*layers, "layer", Some("base"), &tar[..length]);
        check!(cut.is_err(), "a tar cut after {length} bytes was applied");
        scene.must_have(&before)?;
    }
    must_be_clean(&*scene.open()?)
}

/// A file that a layer removed stays removed in all layers above it
/// (<https://github.com/containerd/containerd/issues/13030>).
fn whiteouts_are_not_lost_in_sealed_layers(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    import(
        &*layers,
        "a",
        None,
        &Tarball::of([Item::file("d/one", "1"), Item::file("d/two", "2"), Item::file("e", "3")]),
    )?;
    import(&*layers, "b", Some("a"), &Tarball::of([Item::file("d/.wh.one", ""), Item::file(".wh.e", "")]))?;
    import(&*layers, "c", Some("b"), &Tarball::of([Item::file("d/three", "3")]))?;
    import(&*layers, "d", Some("c"), &Tarball::of([Item::file("d/.wh.two", ""), Item::file("e/f", "4")]))?;
    let of = |name: &str| -> Verdict<Vec<String>> {
        Ok(snapshot(&*layers, name)?.paths().iter().map(|path| path.display().to_string()).collect())
    };
    check_eq!(of("c")?, ["d", "d/three", "d/two"], "the files of the third layer");
    check_eq!(of("d")?, ["d", "d/three", "e", "e/f"], "the files of the fourth layer");
    Ok(())
}

/// More than 122 layers, as many as images have, can be mounted (<https://github.com/moby/moby/issues/26380>,
/// <https://github.com/docker/for-linux/issues/414>).
fn a_hundred_and_thirty_layers_can_be_mounted(scene: &Scene) -> Verdict {
    let config = scene.config().with_durability(layerstack_core::layers::Durability::Never);
    let layers = scene.try_open(&scene.root(), &config)?;
    let most = layers.capabilities().max_depth.unwrap_or(130).min(130);
    let mut parent: Option<String> = None;
    for level in 1..most {
        // Ids as long as real ones, which is what made the option string too long.
        let name = format!("{level:064x}");
        import(&*layers, &name, parent.as_deref(), &Tarball::of([Item::file(format!("f{level}"), "x")]))?;
        parent = Some(name);
    }
    grow(&*layers, "top", parent.as_deref(), |root| {
        check_eq!(fs::read_dir(root)?.count(), most as usize - 1, "the number of files");
        write(&root.join("f1"), "changed")
    })?;
    check_eq!(changes(&*layers, "top")?, ["C /f1"], "the changes");
    Ok(())
}

/// A layer can be removed as soon as it is unmounted, every time (<https://github.com/moby/moby/issues/20153>,
/// <https://github.com/moby/moby/issues/31247>).
fn a_layer_can_be_removed_right_after_its_unmount(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    for _ in 0..40 {
        grow(&*layers, "layer", Some("base"), |root| write(&root.join("file"), "x"))?;
        layers.remove(&id("layer"))?;
    }
    check_eq!(layers.list()?, [id("base")], "the layers left");
    Ok(())
}

/// Many layers made on one parent at the same instant do not get in each other's way: a name taken from the clock
/// is taken twice (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/zfs/zfs.go>).
fn clones_made_at_once_have_names_of_their_own(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let ids: Vec<_> = (0..24).map(|number| id(&format!("clone-{number}"))).collect();
    let create = |id: &LayerId| layers.create(id, Some(&self::id("base")), &Options::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = ids.iter().map(|id| scope.spawn(move || create(id))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| Stop::failed("a thread panicked")))
            .try_for_each(|created| -> Verdict {
                created??;
                Ok(())
            })
    })?;
    check_eq!(layers.children(&id("base"))?.len(), 24, "the number of children");
    must_be_clean(&*layers)
}

/// Creating an id that exists does not destroy the layer's children, as `zfs destroy -R` did
/// (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/zfs/zfs.go>).
fn creating_again_does_not_destroy_children(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "middle", Some("base"), |root| write(&root.join("middle"), "m"))?;
    grow(&*layers, "top", Some("middle"), |root| write(&root.join("top"), "t"))?;
    let before = snapshot(&*layers, "top")?;
    refused(layers.create(&id("middle"), Some(&id("base")), &Options::new()), ErrorKind::AlreadyExists)?;
    refused(layers.create(&id("base"), None, &Options::new()), ErrorKind::AlreadyExists)?;
    snapshot(&*layers, "top")?.must_equal(&before, "the child of a layer created again")
}

/// A creation that fails for its parent does not remove what already had the id
/// (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/overlay2/overlay.go>).
fn creating_again_with_a_bad_parent_does_not_destroy_the_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    let before = snapshot(&*layers, "layer")?;
    check!(
        layers.create(&id("layer"), Some(&id("missing")), &Options::new()).is_err(),
        "it was created again"
    );
    snapshot(&*layers, "layer")?.must_equal(&before, "the layer")
}

/// A creation that fails for its parent leaves no link behind
/// (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/overlay2/overlay.go>).
fn a_failed_creation_leaves_no_link(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let before = scene.names()?;
    for _ in 0..3 {
        refused(layers.create(&id("layer"), Some(&id("missing")), &Options::new()), ErrorKind::NotFound)?;
    }
    scene.must_have(&before)
}

/// An option found wrong after the layer was made leaves no layer behind
/// (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/btrfs/btrfs.go>).
fn a_bad_option_leaves_no_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let before = scene.names()?;
    for option in scene.registration().layer_options {
        let mut options = Options::new();
        options.set(option.name, "\u{1}no value at all");
        let created = layers.create(&id("layer"), Some(&id("base")), &options);
        check!(created.is_err(), "the option {} takes anything", option.name);
        scene.must_have(&before)?;
    }
    let parsed = Options::parse(["unknown=1"])?;
    refused(layers.create(&id("layer"), Some(&id("base")), &parsed), ErrorKind::InvalidInput)?;
    scene.must_have(&before)
}

/// A socket in a parent is a socket in its child, and no pipe
/// (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/copy/copy.go>).
fn a_socket_stays_a_socket(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| {
        files::special(&root.join("socket"), FileType::Socket, 0)?;
        files::special(&root.join("pipe"), FileType::Fifo, 0)
    })?;
    layers.create(&id("child"), Some(&id("base")), &Options::new())?;
    let tree = snapshot(&*layers, "child")?;
    let kind = |path: &str| tree.get(path).map(|node| node.kind.clone());
    check_eq!(kind("socket"), Some(Kind::Special(FileType::Socket.as_raw_mode(), 0)), "the socket");
    check_eq!(kind("pipe"), Some(Kind::Special(FileType::Fifo.as_raw_mode(), 0)), "the pipe");
    check_eq!(changes(&*layers, "child")?, Vec::<String>::new(), "the changes");
    Ok(())
}

/// The holes of a parent's file are holes in its child
/// (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/copy/copy.go>).
fn holes_stay_holes_in_children(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| {
        let file = fs::File::create(root.join("sparse"))?;
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", 1 << 24)?;
        Ok(file.set_len(32 << 20)?)
    })?;
    grow(&*layers, "child", Some("base"), |root| {
        // Opening it for writing makes a copy where the parent's was used so far.
        fs::OpenOptions::new().append(true).open(root.join("sparse"))?;
        files::mode(&root.join("sparse"), 0o600)?;
        let blocks = fs::metadata(root.join("sparse"))?.blocks() * 512;
        // A copy may be made in pieces of a mebibyte.
        check!(blocks <= 4 << 20, "{blocks} bytes are allocated");
        Ok(())
    })
}

/// A file cut short while it is copied ends the copy and does not loop for ever; here: files whose length no copy
/// can believe (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/copy/copy.go>).
fn a_truncated_file_ends_the_copy(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| {
        write(&root.join("empty"), "")?;
        let file = fs::File::create(root.join("only-hole"))?;
        file.set_len(1 << 20)?;
        let file = fs::File::create(root.join("ends-with-hole"))?;
        std::os::unix::fs::FileExt::write_all_at(&file, &[b'x'; 5000], 0)?;
        Ok(file.set_len(1 << 20)?)
    })?;
    layers.create(&id("child"), Some(&id("base")), &Options::new())?;
    let base = snapshot(&*layers, "base")?;
    snapshot(&*layers, "child")?.must_equal(&base, "a child with odd files")
}

/// More unmounts than mounts are refused, and do no harm to the next mount
/// (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/counter.go>).
fn an_unmount_too_many_is_no_harm(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    for _ in 0..3 {
        refused(layers.unmount(&id("layer"), None), ErrorKind::NotFound)?;
    }
    let mount = layers.mount(&id("layer"), &MountRequest::default())?;
    check!(mount.target().join("etc/passwd").exists(), "nothing is mounted");
    refused(layers.remove(&id("layer")), ErrorKind::InUse)?;
    mount.unmount()?;
    Ok(layers.remove(&id("layer"))?)
}

/// A layer that another process removed is unknown here too: nothing is believed from memory
/// (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/zfs/zfs.go>).
fn a_layer_removed_behind_ones_back_is_noticed(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    scene.errand([crate::errand::Step::Remove(id("layer"))]).run()?.must_be_well()?;
    check!(!layers.contains(&id("layer"))?, "the layer is believed to be there");
    refused(layers.mount(&id("layer"), &MountRequest::default()), ErrorKind::NotFound)?;
    layers.create(&id("layer"), None, &Options::new())?;
    check_eq!(snapshot(&*layers, "layer")?.paths().len(), 0, "the number of files in the new layer");
    Ok(())
}

/// A whiteout's time is not that of its making: the same layer gives the same bytes at any time
/// (<https://github.com/moby/moby/blob/20.10/pkg/archive/changes.go>).
fn whiteouts_have_no_time_of_their_own(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let make = |name: &str| {
        grow(&*layers, name, Some("base"), |root| {
            fs::remove_file(root.join("empty"))?;
            fs::remove_dir_all(root.join("etc/init"))?;
            for path in ["etc", "."] {
                files::mtime(&root.join(path), 1_400_000_000, 0)?;
            }
            Ok(())
        })
    };
    make("one")?;
    std::thread::sleep(std::time::Duration::from_millis(1100));
    make("two")?;
    check!(
        diff(&*layers, "one")? == diff(&*layers, "two")?,
        "two layers with the same change differ in their tars"
    );
    Ok(())
}

/// Two files are one only if device and inode are the same: equal numbers on a lower and an upper file system are
/// none (<https://github.com/moby/moby/blob/20.10/pkg/archive/archive.go>).
fn links_between_layers_are_by_device_and_inode(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, |root| {
        (0..30).try_for_each(|count| {
            write(&root.join(format!("old-{count}")), format!("old {count}"))?;
            Ok(fs::hard_link(root.join(format!("old-{count}")), root.join(format!("link-{count}")))?)
        })
    })?;
    grow(&*layers, "top", Some("base"), |root| {
        (0..30).try_for_each(|count| {
            write(&root.join(format!("new-{count}")), format!("new {count}"))?;
            Ok(fs::hard_link(root.join(format!("new-{count}")), root.join(format!("also-{count}")))?)
        })
    })?;
    for base in [Base::Parent, Base::Nothing] {
        let mut tar = Vec::new();
        layers.diff(&id("top"), base, &mut tar)?;
        for entry in entries(&tar)?.iter().filter(|entry| entry.kind == b'1') {
            let number = |name: &[u8]| String::from_utf8_lossy(name).rsplit('-').next().map(str::to_owned);
            let target = entry.link.clone().unwrap_or_default();
            check_eq!(number(&entry.name), number(&target), "what a link links to");
        }
    }
    Ok(())
}

/// A new name of an unchanged file is a link after a round trip too, and the tar has both names
/// (<https://github.com/moby/moby/blob/20.10/pkg/archive/changes.go>).
fn a_linked_file_that_was_not_changed_keeps_its_link(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "top", Some("base"), |root| {
        Ok(fs::hard_link(root.join("etc/passwd"), root.join("etc/zz"))?)
    })?;
    check_eq!(changes(&*layers, "top")?.last().map(String::as_str), Some("A /etc/zz"), "the last change");
    let tar = diff(&*layers, "top")?;
    import(&*layers, "copy", Some("base"), &tar)?;
    edit(&*layers, "top", |root| {
        let (one, two) = (fs::metadata(root.join("etc/passwd"))?, fs::metadata(root.join("etc/zz"))?);
        check_eq!(one.ino(), two.ino(), "the inode of the layer's two names");
        Ok(())
    })?;
    let tree = snapshot(&*layers, "copy")?;
    check!(tree.get("etc/zz").is_some_and(|node| node.same_as.is_some()), "the copy's names are two files");
    Ok(())
}

/// Directories that a tar does not name can be entered: their mode is that of a directory, not of a file
/// (<https://github.com/moby/moby/blob/20.10/pkg/archive/diff.go>).
fn missing_parents_of_an_entry_can_be_entered(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    import(
        &*layers,
        "layer",
        None,
        &Tarball::of([Item::file("a/b/c/file", "x"), Item::symlink("d/e/link", "x")]),
    )?;
    let tree = snapshot(&*layers, "layer")?;
    for path in ["a", "a/b", "a/b/c", "d", "d/e"] {
        check_eq!(tree.get(path).map(|node| node.mode), Some(0o755), "the mode of {path}");
    }
    Ok(())
}

/// A layer's root directory inherits mode and owner from the parent's, so that a container's `/` is what its image
/// says (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/overlay2/overlay.go>).
fn the_roots_mode_is_the_parents(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    import(&*layers, "base", None, &Tarball::of([Item::directory("./").mode(0o555).owner(10, 20)]))?;
    import(&*layers, "middle", Some("base"), &Tarball::of([Item::file("file", "x")]))?;
    layers.create(&id("top"), Some(&id("middle")), &Options::new())?;
    for name in ["base", "middle", "top"] {
        let root = snapshot(&*layers, name)?.get("").map(|root| (root.mode, root.owner));
        check_eq!(root, Some((0o555, (10, 20))), "the root directory of {name}");
    }
    Ok(())
}

/// Mounts do not pile up where a process mounts, dies, and mounts again
/// (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/counter.go>).
fn two_rounds_of_mounting_leave_one_mount_at_most(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    for _ in 0..3 {
        let mut process = scene.errand([crate::errand::Step::Hold(id("layer"))]).start()?;
        process.wait_for_a_line()?;
        process.kill()?;
        process.finish()?;
        check!(kernel::mounts_below(&scene.root())?.len() <= 1, "mounts pile up");
    }
    drop(scene.open()?);
    check_eq!(kernel::mounts_below(&scene.root())?.len(), 0, "the number of mounts after an open");
    Ok(())
}

/// A mount that went away without being unmounted leaves nothing in the way of the next, as a work directory marked
/// in use would be (<https://github.com/containers/storage/blob/main/drivers/overlay/overlay.go>).
fn a_volatile_or_stale_work_directory_is_no_obstacle(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("layer"), Some(&id("base")), &Options::new())?;
    for round in 0..3 {
        let mount = layers.mount(&id("layer"), &MountRequest::default())?;
        write(&mount.target().join(format!("file-{round}")), "x")?;
        let open = fs::File::open(mount.target().join("etc/passwd"))?;
        kernel::take_away(mount.target())?;
        drop((mount, open));
    }
    check_eq!(changes(&*layers, "layer")?, ["A /file-0", "A /file-1", "A /file-2"], "the changes");
    Ok(layers.remove(&id("layer"))?)
}

/// A layer that is not there is not mounted as an empty or a missing directory
/// (<https://github.com/moby/moby/blob/20.10/daemon/graphdriver/aufs/aufs.go>).
fn an_absent_layer_cannot_be_mounted(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let before = scene.names()?;
    let link = scene.work().join("link");
    symlink("base", &link)?;
    for name in ["missing", "bas", "base-"] {
        refused(layers.mount(&id(name), &MountRequest::default()), ErrorKind::NotFound)?;
    }
    scene.must_have(&before)
}

/// The names of what makes up each layer; no two layers may share one.
fn must_be_apart(layers: &dyn Subject, ids: &[LayerId]) -> Verdict {
    let mut owners: BTreeMap<String, &LayerId> = BTreeMap::new();
    for id in ids {
        let pieces = layers.inspect(id)?;
        // The piece that names the layer's own storage, whatever the driver calls it; sizes are equal by right.
        for (key, piece) in
            pieces.into_iter().filter(|(key, _)| !key.contains("Lower") && !key.contains("Size"))
        {
            if let Some(other) = owners.insert(format!("{key} {piece}"), id) {
                return Err(Stop::failed(format_args!("{other} and {id} are both in {key} {piece}")));
            }
        }
    }
    Ok(())
}

/// A creation that failed takes no number, name or note that a later one needs
/// (<https://github.com/containerd/containerd/issues/5110>).
fn failed_creations_take_nothing_from_later_ones(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let base = snapshot(&*layers, "base")?;
    let before = scene.names()?;
    let mut wrong = Options::new();
    wrong.set("size", "banana");
    let ids: Vec<_> = (0..6).map(|number| id(&format!("layer-{number}"))).collect();
    for id in &ids {
        for parent in ["base", "missing"] {
            let made = layers.create(id, Some(&self::id(parent)), &wrong);
            check!(made.is_err(), "{id} was made on {parent} with a size that is none");
        }
        scene.must_have(&before)?;
    }
    for id in &ids {
        layers.create(id, Some(&self::id("base")), &Options::new())?;
        snapshot(&*layers, id.as_str())?.must_equal(&base, "the layer made after a failure")?;
    }
    must_be_apart(&*layers, &ids)?;
    must_be_clean(&*layers)
}

/// Where the records are lost nothing has to be thrown away: the layers can be used and removed, and others made
/// (<https://github.com/containerd/containerd/issues/4790>).
fn lost_records_do_not_keep_others_from_creating(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "old-base", None, files::sample)?;
    grow(&*layers, "old-top", Some("old-base"), |root| write(&root.join("file"), "x"))?;
    let wanted = snapshot(&*layers, "old-top")?;
    drop(layers);
    fs::remove_dir_all(scene.root().join("layerstack"))?;
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let ids: Vec<_> = (0..4).map(|number| id(&format!("layer-{number}"))).collect();
    for id in &ids {
        layers.create(id, Some(&self::id("base")), &Options::new())?;
    }
    let all = [&ids[..], &[id("base"), id("old-base"), id("old-top")]].concat();
    must_be_apart(&*layers, &all)?;
    snapshot(&*layers, "old-top")?.must_equal(&wanted, "the layer that has lost its record")?;
    for name in ["old-top", "old-base"] {
        layers.remove(&id(name))?;
    }
    must_be_clean(&*layers)
}

/// A process that is killed while it makes layers keeps nobody from making layers of the same and of other names,
/// however often: "file exists", "object already exists" (<https://github.com/containerd/containerd/pull/3436>,
/// <https://github.com/containerd/containerd/issues/5646>).
fn interrupted_creations_do_not_keep_others_from_creating(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let base = snapshot(&*layers, "base")?;
    drop(layers);
    let ids: Vec<_> = (0..40).map(|number| id(&format!("layer-{number}"))).collect();
    let before = scene.names()?;
    for round in 0..10 {
        let steps: Vec<_> = ids.iter().map(|id| Step::Create(id.clone(), Some(self::id("base")))).collect();
        let mut process = scene.errand(steps).start()?;
        std::thread::sleep(Duration::from_millis(5 + 9 * round));
        process.kill()?;
        process.finish()?;
        let layers = scene.open()?;
        for id in &ids {
            if !layers.contains(id)? {
                layers.create(id, Some(&self::id("base")), &Options::new())?;
            }
        }
        must_be_apart(&*layers, &ids)?;
        must_be_clean(&*layers)?;
        snapshot(&*layers, "layer-0")?.must_equal(&base, "the first layer")?;
        for id in &ids {
            layers.remove(id)?;
        }
        drop(layers);
        scene.must_have(&before)?;
    }
    Ok(())
}
