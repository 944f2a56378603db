//! Limits of single layers, where the driver has them.

use std::fs;
use std::io::Write;
use std::path::Path;

use layerstack_core::ErrorKind;
use layerstack_core::capability::QuotaKind;
use layerstack_core::layers::MountRequest;
use layerstack_core::options::Options;
use rustix::io::Errno;

use crate::case::{Stop, Verdict, cases, check, check_eq, refused, refused_as_one_of};
use crate::files::{self, write};
use crate::kernel;
use crate::scene::{Scene, edit, id, must_be_clean, sealed, snapshot};
use crate::subject::Subject;
use crate::tarball::{Item, Tarball};

cases!("quota.rs":
    a_limit_that_is_not_offered_is_refused,
    a_limit_that_is_no_size_is_refused,
    a_mount_is_not_filled_beyond_the_limit,
    a_tar_is_not_applied_beyond_the_limit,
    a_parent_over_the_limit_is_not_copied,
    the_limit_is_of_one_layer,
    the_parents_data_count_as_declared,
);

/// The limit that the cases set: small, and yet enough for a file system of its own.
const LIMIT: u64 = 64 << 20;

fn sized(size: &str) -> Options {
    let mut options = Options::new();
    options.set("size", size);
    options
}

/// Makes a layer with the limit that the cases set.
fn limited(layers: &dyn Subject, name: &str, parent: Option<&str>) -> Verdict {
    let made = layers.create(&id(name), parent.map(id).as_ref(), &sized(&LIMIT.to_string()));
    match made {
        Err(error) if error.kind() == ErrorKind::InvalidInput && is_file_system(layers) => {
            Err(Stop::not_offered(format!(
                "a layer's file system is larger than {} MiB; let LAYERSTACK_CONFORMANCE_OPTIONS make it smaller",
                LIMIT >> 20
            )))
        }
        made => Ok(made?),
    }
}

fn is_file_system(layers: &dyn Subject) -> bool {
    layers.capabilities().quota_kind == Some(QuotaKind::FileSystem)
}

fn needs_quota(layers: &dyn Subject) -> Verdict {
    match layers.capabilities().quota.reason() {
        None => Ok(()),
        Some(reason) => Err(Stop::not_offered(format!("no quota: {reason}"))),
    }
}

/// A capability that is not offered: `Unsupported` with the reason; any failed call leaves nothing behind.
fn a_limit_that_is_not_offered_is_refused(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    if layers.capabilities().quota.offered() {
        return Err(Stop::not_offered("the driver offers quota"));
    }
    let before = scene.names()?;
    let kind = if scene.registration().layer_options.iter().any(|option| option.name == "size") {
        ErrorKind::Unsupported
    } else {
        ErrorKind::InvalidInput
    };
    refused(layers.create(&id("layer"), None, &sized("64M")), kind)?;
    check!(!layers.contains(&id("layer"))?, "the layer is there");
    scene.must_have(&before)
}

/// An option's value that is none: `InvalidInput` naming it; any failed call leaves nothing behind.
fn a_limit_that_is_no_size_is_refused(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let before = scene.names()?;
    for size in ["banana", "-1", "1X", "", "1e400"] {
        let kinds = [ErrorKind::InvalidInput, ErrorKind::Unsupported];
        let kinds = if layers.capabilities().quota.offered() { &kinds[..1] } else { &kinds[..] };
        refused_as_one_of(layers.create(&id("layer"), Some(&id("base")), &sized(size)), kinds)?;
        check!(!layers.contains(&id("layer"))?, "the layer is there");
        scene.must_have(&before)?;
    }
    Ok(())
}

/// Writes until the kernel refuses, and says how much was taken and with which error it ended. As the processes of
/// containers do it, without `CAP_SYS_RESOURCE`, which on some file systems stands above quota.
fn write_up_to(path: &Path, most: u64) -> Verdict<(u64, Option<i32>)> {
    let before = kernel::give_up_resource()?;
    let written = write_until_refused(path, most);
    kernel::take_back(before)?;
    written
}

fn write_until_refused(path: &Path, most: u64) -> Verdict<(u64, Option<i32>)> {
    let mut file = fs::File::create(path)?;
    let chunk: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
    let mut written = 0;
    while written < most {
        if let Err(error) = file.write_all(&chunk).and_then(|()| file.sync_data()) {
            return Ok((written, error.raw_os_error()));
        }
        written += chunk.len() as u64;
    }
    Ok((written, None))
}

