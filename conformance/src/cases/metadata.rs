//! What of a file survives apply → diff → apply.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{FileType, makedev};

use crate::case::{Stop, Verdict, cases, check, check_eq};
use crate::files::{self, write};
use crate::scene::{Scene, diff, grow, id, import, sealed, snapshot};
use crate::snapshot::{Kind, Snapshot};
use crate::subject::Subject;
use crate::tarball::{Item, Tarball, entries};

cases!("metadata.rs":
    modes,
    owners,
    times_in_nanoseconds,
    times_of_directories,
    times_of_symlinks,
    times_before_the_epoch,
    times_after_2446,
    attributes_of_every_name_space,
    attributes_of_directories_and_symlinks,
    attributes_with_any_value,
    file_capabilities,
    access_control_lists,
    hardlinks,
    a_hardlink_to_an_unchanged_file,
    devices_and_pipes,
    sockets_are_left_out,
    sparse_files,
    symlinks_with_any_target,
    names_with_any_bytes,
    long_names_and_paths,
    the_root_directory,
);

/// Makes a layer on a base, takes its tar, applies it to the same base, and compares trees and tars.
fn round_trip(
    scene: &Scene,
    base: impl FnOnce(&Path) -> Verdict,
    change: impl FnOnce(&Path) -> Verdict,
) -> Verdict<Snapshot> {
    let layers = scene.open()?;
    round_trip_on(&*layers, base, change)
}

fn round_trip_on(
    layers: &dyn Subject,
    base: impl FnOnce(&Path) -> Verdict,
    change: impl FnOnce(&Path) -> Verdict,
) -> Verdict<Snapshot> {
    sealed(layers, "base", None, base)?;
    grow(layers, "first", Some("base"), change)?;
    let tar = diff(layers, "first")?;
    import(layers, "second", Some("base"), &tar)?;
    let first = snapshot(layers, "first")?;
    let second = snapshot(layers, "second")?;
    second.must_equal(&first.clone().without_sockets(), "the layer from its tar")?;
    check!(diff(layers, "second")? == tar, "the tar of the layer from its tar differs");
    Ok(first)
}

/// Permission bits survive, setuid, setgid and sticky included.
fn modes(scene: &Scene) -> Verdict {
    let modes = [0o0, 0o1, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777];
    let tree = round_trip(
        scene,
        |_| Ok(()),
        |root| {
            for mode in modes {
                let path = root.join(format!("f{mode:o}"));
                write(&path, "x")?;
                files::owner(&path, 1, 1)?;
                files::mode(&path, mode)?;
                let path = root.join(format!("d{mode:o}"));
                files::directory(&path)?;
                files::mode(&path, mode)?;
            }
            Ok(())
        },
    )?;
    for mode in modes {
        for kind in ["f", "d"] {
            let seen = tree.get(format!("{kind}{mode:o}")).map(|node| node.mode);
            check_eq!(seen, Some(mode), "the mode of a file");
        }
    }
    Ok(())
}

/// Owner and group survive, up to the largest number that is one (2³²−2).
fn owners(scene: &Scene) -> Verdict {
    let owners = [
        (0, 0),
        (1, 2),
        (1000, 1000),
        (65_534, 100_000),
        (2_097_151, 2_097_152),
        (u32::MAX - 1, u32::MAX - 1),
    ];
    let tree = round_trip(
        scene,
        |_| Ok(()),
        |root| {
            for (count, (uid, gid)) in owners.into_iter().enumerate() {
                let path = root.join(format!("f{count}"));
                write(&path, "x")?;
                files::owner(&path, uid, gid)?;
                symlink("x", root.join(format!("s{count}")))?;
                files::owner(&root.join(format!("s{count}")), uid, gid)?;
            }
            Ok(())
        },
    )?;
    for (count, owner) in owners.into_iter().enumerate() {
        check_eq!(tree.get(format!("f{count}")).map(|node| node.owner), Some(owner), "the owner of a file");
        check_eq!(tree.get(format!("s{count}")).map(|node| node.owner), Some(owner), "the owner of a link");
    }
    Ok(())
}

/// Modification times survive to the nanosecond.
fn times_in_nanoseconds(scene: &Scene) -> Verdict {
    times_survive(
        scene,
        &[(1_600_000_000, 1), (1_600_000_000, 999_999_999), (0, 0), (0, 100), (1, 500_000_000)],
    )
}

