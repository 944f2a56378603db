//! What a send tells against what a walk over everything sees.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use layerstack_core::diff::{changes, export};
use layerstack_core::driver::{Candidates, CtimeWindow, Driver, Scope};
use layerstack_core::layers::{Base, Layers, MountRequest};
use layerstack_core::mount::Access;
use layerstack_core::tree::Tree;

use crate::edit::{Edits, base_tree};
use crate::store::{Store, create, grow, id, names, run};

const ROUNDS: u64 = 60;

fn everywhere() -> Candidates {
    Candidates::All { untouched: Some(CtimeWindow::NEVER) }
}

fn tree(driver: &dyn Driver, layer: &str) -> Tree {
    Tree::open(&driver.mount_plan(&id(layer), Access::ReadOnly).unwrap()).unwrap()
}

fn narrowed(driver: &dyn Driver, layer: &str) -> Candidates {
    let candidates = driver.candidates(&id(layer)).unwrap();
    assert!(matches!(candidates, Candidates::Paths(_)), "a send could not be followed");
    candidates
}

fn paths(driver: &dyn Driver, layer: &str) -> Vec<(PathBuf, Scope)> {
    let Candidates::Paths(paths) = driver.candidates(&id(layer)).unwrap() else { panic!("no paths") };
    paths.map(|candidate| candidate.map(|candidate| (candidate.path, candidate.scope)).unwrap()).collect()
}

fn must_agree(driver: &dyn Driver, layer: &str, parent: &str, what: &dyn Fn() -> String) {
    let (top, base) = (tree(driver, layer), tree(driver, parent));
    let found = changes(&top, Some(&base), narrowed(driver, layer)).unwrap();
    let wanted = changes(&top, Some(&base), everywhere()).unwrap();
    assert_eq!(found, wanted, "{layer} against {parent}, {}", what());
    let tar = |candidates| {
        let mut tar = Vec::new();
        export(&top, Some(&base), candidates, &mut tar).unwrap();
        tar
    };
    let same = tar(narrowed(driver, layer)) == tar(everywhere());
    assert!(same, "the tars of {layer} against {parent} differ, {}", what());
}

/// Edits that only this file system offers, and those that random ones do not meet.
fn particular(root: &Path, edits: &mut Edits, round: usize) -> io::Result<()> {
    let long = root.join("l".repeat(255));
    let odd = root.join(OsStr::from_bytes(b"\xff\xfe\n odd"));
    let what = edits.random.below(12);
    let at = |name: &str| root.join(format!("{name}{round}-{}", edits.log.len()));
    let named = |start: &str| {
        let mut found: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap()).collect();
        found.retain(|entry| entry.file_name().to_string_lossy().starts_with(start));
        found.sort_by_key(fs::DirEntry::file_name);
        found
    };
    let subvolume = |path: PathBuf| run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(path));
    match what {
        0 => fs::write(&long, format!("{round}")),
        1 => fs::write(&odd, format!("{round}")),
        2 => fs::rename(&long, &odd),
        3 => fs::rename(&odd, root.join("a/odd")),
        4 => {
            subvolume(at("subvolume"));
            Ok(())
        }
        5 => {
            let Some(found) = named("subvolume").into_iter().find(|found| found.path().is_dir()) else {
                return Ok(());
            };
            fs::create_dir_all(found.path().join("deep/er"))?;
            subvolume(found.path().join(format!("deep/er/{round}-{}", edits.log.len())));
            fs::write(found.path().join(format!("in{round}")), "x")
        }
        6 => {
            fs::write(at("large"), vec![7; 300_000])?;
            fs::OpenOptions::new().write(true).open(at("large"))?.set_len(100_000)
        }
        7 => {
            named("large").iter().filter(|found| found.file_type().unwrap().is_file()).try_for_each(|found| {
                let file = fs::OpenOptions::new().write(true).open(found.path())?;
                let modified = file.metadata()?.modified()?;
                file.write_all_at(b"x", 50_000)?;
                file.set_modified(modified)
            })
        }
        // Two that change places, which a send can only say by way of a third name.
        8 => {
            let (one, other, between) = (root.join("a"), root.join("b"), root.join("between"));
            fs::symlink_metadata(&other)?;
            fs::rename(&one, &between)?;
            fs::rename(&other, &one)?;
            fs::rename(&between, &other)
        }
        // More names than fit into one item.
        9 => {
            fs::write(at("many"), "many")?;
            (0..60).try_for_each(|number| {
                fs::hard_link(at("many"), root.join(format!("{}{number}", "m".repeat(200))))
            })
        }
        10 => {
            if let Some(found) = named("mmm").iter().find(|found| found.file_type().unwrap().is_file()) {
                run(Command::new("setfacl").args(["-m", "u:7:rw"]).arg(found.path()));
            }
            Ok(())
        }
        // A directory in the place of a file, and the other way round.
        _ => {
            let path = root.join("turn");
            if path.is_dir() {
                fs::remove_dir_all(&path)?;
                return fs::write(&path, "file");
            }
            let _ = fs::remove_file(&path);
            fs::create_dir(&path)?;
            fs::write(path.join("in"), "directory")
        }
    }
}