/// Out of quota: the kernel says so to who writes through a mount, near the limit, and the layer is whole.
fn a_mount_is_not_filled_beyond_the_limit(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    needs_quota(&*layers)?;
    sealed(&*layers, "base", None, files::sample)?;
    limited(&*layers, "layer", Some("base"))?;
    let mount = layers.mount(&id("layer"), &MountRequest::default())?;
    let (written, errno) = write_up_to(&mount.target().join("large"), LIMIT * 2)?;
    let full = [Errno::DQUOT, Errno::NOSPC].map(|errno| Some(errno.raw_os_error()));
    check!(full.contains(&errno), "writing twice the limit ended with {errno:?}");
    check!((LIMIT / 4..=LIMIT).contains(&written), "{written} bytes fit into a layer of {LIMIT}");
    fs::remove_file(mount.target().join("large"))?;
    write(&mount.target().join("after"), "fits again")?;
    mount.unmount()?;
    check!(snapshot(&*layers, "layer")?.get("usr/bin/tool").is_some(), "the layer is not whole");
    layers.remove(&id("layer"))?;
    must_be_clean(&*layers)
}

/// Out of quota: `QuotaExceeded` (or `NoSpace`, where the limit is the size of a file system), with the layer
/// absent.
fn a_tar_is_not_applied_beyond_the_limit(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    needs_quota(&*layers)?;
    let before = scene.names()?;
    limited(&*layers, "layer", None)?;
    let mut random = fastrand::Rng::with_seed(1);
    let tar = Tarball::of((0..LIMIT >> 19).map(|count| {
        let content: Vec<u8> = (0..1 << 17).flat_map(|_| random.u64(..).to_le_bytes()).collect();
        Item::file(format!("large-{count}"), content)
    }));
    let kind = match layers.capabilities().quota_kind {
        Some(QuotaKind::FileSystem) => ErrorKind::NoSpace,
        _ => ErrorKind::QuotaExceeded,
    };
    refused(layers.apply(&id("layer"), &mut &tar[..]), kind)?;
    check!(!layers.contains(&id("layer"))?, "the layer is there");
    scene.must_have(&before)
}

/// Out of quota: `QuotaExceeded`, with the layer absent, for a copy of a parent that holds more than the limit.
fn a_parent_over_the_limit_is_not_copied(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    needs_quota(&*layers)?;
    if layers.capabilities().quota_kind != Some(QuotaKind::Whole) {
        return Err(Stop::not_offered("a parent's data do not count"));
    }
    sealed(&*layers, "base", None, |root| write_up_to(&root.join("data"), LIMIT * 3 / 2).map(drop))?;
    let before = scene.names()?;
    let created = layers.create(&id("layer"), Some(&id("base")), &sized(&LIMIT.to_string()));
    refused(created, ErrorKind::QuotaExceeded)?;
    check!(!layers.contains(&id("layer"))?, "the layer is there");
    scene.must_have(&before)
}

/// A limit is of one layer: others on the same store are not touched by it.
fn the_limit_is_of_one_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    needs_quota(&*layers)?;
    limited(&*layers, "limited", None)?;
    // Where every layer has a limit, one that is larger.
    let free = if is_file_system(&*layers) { sized(&(LIMIT * 4).to_string()) } else { Options::new() };
    layers.create(&id("free"), None, &free)?;
    let mount = layers.mount(&id("limited"), &MountRequest::default())?;
    write_up_to(&mount.target().join("large"), LIMIT * 2)?;
    edit(&*layers, "free", |root| {
        let (written, errno) = write_up_to(&root.join("large"), LIMIT + (8 << 20))?;
        check_eq!((written, errno), (LIMIT + (8 << 20), None), "what fits into a layer without a limit");
        Ok(())
    })?;
    Ok(mount.unmount()?)
}

/// What a layer's size counts is declared: what it adds to its parent, or the whole tree.
fn the_parents_data_count_as_declared(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    needs_quota(&*layers)?;
    let kind = layers.capabilities().quota_kind;
    check!(kind.is_some(), "quota is offered, and what it counts is not said");
    if kind == Some(QuotaKind::FileSystem) {
        return Err(Stop::not_offered(
            "the limit is the size of a file system, which the parent already has",
        ));
    }
    sealed(&*layers, "base", None, |root| write_up_to(&root.join("data"), LIMIT * 3 / 4).map(drop))?;
    layers.create(&id("layer"), Some(&id("base")), &sized(&LIMIT.to_string()))?;
    edit(&*layers, "layer", |root| {
        let (written, _) = write_up_to(&root.join("more"), LIMIT / 2)?;
        let fits = written == LIMIT / 2;
        check_eq!(
            fits,
            kind == Some(QuotaKind::Added),
            "whether half the limit fits beside the parent's data"
        );
        Ok(())
    })
}