/// Times before 1970 survive.
fn times_before_the_epoch(scene: &Scene) -> Verdict {
    times_survive(scene, &[(-1, 0), (-1, 999_999_999), (-1_000_000_000, 250_000_000), (-2_000_000_000, 1)])
}

/// Times after 2446, where ext4's end, survive as the file system keeps them: none comes out in the past.
fn times_after_2446(scene: &Scene) -> Verdict {
    let late = 15_032_385_536; // 2446-05-10, the first second that ext4's 34 bits cannot hold.
    let probe = scene.work().join("probe");
    write(&probe, "x")?;
    files::mtime(&probe, late, 7)?;
    let kept = fs::metadata(&probe)?;
    let kept = (kept.mtime(), kept.mtime_nsec());
    check!(kept.0 >= late - 1, "the file system of the store keeps the time {late} as {kept:?}");
    let layers = scene.open()?;
    let tar = Tarball::of([Item::file("late", "x").mtime(late, 7)]);
    import(&*layers, "layer", None, &tar)?;
    let found = snapshot(&*layers, "layer")?.get("late").map(|node| node.mtime);
    check_eq!(found, Some(kept), "the time of a file from a tar");
    let tar = diff(&*layers, "layer")?;
    import(&*layers, "copy", None, &tar)?;
    let found = snapshot(&*layers, "copy")?.get("late").map(|node| node.mtime);
    check_eq!(found, Some(kept), "the time after a round trip");
    Ok(())
}

fn times_survive(scene: &Scene, times: &[(i64, i64)]) -> Verdict {
    let tree = round_trip(
        scene,
        |_| Ok(()),
        |root| {
            for (count, (seconds, nanoseconds)) in times.iter().enumerate() {
                let path = root.join(format!("f{count}"));
                write(&path, "x")?;
                files::mtime(&path, *seconds, *nanoseconds)?;
            }
            Ok(())
        },
    )?;
    for (count, time) in times.iter().enumerate() {
        check_eq!(tree.get(format!("f{count}")).map(|node| node.mtime), Some(*time), "the time of a file");
    }
    Ok(())
}

/// Modification times of directories survive, with what was put into them.
fn times_of_directories(scene: &Scene) -> Verdict {
    let time = (1_500_000_000, 123_456_789);
    let tree = round_trip(scene, files::sample, |root| {
        files::directory(&root.join("new/inner"))?;
        write(&root.join("new/inner/file"), "x")?;
        write(&root.join("etc/new"), "x")?;
        fs::remove_file(root.join("etc/init/one"))?;
        for path in ["new/inner", "new", "etc/init", "etc"] {
            files::mtime(&root.join(path), time.0, time.1)?;
        }
        Ok(())
    })?;
    for path in ["new/inner", "new", "etc/init", "etc"] {
        check_eq!(tree.get(path).map(|node| node.mtime), Some(time), "the time of {path}");
    }
    Ok(())
}

/// Modification times of symbolic links survive.
fn times_of_symlinks(scene: &Scene) -> Verdict {
    let time = (1_234_567_890, 987_654_321);
    let tree = round_trip(
        scene,
        |_| Ok(()),
        |root| {
            symlink("nowhere", root.join("link"))?;
            files::mtime(&root.join("link"), time.0, time.1)
        },
    )?;
    check_eq!(tree.get("link").map(|node| node.mtime), Some(time), "the time of the link");
    Ok(())
}

/// Extended attributes survive in every name space that the capabilities list.
fn attributes_of_every_name_space(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let kept = layers.capabilities().xattrs.clone();
    let keys: Vec<_> = ["user.", "trusted.", "security."]
        .into_iter()
        .filter(|space| kept.contains(space))
        .map(|space| format!("{space}of.the-suite"))
        .collect();
    check!(!keys.is_empty(), "the capabilities list no name space");
    let tree = round_trip_on(
        &*layers,
        |_| Ok(()),
        |root| {
            write(&root.join("file"), "x")?;
            keys.iter().try_for_each(|key| files::xattr(&root.join("file"), key, key))
        },
    )?;
    let found = tree.get("file").map(|node| node.xattrs.keys().cloned().collect::<Vec<_>>());
    let mut wanted = keys.clone();
    wanted.sort();
    check_eq!(found, Some(wanted), "the attributes");
    Ok(())
}

