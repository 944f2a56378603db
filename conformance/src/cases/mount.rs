//! Mounting, and what becomes of mounts.

use std::fs;
use std::path::PathBuf;

use layerstack_core::ErrorKind;
use layerstack_core::layers::MountRequest;
use layerstack_core::mount::Access;
use layerstack_core::options::Options;

use crate::case::{Verdict, cases, check, check_eq, refused};
use crate::errand::{Done, Step};
use crate::files::{self, write};
use crate::kernel;
use crate::scene::{Scene, edit, grow, id, must_be_clean, sealed, snapshot};
use crate::snapshot::Snapshot;

cases!("mount.rs":
    an_unknown_layer_is_not_found,
    what_is_written_is_there_after_mounting_again,
    a_writable_layer_is_mounted_once,
    a_sealed_layer_is_mounted_any_number_of_times,
    a_writable_layer_mounted_read_only_is_not_written_to,
    unmounting_is_explicit_and_leaves_nothing,
    a_dropped_mount_is_unmounted,
    unmounting_what_is_in_use_is_refused,
    a_mount_taken_away_from_outside_is_noticed,
    a_mount_goes_where_it_is_asked_to,
    a_mount_on_a_missing_place_is_not_found,
    a_plan_mounts_nothing,
    a_plan_can_be_mounted_by_others,
    mounts_are_listed_as_the_kernel_has_them,
    a_mounted_container_root_is_as_a_container_needs_it,
    a_root_may_have_any_path;
    alone:
    a_writable_layer_is_mounted_once_among_processes,
    a_persistent_mount_outlives_its_process,
    a_mount_that_is_not_persistent_ends_with_its_process,
);

/// Mount, diff, remove, usage … of an unknown id: `NotFound`.
fn an_unknown_layer_is_not_found(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let before = scene.names()?;
    let missing = id("missing");
    refused(layers.mount(&missing, &MountRequest::default()), ErrorKind::NotFound)?;
    refused(layers.mount_plan(&missing, Access::ReadOnly), ErrorKind::NotFound)?;
    refused(layers.unmount(&missing, None), ErrorKind::NotFound)?;
    scene.must_have(&before)?;
    Ok(())
}

/// A layer is a file tree: what was written through one mount is there in the next.
fn what_is_written_is_there_after_mounting_again(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("top"), Some(&id("base")), &Options::new())?;
    let mount = layers.mount(&id("top"), &MountRequest::default())?;
    write(&mount.target().join("etc/passwd"), "changed")?;
    fs::remove_file(mount.target().join("empty"))?;
    fs::create_dir(mount.target().join("new"))?;
    let seen = Snapshot::read(mount.target())?;
    mount.unmount()?;
    snapshot(&*layers, "top")?.must_equal(&seen, "the layer mounted again")?;
    drop(layers);
    snapshot(&*scene.open()?, "top")?.must_equal(&seen, "the layer after reopening")
}

/// Mount a writable layer twice: refused, `InUse`.
fn a_writable_layer_is_mounted_once(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    let mount = layers.mount(&id("layer"), &MountRequest::default())?;
    let mounts = kernel::mounts_below(&scene.root())?;
    refused(layers.mount(&id("layer"), &MountRequest::default()), ErrorKind::InUse)?;
    let elsewhere = MountRequest::default().with_target(scene.work());
    refused(layers.mount(&id("layer"), &elsewhere), ErrorKind::InUse)?;
    let read_only = MountRequest::default().with_access(Access::ReadOnly);
    refused(layers.mount(&id("layer"), &read_only), ErrorKind::InUse)?;
    let other = scene.open()?;
    refused(other.mount(&id("layer"), &MountRequest::default()), ErrorKind::InUse)?;
    check_eq!(kernel::mounts_below(&scene.root())?, mounts, "the mounts after refused ones");
    write(&mount.target().join("file"), "the first mount still works")?;
    mount.unmount()?;
    Ok(other.mount(&id("layer"), &MountRequest::default())?.unmount()?)
}

