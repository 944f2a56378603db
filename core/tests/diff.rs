//! Differs against each other and against what they stand for, on random edits: the narrowed walk writes the same
//! bytes as the full one, and what either writes makes the parent's tree equal to the layer's when it is unpacked.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[path = "diff/edit.rs"]
mod edit;

#[path = "diff/unpack.rs"]
mod unpack;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layerstack_core::ErrorKind;
use layerstack_core::diff::{changes, export};
use layerstack_core::driver::{Candidate, Candidates, CtimeWindow, LayerForm, Scope};
use layerstack_core::fs::{Reflink, copy_tree};
use layerstack_core::mount::{Access, Hold, MountOption, MountPlan, attach, detach};
use layerstack_core::tree::{Tree, dump};

use edit::{Edits, base_tree};

const ROUNDS: u64 = 40;

fn bind(path: &Path) -> Tree {
    Tree::open(&MountPlan::bind(path, Access::ReadOnly, "/none")).unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    copy_tree(File::open(from).unwrap(), File::open(to).unwrap(), from, Reflink::Never).unwrap();
}

fn tar(layer: &Tree, base: &Tree, candidates: Candidates) -> Vec<u8> {
    let mut tar = Vec::new();
    export(layer, Some(base), candidates, &mut tar).unwrap();
    tar
}

fn everywhere() -> Candidates {
    Candidates::All { untouched: Some(CtimeWindow::NEVER) }
}

fn entries(paths: impl IntoIterator<Item = (PathBuf, Scope)>) -> Candidates {
    let mut candidates: Vec<_> = paths.into_iter().map(|(path, scope)| Candidate { path, scope }).collect();
    candidates.sort_by(|a, b| a.path.components().cmp(b.path.components()));
    Candidates::Paths(Box::new(candidates.into_iter().map(Ok)))
}

/// All paths of a tree, relative.
fn paths(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            paths(root, &path, found);
        }
        found.insert(path);
    }
}

/// The text of a tree without its sockets, which no tar can hold.
fn without_sockets(tree: &Tree) -> String {
    dump(tree)
        .unwrap()
        .lines()
        .filter(|line| !line.contains(" socket "))
        .fold(String::new(), |text, line| text + line + "\n")
}

fn assert_same_text(seed: u64, edits: &Edits, left: &str, right: &str) {
    let only = |a: &str, b: &str| {
        let b: BTreeSet<&str> = b.lines().collect();
        a.lines().filter(|line| !b.contains(line)).map(|line| format!("  {line}\n")).collect::<String>()
    };
    assert!(
        left == right,
        "seed {seed}\nlayer only:\n{}unpacked only:\n{}edits:\n{}",
        only(left, right),
        only(right, left),
        edits.log.join("\n")
    );
}

/// The paths that a tar names, whiteouts as what they delete.
fn named(tar: &[u8]) -> BTreeSet<PathBuf> {
    let plain = |name: String| {
        let name = name.trim_end_matches('/');
        let (parent, last) = name.rsplit_once('/').map_or(("", name), |(parent, last)| (parent, last));
        Path::new(parent).join(last.strip_prefix(".wh.").unwrap_or(last))
    };
    unpack::names(tar)
        .into_iter()
        .map(plain)
        .map(|path| if path == Path::new(".") { "".into() } else { path })
        .collect()
}