/// Extended attributes survive on what is not a regular file.
fn attributes_of_directories_and_symlinks(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let kept = layers.capabilities().xattrs.clone();
    let tree = round_trip_on(
        &*layers,
        |_| Ok(()),
        |root| {
            files::directory(&root.join("d"))?;
            symlink("x", root.join("s"))?;
            files::special(&root.join("p"), FileType::Fifo, 0)?;
            if kept.contains(&"user.") {
                files::xattr(&root.join("d"), "user.d", "d")?;
            }
            if kept.contains(&"trusted.") {
                // Only files and directories have user attributes (xattr(7)); others can have these.
                files::xattr(&root.join("s"), "trusted.s", "s")?;
                files::xattr(&root.join("p"), "trusted.p", "p")?;
            }
            Ok(())
        },
    )?;
    let count = |path: &str| tree.get(path).map_or(0, |node| node.xattrs.len());
    check_eq!(count("d"), usize::from(kept.contains(&"user.")), "the attributes of a directory");
    check_eq!(count("s"), usize::from(kept.contains(&"trusted.")), "the attributes of a link");
    Ok(())
}

/// The value of an extended attribute survives whatever is in it.
fn attributes_with_any_value(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    if !layers.capabilities().xattrs.contains(&"user.") {
        return Err(Stop::not_offered("the driver keeps no attributes of the name space \"user.\""));
    }
    let every: Vec<u8> = (0..=255).collect();
    let values = [&b""[..], b"\0", b"a\nb=c", b"12 user.x=1\n", &every, &[b'x'; 1500]];
    round_trip_on(
        &*layers,
        |_| Ok(()),
        |root| {
            for (count, value) in values.iter().enumerate() {
                let path = root.join(format!("f{count}"));
                write(&path, "x")?;
                files::xattr(&path, "user.name with=sign", value)?;
                files::xattr(&path, "user.second", "2")?;
            }
            Ok(())
        },
    )
    .map(drop)
}

/// File capabilities (`security.capability`) survive, also beside a change of owner.
fn file_capabilities(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    if !layers.capabilities().xattrs.contains(&"security.") {
        return Err(Stop::not_offered("the driver keeps no attributes of the name space \"security.\""));
    }
    // struct vfs_cap_data of linux/capability.h, revision 2: effective, CAP_NET_RAW (13) permitted.
    let value = [&0x0200_0001_u32.to_le_bytes()[..], &(1_u32 << 13).to_le_bytes(), &[0; 12]].concat();
    let tree = round_trip_on(
        &*layers,
        |_| Ok(()),
        |root| {
            write(&root.join("ping"), "x")?;
            files::owner(&root.join("ping"), 1, 1)?;
            files::mode(&root.join("ping"), 0o755)?;
            files::xattr(&root.join("ping"), "security.capability", &value)
        },
    )?;
    let found = tree.get("ping").and_then(|node| node.xattrs.get("security.capability").cloned());
    check_eq!(found, Some(value), "the capability");
    Ok(())
}

/// POSIX access control lists survive, of files and as directories' defaults.
fn access_control_lists(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    if !layers.capabilities().xattrs.iter().any(|space| space.starts_with("system.posix_acl")) {
        return Err(Stop::not_offered("the driver keeps no access control lists"));
    }
    // struct posix_acl_xattr of linux/posix_acl_xattr.h, version 2: owner, user 7, group, mask, others.
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let list = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 6, none),
        entry(2, 4, 7),
        entry(4, 4, none),
        entry(16, 4, none),
        entry(32, 0, none),
    ]
    .concat();
    let tree = round_trip_on(
        &*layers,
        |_| Ok(()),
        |root| {
            write(&root.join("file"), "x")?;
            files::xattr(&root.join("file"), "system.posix_acl_access", &list)?;
            files::directory(&root.join("directory"))?;
            files::xattr(&root.join("directory"), "system.posix_acl_default", &list)?;
            // The new file inherits the list from its directory; both must come back as they are.
            write(&root.join("directory/inherits"), "x")
        },
    )?;
    let of = |path: &str, key: &str| tree.get(path).and_then(|node| node.xattrs.get(key).cloned());
    check_eq!(of("file", "system.posix_acl_access"), Some(list.clone()), "the list of the file");
    check_eq!(of("directory", "system.posix_acl_default"), Some(list), "the default list of the directory");
    Ok(())
}