/// Mount a writable layer twice: refused, `InUse`, also where another process has mounted it.
fn a_writable_layer_is_mounted_once_among_processes(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    let mount = layers.mount(&id("layer"), &MountRequest::default())?;
    let report = scene.errand([Step::Mount(id("layer"))]).run()?;
    let in_use = matches!(&report.done[..], [Done::Refused(kind, _)] if kind == ErrorKind::InUse.as_str());
    check!(in_use, "another process mounted the layer as well: {report:?}");
    Ok(mount.unmount()?)
}

/// A sealed layer can be mounted read-only any number of times.
fn a_sealed_layer_is_mounted_any_number_of_times(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "layer", Some("base"), |root| write(&root.join("file"), "x"))?;
    let wanted = snapshot(&*layers, "layer")?;
    let mut mounts = Vec::new();
    for count in 0..5 {
        let target = scene.work().join(format!("at-{count}"));
        fs::create_dir(&target)?;
        mounts.push(layers.mount(&id("layer"), &MountRequest::default().with_target(&target))?);
    }
    for mount in &mounts {
        Snapshot::read(mount.target())?.must_equal(&wanted, "one of several mounts")?;
    }
    mounts.remove(2).unmount()?;
    for mount in &mounts {
        Snapshot::read(mount.target())?.must_equal(&wanted, "a mount after another was taken away")?;
    }
    for mount in mounts {
        mount.unmount()?;
    }
    must_be_clean(&*layers)
}

/// A read-only mount: writes give `EROFS`, also where the layer is writable.
fn a_writable_layer_mounted_read_only_is_not_written_to(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    grow(&*layers, "layer", Some("base"), |root| write(&root.join("file"), "x"))?;
    let mount = layers.mount(&id("layer"), &MountRequest::default().with_access(Access::ReadOnly))?;
    let attempt = fs::write(mount.target().join("file"), "y").err().and_then(|error| error.raw_os_error());
    check_eq!(attempt, Some(rustix::io::Errno::ROFS.raw_os_error()), "the error number of a write");
    mount.unmount()?;
    edit(&*layers, "layer", |root| write(&root.join("file"), "z"))
}

/// Unmount: explicit; it leaves no mount and no directory.
fn unmounting_is_explicit_and_leaves_nothing(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("layer"), Some(&id("base")), &Options::new())?;
    let first = layers.mount(&id("layer"), &MountRequest::default())?;
    first.unmount()?;
    let before = scene.names()?;
    let mount = layers.mount(&id("layer"), &MountRequest::default())?;
    let target = mount.target().to_owned();
    check_eq!(kernel::mounts_below(&scene.root())?, [target.canonicalize()?], "the mounts");
    mount.unmount()?;
    scene.must_have(&before)?;
    check_eq!(layers.mounts(None)?.len(), 0, "the number of mounts listed afterwards");
    refused(layers.unmount(&id("layer"), None), ErrorKind::NotFound).map(drop)
}

/// `Drop` is the net: a mount that nobody unmounts goes with the value.
fn a_dropped_mount_is_unmounted(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    drop(layers.mount(&id("layer"), &MountRequest::default())?);
    check_eq!(kernel::mounts_below(&scene.root())?, Vec::<PathBuf>::new(), "the mounts afterwards");
    Ok(layers.mount(&id("layer"), &MountRequest::default())?.unmount()?)
}

/// Unmount reports its error: with a file open in it, `InUse`, and the mount can be taken away later.
fn unmounting_what_is_in_use_is_refused(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    let mount = layers.mount(&id("layer"), &MountRequest::default())?;
    let target = mount.target().to_owned();
    let open = fs::File::open(target.join("etc/passwd"))?;
    refused(mount.unmount(), ErrorKind::InUse)?;
    check_eq!(kernel::mounts_below(&scene.root())?.len(), 1, "the number of mounts");
    drop(open);
    layers.unmount(&id("layer"), None)?;
    check_eq!(kernel::mounts_below(&scene.root())?.len(), 0, "the number of mounts afterwards");
    Ok(layers.remove(&id("layer"))?)
}

