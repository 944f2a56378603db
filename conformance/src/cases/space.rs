//! A store that is full.

use std::fs;
use std::io::Write;
use std::path::Path;

use layerstack_core::ErrorKind;
use layerstack_core::capability::QuotaKind;
use layerstack_core::layers::MountRequest;
use layerstack_core::options::Options;
use rustix::io::Errno;

use crate::case::{Stop, Verdict, cases, check, check_eq, refused};
use crate::files::{self, write};
use crate::kernel;
use crate::scene::{Scene, grow, id, import, must_be_clean, sealed, snapshot};
use crate::snapshot::{Kind, hash_of};
use crate::subject::Subject;
use crate::tarball::{Item, Tarball};

cases!("space.rs":
    an_import_that_does_not_fit_leaves_nothing,
    an_apply_that_does_not_fit_leaves_nothing,
    more_files_than_fit_leave_nothing,
    a_layer_that_does_not_fit_is_not_created,
    writing_to_a_full_store_leaves_the_layer_whole,
    a_full_store_can_be_opened_read_and_cleared,
    removing_a_layer_gives_its_space_back,
);

/// A tar with files of a megabyte each, which no file system can make smaller.
fn large(megabytes: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(megabytes);
    Tarball::of((0..megabytes).map(|count| {
        let content: Vec<u8> = (0..1 << 17).flat_map(|_| random.u64(..).to_le_bytes()).collect();
        Item::file(format!("large-{count}"), content)
    }))
}

/// More than the store holds, in megabytes.
fn too_much(scene: &Scene) -> Verdict<u64> {
    let free = kernel::free_bytes(&scene.work())? >> 20;
    if free > 1024 {
        return Err(Stop::not_run(format!("the small store has {free} MiB, which takes too long to fill")));
    }
    Ok(free + 16)
}