fn edit(root: &Path, edits: &mut Edits, count: usize) {
    for round in 0..count {
        edits.run(root, 2);
        // What cannot be done, since random edits were in the way, is left out.
        drop(particular(root, edits, round));
    }
}

#[test]
fn a_send_tells_what_a_walk_over_everything_sees() {
    let store = Store::new();
    let layers = store.layers();
    let driver = store.open();
    for seed in 0..ROUNDS {
        let mut edits = Edits::new(seed);
        let [base, middle, top] = ["base", "middle", "top"].map(|name| format!("{name}-{seed}"));
        grow(&layers, &base, None, true, |root| {
            base_tree(root, &mut edits);
            edit(root, &mut edits, 6);
        });
        grow(&layers, &middle, Some(&base), true, |root| edit(root, &mut edits, 12));
        // Not sealed, and in two mounts.
        grow(&layers, &top, Some(&middle), false, |root| edit(root, &mut edits, 5));
        let mount = layers.mount(&id(&top), &MountRequest::new()).unwrap();
        edit(mount.target(), &mut edits, 5);
        let what = || format!("seed {seed}: {:#?}", edits.log);
        must_agree(&*driver, &top, &middle, &what);
        must_agree(&*driver, &middle, &base, &what);
        mount.unmount().unwrap();
        must_agree(&*driver, &top, &middle, &what);
        for layer in [&top, &middle, &base] {
            layers.remove(&id(layer)).unwrap();
        }
    }
    assert_eq!(names(&store.home()), [""; 0]);
    assert_eq!(store.subvolumes(), [""; 0]);
}

#[test]
fn the_candidates_are_those_of_the_changes() {
    let store = Store::new();
    let driver = store.open();
    let base = create(&*driver, "base", None);
    for directory in 0..20 {
        fs::create_dir(base.join(format!("d{directory}"))).unwrap();
        for file in 0..20 {
            fs::write(base.join(format!("d{directory}/f{file}")), "x").unwrap();
        }
    }
    fs::hard_link(base.join("d1/f1"), base.join("d2/same")).unwrap();
    driver.seal(&id("base"), true).unwrap();
    let top = create(&*driver, "top", Some("base"));
    // A kernel's clock may go on by a hundredth of a second, and a directory of the same time as before is unchanged.
    std::thread::sleep(Duration::from_millis(20));
    fs::write(top.join("d1/f1"), "changed").unwrap();
    fs::remove_file(top.join("d3/f3")).unwrap();
    fs::rename(top.join("d4"), top.join("renamed")).unwrap();
    fs::create_dir(top.join("new")).unwrap();
    fs::write(top.join("new/file"), "x").unwrap();
    let entry = |path: &str| (PathBuf::from(path), Scope::Entry);
    let subtree = |path: &str| (PathBuf::from(path), Scope::Subtree);
    let wanted = [
        entry(""),
        entry("d1/f1"),
        entry("d2/same"),
        entry("d3"),
        entry("d3/f3"),
        subtree("d4"),
        subtree("new"),
        subtree("renamed"),
    ];
    assert_eq!(paths(&*driver, "top"), wanted);
    assert_eq!(names(&store.home()), ["subvolumes/base", "subvolumes/top"]);
}