/// A mount taken away from outside is noticed, not an error that sticks.
fn a_mount_taken_away_from_outside_is_noticed(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("layer"), Some(&id("base")), &Options::new())?;
    let mount = layers.mount(&id("layer"), &MountRequest::default())?;
    kernel::take_away(mount.target())?;
    check_eq!(layers.mounts(Some(&id("layer")))?.len(), 0, "the number of mounts that are listed");
    mount.unmount()?;
    let mount = layers.mount(&id("layer"), &MountRequest::default().persistent())?;
    write(&mount.target().join("file"), "x")?;
    kernel::take_away(mount.target())?;
    drop(mount);
    let again = layers.mount(&id("layer"), &MountRequest::default())?;
    check!(again.target().join("file").exists(), "what was written before is gone");
    kernel::take_away(again.target())?;
    drop(again);
    layers.remove(&id("layer"))?;
    must_be_clean(&*layers)
}

/// A mount goes on an existing directory that the caller names, which stays when the mount goes.
fn a_mount_goes_where_it_is_asked_to(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    for name in ["plain", "with space", "with:colon,comma", "back\\slash", "tab\there", "ä\u{1f980}"] {
        let target = scene.work().join(name);
        fs::create_dir(&target)?;
        let mount = layers.mount(&id("layer"), &MountRequest::default().with_target(&target))?;
        check!(target.join("etc/passwd").exists(), "the layer does not show at {name:?}");
        let listed: Vec<_> = layers.mounts(Some(&id("layer")))?.into_iter().map(|info| info.target).collect();
        check_eq!(listed, [target.canonicalize()?], "the mounts that are listed");
        mount.unmount()?;
        check!(target.exists(), "the caller's directory {name:?} is gone");
        check!(!target.join("etc").exists(), "the layer still shows at {name:?}");
    }
    Ok(())
}

/// Mount on a place that does not exist: `NotFound`, with nothing mounted.
fn a_mount_on_a_missing_place_is_not_found(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    let before = scene.names()?;
    let missing = MountRequest::default().with_target(scene.work().join("missing"));
    refused(layers.mount(&id("layer"), &missing), ErrorKind::NotFound)?;
    scene.must_have(&before)?;
    Ok(layers.mount(&id("layer"), &MountRequest::default())?.unmount()?)
}

/// A mount outlives its process when asked to, is found again by others, and they can take it away.
fn a_persistent_mount_outlives_its_process(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    scene.errand([Step::Mount(id("layer"))]).run()?.must_be_well()?;
    for layers in [&layers, &scene.open()?] {
        let mounts = layers.mounts(None)?;
        check_eq!(mounts.len(), 1, "the number of mounts that are found");
        check!(mounts[0].persistent && mounts[0].layer == id("layer"), "it is {:?}", mounts[0]);
        check!(mounts[0].target.join("etc/passwd").exists(), "nothing is mounted there");
    }
    refused(layers.remove(&id("layer")), ErrorKind::InUse)?;
    refused(layers.mount(&id("layer"), &MountRequest::default()), ErrorKind::InUse)?;
    scene.errand([Step::Unmount(id("layer"))]).run()?.must_be_well()?;
    check_eq!(kernel::mounts_below(&scene.root())?.len(), 0, "the number of mounts afterwards");
    Ok(layers.remove(&id("layer"))?)
}

/// A mount that was not asked to be persistent does not outlive its process by more than the next open.
fn a_mount_that_is_not_persistent_ends_with_its_process(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, files::sample)?;
    let mut other = scene.errand([Step::Hold(id("layer"))]).start()?;
    other.wait_for_a_line()?;
    check_eq!(layers.mounts(None)?.len(), 1, "the number of mounts while the process lives");
    other.kill()?;
    other.finish()?;
    let layers = scene.open()?;
    check_eq!(kernel::mounts_below(&scene.root())?.len(), 0, "the number of mounts after reopening");
    check!(!layers.recovered().is_empty(), "the mount that was left is not reported");
    Ok(layers.mount(&id("layer"), &MountRequest::default())?.unmount()?)
}

/// A driver returns a plan: it can be printed, and mounts nothing.
fn a_plan_mounts_nothing(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("top"), Some(&id("base")), &Options::new())?;
    for (name, access) in [("base", Access::ReadOnly), ("top", Access::ReadOnly), ("top", Access::ReadWrite)]
    {
        let plan = layers.mount_plan(&id(name), access)?;
        check_eq!(plan.access, access, "what the plan of {name} allows");
        check!(plan.to_string().starts_with("mount"), "the plan prints as: {plan}");
        let mounts = layers.mounts(None)?.len() + kernel::mounts_below(&scene.root())?.len();
        check_eq!(mounts, 0, "the number of mounts");
    }
    Ok(())
}