#[test]
fn narrowed_and_full_walks_agree_and_their_tar_makes_the_layer() {
    for seed in 0..ROUNDS {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::create_dir(at("base")).unwrap();
        let mut edits = Edits::new(seed);
        base_tree(&at("base"), &mut edits);
        copy(&at("base"), &at("layer"));
        edits.run(&at("layer"), 25);

        let (base, layer) = (bind(&at("base")), bind(&at("layer")));
        let oracle = tar(&layer, &base, everywhere());
        let listed = changes(&layer, Some(&base), everywhere()).unwrap();

        let mut all = BTreeSet::new();
        paths(&at("base"), Path::new(""), &mut all);
        paths(&at("layer"), Path::new(""), &mut all);
        let each = || entries(all.iter().map(|path| (path.clone(), Scope::Entry)));
        let top = || entries([("".into(), Scope::Subtree)]);
        assert!(oracle == tar(&layer, &base, each()), "every path, seed {seed}: {:#?}", edits.log);
        assert!(oracle == tar(&layer, &base, top()), "the root's subtree, seed {seed}: {:#?}", edits.log);
        assert_eq!(listed, changes(&layer, Some(&base), each()).unwrap(), "seed {seed}");

        // Only what the oracle names, and some more.
        let mut few = named(&oracle);
        for change in &listed {
            few.insert(change.path.strip_prefix("/").unwrap().to_owned());
        }
        few.extend(all.iter().filter(|_| edits.random.below(4) == 0).cloned());
        let scopes: Vec<bool> = few.iter().map(|_| edits.random.below(6) == 0).collect();
        let few =
            || {
                entries(few.iter().zip(&scopes).map(|(path, subtree)| {
                    (path.clone(), if *subtree { Scope::Subtree } else { Scope::Entry })
                }))
            };
        assert_eq!(listed, changes(&layer, Some(&base), few()).unwrap(), "seed {seed}: {:#?}", edits.log);
        let narrowed = tar(&layer, &base, few());
        assert_eq!(unpack::names(&oracle), unpack::names(&narrowed), "seed {seed}: {:#?}", edits.log);
        assert!(oracle == narrowed, "a narrowed walk, seed {seed}: {:#?}", edits.log);

        copy(&at("base"), &at("unpacked"));
        unpack::unpack(&oracle, &at("unpacked"));
        assert_same_text(seed, &edits, &without_sockets(&layer), &without_sockets(&bind(&at("unpacked"))));

        copy(&at("base"), &at("applied"));
        unpack::apply_to(&oracle, &at("applied"), LayerForm::Whole, Some(&at("base")));
        assert_same_text(seed, &edits, &without_sockets(&layer), &without_sockets(&bind(&at("applied"))));

        // A whole layer, and one that changes nothing.
        let mut whole = Vec::new();
        export(&layer, None, everywhere(), &mut whole).unwrap();
        for name in ["fresh", "fresh applied"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        unpack::unpack(&whole, &at("fresh"));
        unpack::apply_to(&whole, &at("fresh applied"), LayerForm::Whole, None);
        for name in ["fresh", "fresh applied"] {
            assert_same_text(seed, &edits, &without_sockets(&layer), &without_sockets(&bind(&at(name))));
        }
        let none = tar(&bind(&at("layer")), &layer, everywhere());
        assert_eq!(none, vec![0; none.len()]);
    }
}

/// An overlay mount that is taken away again.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // A child process that another test starts has our descriptors until it executes its program.
        for _ in 0..500 {
            match detach(&self.0) {
                Err(error) if error.kind() == ErrorKind::InUse => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                outcome => return assert!(outcome.is_ok() || std::thread::panicking(), "{outcome:?}"),
            }
        }
        // Better a mount that goes when it can than one that stays.
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// What overlayfs' upper directory says about where to look.
fn upper_candidates(upper: &Path, below: &Path, found: &mut Vec<(PathBuf, Scope)>) {
    for entry in std::fs::read_dir(upper.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        let mut scope = Scope::Entry;
        if entry.file_type().unwrap().is_dir() {
            let parent = File::open(upper.join(below)).unwrap();
            let name = std::ffi::CString::new(entry.file_name().as_bytes()).unwrap();
            let opaque = layerstack_core::fs::xattr::get(&parent, &name, c"trusted.overlay.opaque").unwrap();
            if opaque.is_some() {
                scope = Scope::Subtree;
            } else {
                upper_candidates(upper, &path, found);
            }
        }
        found.push((path, scope));
    }
}

#[test]
fn on_overlayfs_the_upper_directory_narrows_to_the_same_bytes() {
    for seed in 1000..1000 + ROUNDS {
        let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
        let at = |name: &str| scratch.path().join(name);
        for name in ["base", "upper", "work", "merged"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let mut edits = Edits::new(seed);
        base_tree(&at("base"), &mut edits);
        // The root of a layer is made with the parent's metadata.
        unpack::same_metadata(&at("base"), &at("upper"));
        let overlay = |access, options: Vec<MountOption>| MountPlan {
            fstype: "overlay".into(),
            source: "overlay".into(),
            access,
            options: [options, vec![MountOption::Value("index".into(), "off".into())]].concat(),
            base: None,
            subdirectory: None,
            settings: Vec::new(),
            target: at("merged"),
            hold: Hold::default(),
        };
        let writable = overlay(
            Access::ReadWrite,
            vec![
                MountOption::Layers("lowerdir".into(), vec![at("base")]),
                MountOption::Path("upperdir".into(), at("upper")),
                MountOption::Path("workdir".into(), at("work")),
            ],
        );
        attach(&writable, &at("merged")).unwrap();
        {
            let _mounted = Mounted(at("merged"));
            edits.run(&at("merged"), 25);
        }
        let over_base = |layer: &str| {
            let layers = MountOption::Layers("lowerdir".into(), vec![at(layer), at("base")]);
            Tree::open(&overlay(Access::ReadOnly, vec![layers])).unwrap()
        };
        let (base, layer) = (bind(&at("base")), over_base("upper"));
        let mut found = Vec::new();
        upper_candidates(&at("upper"), Path::new(""), &mut found);
        let narrowed = tar(&layer, &base, entries(found.clone()));
        let oracle = tar(&layer, &base, everywhere());
        assert_eq!(
            unpack::names(&oracle),
            unpack::names(&narrowed),
            "seed {seed}\n{}\n{found:#?}",
            edits.log.join("\n")
        );
        assert!(oracle == narrowed, "seed {seed}");
        assert_eq!(
            changes(&layer, Some(&base), everywhere()).unwrap(),
            changes(&layer, Some(&base), entries(found)).unwrap()
        );
        copy(&at("base"), &at("unpacked"));
        unpack::unpack(&oracle, &at("unpacked"));
        assert_same_text(seed, &edits, &without_sockets(&layer), &without_sockets(&bind(&at("unpacked"))));

        std::fs::create_dir(at("applied")).unwrap();
        unpack::same_metadata(&at("base"), &at("applied"));
        let form = LayerForm::Overlay { userxattr: false };
        unpack::apply_to(&oracle, &at("applied"), form, Some(&at("base")));
        assert_same_text(seed, &edits, &without_sockets(&layer), &without_sockets(&over_base("applied")));
    }
}

#[test]
fn a_path_deeper_than_path_max_and_than_descriptors_go() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["base", "layer"] {
        std::fs::create_dir(scratch.path().join(name)).unwrap();
        let mut at = OwnedFd::from(File::open(scratch.path().join(name)).unwrap());
        let mode = rustix::fs::Mode::from_raw_mode(0o755);
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "deep", mode).unwrap();
            at = rustix::fs::openat(&at, "deep", rustix::fs::OFlags::RDONLY, mode).unwrap();
        }
        if name == "layer" {
            rustix::fs::openat(&at, "new", rustix::fs::OFlags::CREATE, mode).unwrap();
        }
    }
    let (base, layer) = (bind(&scratch.path().join("base")), bind(&scratch.path().join("layer")));
    let found = changes(&layer, Some(&base), Candidates::All { untouched: None }).unwrap();
    assert_eq!(found.len(), 1501);
    let path = "deep/".repeat(1500) + "new";
    let narrowed = || entries([(PathBuf::from(&path), Scope::Entry)]);
    assert_eq!(changes(&layer, Some(&base), narrowed()).unwrap(), found);
    // Directories on the way have mtimes of their own.
    assert!(tar(&layer, &base, everywhere()) == tar(&layer, &base, narrowed()));
    let root = File::open(scratch.path()).unwrap();
    for name in ["base", "layer"] {
        layerstack_core::fs::remove_tree(&root, name.as_ref(), scratch.path()).unwrap();
    }
}