/// Hardlinks survive: names of one file are names of one file.
fn hardlinks(scene: &Scene) -> Verdict {
    let tree = round_trip(scene, files::sample, |root| {
        files::directory(&root.join("d"))?;
        write(&root.join("d/first"), "content")?;
        fs::hard_link(root.join("d/first"), root.join("another"))?;
        fs::hard_link(root.join("d/first"), root.join("zz"))?;
        symlink("x", root.join("link"))?;
        fs::hard_link(root.join("link"), root.join("link-too"))?;
        write(&root.join("alone"), "content")
    })?;
    let same = |path: &str| tree.get(path).and_then(|node| node.same_as.clone());
    check_eq!(same("d/first").as_deref(), Some(Path::new("another")), "what one name is the same as");
    check_eq!(same("zz").as_deref(), Some(Path::new("another")), "what another name is the same as");
    check_eq!(
        same("link-too").as_deref(),
        Some(Path::new("link")),
        "what the link's other name is the same as"
    );
    check_eq!(same("alone"), None, "what a file of its own is the same as");
    Ok(())
}

/// Hardlinks survive also where one of the names is an unchanged file of the parent.
fn a_hardlink_to_an_unchanged_file(scene: &Scene) -> Verdict {
    let tree = round_trip(scene, files::sample, |root| {
        fs::hard_link(root.join("etc/passwd"), root.join("etc/backup"))?;
        fs::hard_link(root.join("etc/init/two"), root.join("a-before-it"))?;
        Ok(())
    })?;
    let same = |path: &str| tree.get(path).and_then(|node| node.same_as.clone());
    check_eq!(
        same("etc/passwd").as_deref(),
        Some(Path::new("etc/backup")),
        "what the old name is the same as"
    );
    check_eq!(
        same("etc/init/two").as_deref(),
        Some(Path::new("a-before-it")),
        "what the old name is the same as"
    );
    Ok(())
}

/// Devices and pipes survive, with their numbers.
fn devices_and_pipes(scene: &Scene) -> Verdict {
    let tree = round_trip(
        scene,
        |_| Ok(()),
        |root| {
            files::special(&root.join("null"), FileType::CharacterDevice, makedev(1, 3))?;
            // xfs of older kernels takes majors up to 511 (`xfs_generic_create` of 6.1).
            files::special(&root.join("large"), FileType::CharacterDevice, makedev(500, 200_000))?;
            files::special(&root.join("disk"), FileType::BlockDevice, makedev(7, 0))?;
            files::special(&root.join("zero-minor"), FileType::BlockDevice, makedev(8, 0))?;
            files::special(&root.join("pipe"), FileType::Fifo, 0)
        },
    )?;
    let kind = |path: &str| tree.get(path).map(|node| node.kind.clone());
    let character = FileType::CharacterDevice.as_raw_mode();
    check_eq!(kind("null"), Some(Kind::Special(character, makedev(1, 3))), "a device");
    check_eq!(kind("large"), Some(Kind::Special(character, makedev(500, 200_000))), "a device");
    Ok(())
}

/// Sockets are left out of a tar by rule; where one took the place of a file, the file is gone.
fn sockets_are_left_out(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    round_trip_on(&*layers, files::sample, |root| {
        files::special(&root.join("socket"), FileType::Socket, 0)?;
        fs::remove_file(root.join("etc/passwd"))?;
        files::special(&root.join("etc/passwd"), FileType::Socket, 0)
    })?;
    check!(snapshot(&*layers, "first")?.get("socket").is_some(), "the layer itself has lost its socket");
    check!(snapshot(&*layers, "second")?.get("etc/passwd").is_none(), "the file is back");
    Ok(())
}