/// A plan can be handed to others as a list of mounts: what they mount is the layer.
fn a_plan_can_be_mounted_by_others(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "middle", Some("base"), |root| write(&root.join("etc/passwd"), "changed"))?;
    layers.create(&id("top"), Some(&id("middle")), &Options::new())?;
    let wanted = snapshot(&*layers, "middle")?;
    let target = scene.work().join("target");
    fs::create_dir(&target)?;
    for (name, access) in [("middle", Access::ReadOnly), ("top", Access::ReadWrite)] {
        // Held until others have mounted it.
        let plan = layers.mount_plan(&id(name), access)?;
        let spec = plan.to_spec();
        kernel::mount_by_words(&spec, &target)?;
        let tree = spec.subdirectory.map_or(target.clone(), |directory| target.join(directory));
        let seen = Snapshot::read(&tree);
        let written = fs::write(tree.join("written"), "x");
        kernel::take_away(&target)?;
        seen?.must_equal(&wanted, &format!("the layer {name} as others mount it"))?;
        check_eq!(written.is_ok(), access == Access::ReadWrite, "whether {name} could be written to");
    }
    check!(snapshot(&*layers, "top")?.get("written").is_some(), "what others wrote is not in the layer");
    Ok(())
}

/// A mount is found again from the kernel's mount table: with layer, place, access and whether it stays.
fn mounts_are_listed_as_the_kernel_has_them(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("top"), Some(&id("base")), &Options::new())?;
    check_eq!(layers.mounts(None)?.len(), 0, "the number of mounts before");
    let below = layers.mount(&id("base"), &MountRequest::default())?;
    let above = layers.mount(&id("top"), &MountRequest::default())?;
    let mut listed: Vec<_> =
        layers.mounts(None)?.into_iter().map(|info| (info.layer, info.access, info.persistent)).collect();
    listed.sort_by(|one, other| one.0.cmp(&other.0));
    let wanted = [(id("base"), Access::ReadOnly, false), (id("top"), Access::ReadWrite, false)];
    check_eq!(listed, wanted, "the mounts that are listed");
    check_eq!(layers.mounts(Some(&id("top")))?.len(), 1, "the number of mounts of one layer");
    above.unmount()?;
    below.unmount()?;
    check_eq!(layers.mounts(None)?.len(), 0, "the number of mounts afterwards");
    Ok(())
}

/// A container's root needs device nodes and setuid programs: a mount forbids neither.
fn a_mounted_container_root_is_as_a_container_needs_it(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    grow(&*layers, "layer", None, |root| {
        // 1:3 is /dev/null (Documentation/admin-guide/devices.txt).
        files::special(&root.join("null"), rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3))?;
        write(&root.join("null"), "goes nowhere")?;
        let flags = rustix::fs::statvfs(root)?.f_flag;
        let forbidden = rustix::fs::StatVfsMountFlags::NOSUID | rustix::fs::StatVfsMountFlags::NODEV;
        check!(!flags.intersects(forbidden), "the mount has the flags {flags:?}");
        Ok(())
    })
}

/// A root may be anywhere: characters that mount options use as separators are none in its path.
fn a_root_may_have_any_path(scene: &Scene) -> Verdict {
    for name in ["with:colon", "with,comma", "with space", "back\\slash", "equals=sign", "ä", "quote\"'"] {
        let root = scene.work().join(name);
        let layers = scene.try_open(&root, &scene.config())?;
        sealed(&*layers, "base", None, files::sample)?;
        sealed(&*layers, "middle", Some("base"), |root| write(&root.join("middle"), "m"))?;
        grow(&*layers, "top", Some("middle"), |root| write(&root.join("etc/passwd"), "changed"))?;
        check!(snapshot(&*layers, "top")?.get("middle").is_some(), "a root at {name:?} mounts wrongly");
        check_eq!(
            crate::scene::changes(&*layers, "top")?,
            ["C /etc", "C /etc/passwd"],
            "the changes at {name:?}"
        );
        for layer in ["top", "middle", "base"] {
            layers.remove(&id(layer))?;
        }
    }
    Ok(())
}
