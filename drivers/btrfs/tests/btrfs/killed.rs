//! Processes that are killed between two ioctls, in what the suite's layers do not have: subvolumes inside, sizes, and
//! snapshots for a diff.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use layerstack_btrfs::REGISTRATION;
use layerstack_core::layers::{Base, Config, Layers};
use layerstack_core::options::Options;
use layerstack_core::registry::Registry;
use layerstack_core::tree::{Tree, dump};

use crate::quota::{groups, notes, settle};
use crate::store::{Store, grow, id, names, run};

/// Where the process that is to be killed finds the root.
const ROOT: &str = "LAYERSTACK_BTRFS_TEST_ROOT";

/// What that process does; not a test on its own.
#[test]
#[ignore = "is started by another test, which kills it"]
fn victim() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let registry = Registry::new(&[&REGISTRATION]).unwrap();
    let layers = Layers::open(Path::new(&root), &registry, &Config::new().with_driver("btrfs")).unwrap();
    let (base, top) = (id("base"), id("top"));
    layers.create(&top, Some(&base), &Options::parse(["size=64M"]).unwrap()).unwrap();
    fs::write(layers.home().join("subvolumes/top/new"), "x").unwrap();
    layers.changes(&top, Base::Parent).unwrap();
    layers.seal(&top).unwrap();
    layers.remove(&top).unwrap();
}

fn fill(root: &Path) {
    let create =
        |path: &str| run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(root.join(path)));
    create("one");
    fs::write(root.join("one/file"), "1").unwrap();
    create("one/two");
    fs::write(root.join("one/two/file"), "2").unwrap();
    create("three");
}

/// Starts the victim, which passes a point so many times before it is killed there; gives the points that it passed.
fn start(store: &Store, kill_at: Option<&str>) -> (Option<i32>, Vec<String>) {
    let log = store.path().join("log");
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "killed::victim", "--ignored"]).env(ROOT, store.root());
    victim.env("LAYERSTACK_KILL_LOG", &log).envs(kill_at.map(|point| ("LAYERSTACK_KILL_AT", point)));
    let output = victim.output().unwrap();
    let text = fs::read_to_string(&log).unwrap_or_default();
    let _ = fs::remove_file(&log);
    if kill_at.is_none() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    (output.status.signal(), text.lines().map(str::to_owned).collect())
}

#[test]
fn every_layer_is_whole_or_absent_and_nothing_else_is_left() {
    let store = Store::large();
    run(Command::new("btrfs").args(["quota", "enable"]).arg(store.path()));
    grow(&store.layers(), "base", None, true, fill);
    let text = |layer: &str| {
        let path = store.home().join("subvolumes").join(layer);
        dump(&Tree::from_fd(fs::File::open(path).unwrap().into())).unwrap()
    };
    let (base, clean) = (text("base"), (names(&store.home()), store.subvolumes()));
    let counted = groups(&store);
    let (_, passed) = start(&store, None);
    let ours: BTreeSet<_> = passed.iter().filter(|point| point.starts_with("btrfs.")).cloned().collect();
    let wanted = [
        "btrfs.create.limited",
        "btrfs.create.nested",
        "btrfs.create.snapshot",
        "btrfs.freeze.snapshot",
        "btrfs.remove.deleted",
        "btrfs.remove.nested",
        "btrfs.remove.released",
        "btrfs.remove.renamed",
        "btrfs.seal.read-only",
    ];
    assert_eq!(ours.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
    assert_eq!((names(&store.home()), store.subvolumes()), clean);
    for (number, point) in passed.iter().enumerate() {
        let nth = passed[..=number].iter().filter(|passed| *passed == point).count();
        let at = format!("{point}:{nth}");
        let (signal, _) = start(&store, Some(&at));
        assert_eq!(signal, Some(9), "{at}");
        let layers = store.layers();
        assert_eq!(layers.check().unwrap(), [], "{at}");
        assert_eq!(text("base"), base, "{at}");
        assert_eq!(
            names(&store.home()).iter().filter(|name| name.starts_with("snapshots/")).count(),
            0,
            "{at}"
        );
        if layers.contains(&id("top")).unwrap() {
            let top: Vec<_> = text("top").lines().map(str::to_owned).collect();
            let inside = top.iter().filter(|line| line.starts_with("/one") || line.starts_with("/three"));
            let below = base.lines().filter(|line| line.starts_with("/one") || line.starts_with("/three"));
            assert!(inside.eq(below), "{at}: {top:#?}");
            layers.remove(&id("top")).unwrap();
        }
        drop(layers);
        assert_eq!((names(&store.home()), store.subvolumes()), clean, "{at}");
        settle(&store);
        drop(store.open());
        assert_eq!((groups(&store), notes(&store)), (counted.clone(), vec![]), "{at}");
    }
}