/// Sparse files survive without being filled: their holes take no space.
fn sparse_files(scene: &Scene) -> Verdict {
    const SIZE: u64 = 48 << 20;
    let layers = scene.open()?;
    round_trip_on(
        &*layers,
        |_| Ok(()),
        |root| {
            let file = fs::File::create(root.join("sparse"))?;
            file.write_all_at(b"begin", 0)?;
            file.write_all_at(b"middle", SIZE / 2 + 17)?;
            Ok(file.set_len(SIZE)?)
        },
    )?;
    layers.seal(&id("second"))?;
    layers.create(&id("third"), Some(&id("second")), &layerstack_core::options::Options::new())?;
    for name in ["second", "third"] {
        crate::scene::edit(&*layers, name, |root| {
            let metadata = fs::metadata(root.join("sparse"))?;
            check_eq!(metadata.len(), SIZE, "the length in {name}");
            let used = metadata.blocks() * 512;
            check!(used <= 1 << 20, "{used} bytes are allocated in {name} for a file that is all holes");
            Ok(())
        })?;
    }
    Ok(())
}

/// The target of a symbolic link survives byte for byte, wherever it leads and however long it is.
fn symlinks_with_any_target(scene: &Scene) -> Verdict {
    let long = "x/".repeat(500);
    let targets = [
        "/",
        ".",
        "..",
        "../../../..",
        "/absolute//path/",
        "with space\nand line",
        &long,
        "\u{7f}",
        "./a/../b",
    ];
    let tree = round_trip(
        scene,
        |_| Ok(()),
        |root| {
            for (count, target) in targets.iter().enumerate() {
                symlink(target, root.join(format!("s{count}")))?;
            }
            Ok(())
        },
    )?;
    for (count, target) in targets.iter().enumerate() {
        let kind = tree.get(format!("s{count}")).map(|node| node.kind.clone());
        check_eq!(kind, Some(Kind::Symlink(target.as_bytes().to_vec())), "a link");
    }
    Ok(())
}

/// Names survive byte for byte: not UTF-8, with line breaks, with leading and trailing blanks.
fn names_with_any_bytes(scene: &Scene) -> Verdict {
    use std::os::unix::ffi::OsStrExt;
    let names: [&[u8]; 11] = [
        b"\xff\xfe",
        b"latin-\xe4",
        b"line\nbreak",
        b" blank ",
        b"tab\t",
        b"\x01\x1b",
        b"back\\slash",
        b"...",
        b"-rf",
        b"a:b,c=d",
        "\u{e4}\u{1f980}".as_bytes(),
    ];
    let tree = round_trip(
        scene,
        |_| Ok(()),
        |root| names.iter().try_for_each(|name| write(&root.join(std::ffi::OsStr::from_bytes(name)), name)),
    )?;
    let mut found: Vec<_> = tree.paths().iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
    let mut wanted: Vec<_> = names.iter().map(|name| name.to_vec()).collect();
    found.sort();
    wanted.sort();
    check_eq!(found, wanted, "the names");
    Ok(())
}

/// Names up to the declared length survive, and paths longer than the 100 and 255 bytes that old tars can hold.
fn long_names_and_paths(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let longest = "n".repeat(layers.capabilities().max_name as usize);
    let parts = ["p".repeat(99), "q".repeat(100), "r".repeat(101), longest.clone()];
    round_trip_on(
        &*layers,
        |_| Ok(()),
        |root| {
            let mut path = root.to_owned();
            for part in &parts {
                path.push(part);
                files::directory(&path)?;
                write(&path.join("file"), "x")?;
            }
            symlink("s".repeat(300), path.join("link"))?;
            fs::hard_link(path.join("file"), root.join("same"))?;
            write(&path.join(&longest), "x")
        },
    )?;
    let found = entries(&diff(&*layers, "first")?)?;
    check!(found.iter().any(|entry| entry.name.len() > 300), "no name in the tar is long");
    Ok(())
}

/// The root directory's own mode, owner, time and attributes survive.
fn the_root_directory(scene: &Scene) -> Verdict {
    let tree = round_trip(scene, files::sample, |root| {
        write(&root.join("file"), "x")?;
        files::owner(root, 21, 22)?;
        files::mode(root, 0o1750)?;
        files::mtime(root, 1_333_333_333, 333_333_333)
    })?;
    let root = tree.get("").map(|root| (root.mode, root.owner, root.mtime));
    check_eq!(root, Some((0o1750, (21, 22), (1_333_333_333, 333_333_333))), "the root directory");
    Ok(())
}