#[test]
fn reading_makes_no_candidates() {
    let store = Store::new();
    run(Command::new("mount").args(["-o", "remount,strictatime"]).arg(store.path()));
    let driver = store.open();
    let base = create(&*driver, "base", None);
    for file in 0..100 {
        fs::write(base.join(format!("f{file}")), "x").unwrap();
    }
    driver.seal(&id("base"), true).unwrap();
    let top = create(&*driver, "top", Some("base"));
    let accessed =
        |name: &str| fs::metadata(top.join(name)).map(|found| (found.atime(), found.atime_nsec())).unwrap();
    let before = accessed("f5");
    for file in 0..100 {
        fs::read(top.join(format!("f{file}"))).unwrap();
    }
    fs::write(top.join("f7"), "y").unwrap();
    assert_ne!(accessed("f5"), before);
    assert_eq!(paths(&*driver, "top"), [(PathBuf::from("f7"), Scope::Entry)]);
}

/// A path longer than the kernel takes in one call, and than it can send.
#[test]
fn a_tree_too_deep_for_a_send_is_walked() {
    let store = Store::new();
    let layers = store.layers();
    let deep = |root: &Path| {
        let name = "d".repeat(200);
        let mut at = fs::File::open(root).unwrap().into();
        for _ in 0..40 {
            let _ = rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU);
            let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
            at = rustix::fs::openat(&at, &name, flags, rustix::fs::Mode::empty()).unwrap();
        }
        at
    };
    grow(&layers, "base", None, true, |root| {
        let at = deep(root);
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        drop(rustix::fs::openat(&at, "file", flags, rustix::fs::Mode::RUSR).unwrap());
        rustix::fs::linkat(&at, "file", &at, "link", rustix::fs::AtFlags::empty()).unwrap();
    });
    grow(&layers, "top", Some("base"), false, |root| {
        let at = deep(root);
        let owner = rustix::fs::Uid::from_raw(5);
        rustix::fs::chownat(&at, "file", Some(owner), None, rustix::fs::AtFlags::empty()).unwrap();
    });
    let found = layers.changes(&id("top"), Base::Parent).unwrap();
    assert_eq!(found.len(), 42, "{found:?}");
    remove_all(&layers, &["top", "base"]);
}

#[test]
fn where_most_was_changed_all_is_compared() {
    let store = Store::new();
    let driver = store.open();
    let write = |root: &Path, kind: &str, count: u32, what: &str| {
        (0..count).for_each(|number| fs::write(root.join(format!("{kind}{number}")), what).unwrap());
    };
    let base = create(&*driver, "base", None);
    write(&base, "early", 600, "x");
    // Between the numbers of the others are many that no file has any more.
    write(&base, "gone", 5000, "x");
    (0..5000).for_each(|number| fs::remove_file(base.join(format!("gone{number}"))).unwrap());
    write(&base, "late", 250, "x");
    driver.seal(&id("base"), true).unwrap();
    write(&create(&*driver, "few", Some("base")), "late", 250, "y");
    assert_eq!(paths(&*driver, "few").len(), 250);
    let most = create(&*driver, "most", Some("base"));
    write(&most, "early", 600, "y");
    write(&most, "late", 250, "y");
    write(&most, "new", 10_000, "y");
    // What was written into memory alone counts too.
    assert!(matches!(driver.candidates(&id("most")).unwrap(), Candidates::All { untouched: Some(_) }));
    let mut found = changes(&tree(&*driver, "most"), Some(&tree(&*driver, "base")), everywhere()).unwrap();
    found.retain(|change| change.path != Path::new(""));
    assert_eq!(found.len(), 10_850);
}

fn remove_all(layers: &Layers, names: &[&str]) {
    for name in names {
        layers.remove(&id(name)).unwrap();
    }
}