/// Fills the store by a file that is none of the driver's, up to the last `left` bytes.
fn fill(scene: &Scene, left: u64) -> Verdict<std::path::PathBuf> {
    let path = scene.work().join("filler");
    let mut file = fs::File::create(&path)?;
    let chunk: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(64 << 10).collect();
    loop {
        let free = kernel::free_bytes(&scene.work())?;
        let want = usize::try_from(free.saturating_sub(left)).unwrap_or(usize::MAX).min(chunk.len());
        if want == 0 {
            break;
        }
        match file.write_all(&chunk[..want]).and_then(|()| file.sync_data()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(path)
}

fn must_be_usable(layers: &dyn Subject) -> Verdict {
    import(layers, "small", Some("base"), &Tarball::of([Item::file("small", "fits")]))?;
    check!(snapshot(layers, "small")?.get("small").is_some(), "a small layer is not whole");
    layers.remove(&id("small"))?;
    must_be_clean(layers)
}

/// Out of space: `NoSpace`, with the layer absent, the store usable.
fn an_import_that_does_not_fit_leaves_nothing(scene: &Scene) -> Verdict {
    scene.on_small_store(|scene| {
        let layers = scene.open()?;
        sealed(&*layers, "base", None, files::sample)?;
        let before = scene.names()?;
        let error =
            refused(import(&*layers, "large", Some("base"), &large(too_much(scene)?)), ErrorKind::NoSpace)?;
        check!(format!("{error:?}").contains("large"), "the error names neither layer nor entry: {error:?}");
        check!(!layers.contains(&id("large"))?, "the layer is there");
        scene.must_have(&before)?;
        must_be_usable(&*layers)
    })
}

/// Out of space: `NoSpace`, with the layer absent (apply), the store usable.
fn an_apply_that_does_not_fit_leaves_nothing(scene: &Scene) -> Verdict {
    scene.on_small_store(|scene| {
        let layers = scene.open()?;
        sealed(&*layers, "base", None, files::sample)?;
        let before = scene.names()?;
        layers.create(&id("large"), Some(&id("base")), &Options::new())?;
        refused(layers.apply(&id("large"), &mut &large(too_much(scene)?)[..]), ErrorKind::NoSpace)?;
        check!(!layers.contains(&id("large"))?, "the layer is there");
        scene.must_have(&before)?;
        must_be_usable(&*layers)
    })
}

/// Out of inodes is out of space: `NoSpace`, with the layer absent, the store usable. Where files take the room that the
/// file system keeps for metadata, so that `df` shows neither, the error says what is full.
fn more_files_than_fit_leave_nothing(scene: &Scene) -> Verdict {
    scene.on_small_store(|scene| {
        let layers = scene.open()?;
        sealed(&*layers, "base", None, files::sample)?;
        let before = scene.names()?;
        // Those of the layer, which may have a file system of its own.
        let mount = layers.mount(&id("base"), &MountRequest::default())?;
        let inodes = rustix::fs::statvfs(mount.target())?.f_ffree;
        mount.unmount()?;
        if inodes == 0 {
            return more_metadata_than_fit(scene, &*layers, &before);
        }
        if inodes > 100_000 {
            let reason = format!("a layer on the small store has room for {inodes} files");
            let own = layers.capabilities().quota_kind == Some(QuotaKind::FileSystem);
            return Err(if own { Stop::not_offered(reason) } else { Stop::not_run(reason) });
        }
        let tar = Tarball::of((0..inodes + 10).map(|count| Item::file(format!("f{count}"), "")));
        refused(import(&*layers, "many", Some("base"), &tar), ErrorKind::NoSpace)?;
        check!(!layers.contains(&id("many"))?, "the layer is there");
        scene.must_have(&before)?;
        must_be_usable(&*layers)
    })
}

/// On a file system that gives inodes no fixed number, and has room for data when it has none for files.
fn more_metadata_than_fit(scene: &Scene, layers: &dyn Subject, before: &[String]) -> Verdict {
    // So small that they lie beside their metadata.
    let file = |count: u64| (format!("{count:0>100}"), vec![b'x'; 1500]);
    let most = too_much(scene)? << 10;
    let full = (0..most).find_map(|count| {
        let (name, content) = file(count);
        fs::write(scene.work().join(name), content).err()
    });
    let errno = full.as_ref().and_then(std::io::Error::raw_os_error);
    check_eq!(errno, Some(Errno::NOSPC.raw_os_error()), "the end of making files");
    let free = kernel::free_bytes(&scene.work())?;
    let tar = Tarball::of((0..5000).map(|count| {
        let (name, content) = file(count);
        Item::file(name, content)
    }));
    let error = refused(import(layers, "many", Some("base"), &tar), ErrorKind::NoSpace)?;
    check!(!layers.contains(&id("many"))?, "the layer is there");
    if free > 8 << 20 {
        let says = error.to_string();
        check!(
            says.contains("metadata"),
            "{free} bytes are free, and the error does not say what is full: {says}"
        );
    }
    for entry in fs::read_dir(scene.work())? {
        fs::remove_file(entry?.path())?;
    }
    layerstack_core::fs::sync_file_system(&scene.work())?;
    scene.must_have(before)?;
    must_be_usable(layers)
}

/// Out of space: `NoSpace`, with the layer absent (create); a driver that needs no space for it may do it.
fn a_layer_that_does_not_fit_is_not_created(scene: &Scene) -> Verdict {
    scene.on_small_store(|scene| {
        let layers = scene.open()?;
        sealed(&*layers, "base", None, |root| {
            files::sample(root)?;
            write(&root.join("large"), vec![7; 4 << 20])
        })?;
        let before = scene.names()?;
        let filler = fill(scene, 1 << 20)?;
        let created = layers.create(&id("layer"), Some(&id("base")), &Options::new());
        match created {
            Ok(()) => {
                let base = snapshot(&*layers, "base")?;
                snapshot(&*layers, "layer")?.must_equal(&base, "the layer made on a full store")?;
                layers.remove(&id("layer"))?;
            }
            Err(error) => {
                check_eq!(error.kind(), ErrorKind::NoSpace, "the kind of {error:?}");
                check!(!layers.contains(&id("layer"))?, "the layer is there");
            }
        }
        scene.must_have(&before)?;
        fs::remove_file(filler)?;
        layers.create(&id("layer"), Some(&id("base")), &Options::new())?;
        must_be_usable(&*layers)
    })
}

/// Out of space: the kernel says so to who writes through a mount, and the layer is whole. A layer that is a file system of
/// its own may be taken out of use by that, until it is mounted again.
fn writing_to_a_full_store_leaves_the_layer_whole(scene: &Scene) -> Verdict {
    scene.on_small_store(|scene| {
        let layers = scene.open()?;
        sealed(&*layers, "base", None, files::sample)?;
        let own = layers.capabilities().quota_kind == Some(QuotaKind::FileSystem);
        if own {
            import(&*layers, "filler", Some("base"), &large(8))?;
        }
        layers.create(&id("layer"), Some(&id("base")), &Options::new())?;
        let mut mount = layers.mount(&id("layer"), &MountRequest::default())?;
        write(&mount.target().join("before"), "written before")?;
        layerstack_core::fs::sync_file_system(mount.target())?;
        let full = write_until_full(mount.target(), too_much(scene)?)?.map(Errno::from_raw_os_error);
        let kept = fs::read_to_string(mount.target().join("before"))?;
        check_eq!(kept, "written before", "a file that was there before");
        if own {
            let expected = [Errno::NOSPC, Errno::IO, Errno::ROFS];
            check!(full.is_some_and(|errno| expected.contains(&errno)), "a full store gave {full:?}");
            // It may say that it lost something.
            if let Err(error) = mount.unmount() {
                check!(error.kind() != ErrorKind::InUse, "the mount stays: {error:?}");
            }
            layers.remove(&id("filler"))?;
            mount = layers.mount(&id("layer"), &MountRequest::default())?;
            let kept = fs::read_to_string(mount.target().join("before"))?;
            check_eq!(kept, "written before", "a file that was there before, when mounted again");
        } else {
            check_eq!(full, Some(Errno::NOSPC), "the error number when the store is full");
        }
        fs::remove_file(mount.target().join("too-large"))?;
        write(&mount.target().join("after"), "written afterwards")?;
        mount.unmount()?;
        let tree = snapshot(&*layers, "layer")?;
        let wanted = Kind::File { size: 18, hash: hash_of(b"written afterwards") };
        check_eq!(tree.get("after").map(|node| node.kind.clone()), Some(wanted), "a file written afterwards");
        layers.seal(&id("layer"))?;
        must_be_usable(&*layers)
    })
}

fn write_until_full(root: &Path, megabytes: u64) -> Verdict<Option<i32>> {
    let mut file = fs::File::create(root.join("too-large"))?;
    let chunk: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
    for _ in 0..megabytes {
        if let Err(error) = file.write_all(&chunk).and_then(|()| file.sync_data()) {
            return Ok(error.raw_os_error());
        }
    }
    Ok(None)
}

/// A full store is usable: it opens, its layers are read, and removing them makes room.
fn a_full_store_can_be_opened_read_and_cleared(scene: &Scene) -> Verdict {
    scene.on_small_store(|scene| {
        let layers = scene.open()?;
        sealed(&*layers, "base", None, files::sample)?;
        grow(&*layers, "top", Some("base"), |root| write(&root.join("etc/passwd"), "changed"))?;
        let wanted = snapshot(&*layers, "top")?;
        drop(layers);
        let filler = fill(scene, 0)?;
        if rustix::fs::statvfs(scene.work())?.f_files == 0 {
            make_room_for_a_mount(scene, &filler)?;
        }
        let layers = scene.open()?;
        snapshot(&*layers, "top")?.must_equal(&wanted, "the layer on a full store")?;
        let changes = crate::scene::changes(&*layers, "top")?;
        check_eq!(changes, ["C /etc", "C /etc/passwd"], "the changes");
        layers.remove(&id("top"))?;
        layers.remove(&id("base"))?;
        check_eq!(layers.list()?, [], "the layers left");
        must_be_clean(&*layers)
    })
}

/// Reading takes a mount, and a mount takes a note. Where metadata has no room of its own (`f_files` is 0: btrfs), and
/// nothing is kept back for root, that note is the one thing that does not fit.
fn make_room_for_a_mount(scene: &Scene, filler: &Path) -> Verdict {
    let file = fs::OpenOptions::new().write(true).open(filler)?;
    file.set_len(file.metadata()?.len().saturating_sub(256 << 10))?;
    Ok(layerstack_core::fs::sync_file_system(&scene.work())?)
}

/// Removing a layer frees what it had alone.
fn removing_a_layer_gives_its_space_back(scene: &Scene) -> Verdict {
    scene.on_small_store(|scene| {
        let layers = scene.open()?;
        let room = kernel::free_bytes(&scene.work())? >> 20;
        // Each round takes more than half of the store, so that a second one fits only where the first is gone.
        let tar = large(room * 6 / 10);
        for round in 0..4 {
            import(&*layers, &format!("layer-{round}"), None, &tar)?;
            layers.remove(&id(&format!("layer-{round}")))?;
            // File systems that free their blocks behind one's back have done so then.
            layerstack_core::fs::sync_file_system(&scene.work())?;
        }
        Ok(())
    })
}
