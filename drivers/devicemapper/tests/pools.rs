//! Pools of every kind on a real kernel. Where the host has no device-mapper:
//! `cargo xtask vm -- target/debug/deps/pools-… --ignored`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstack_core::driver::{Candidates, Driver, Scope};
use layerstack_core::layers::{Base, MountRequest};
use layerstack_core::options::Options;
use layerstack_core::registry::{OpenRequest, Registry};
use layerstack_core::{Config, ErrorKind, LayerId, Layers};
use layerstack_devicemapper::REGISTRATION;

/// A directory in memory, in which homes and the files of devices are; the devices go with it.
struct Place {
    directory: tempfile::TempDir,
    loops: Vec<PathBuf>,
    mapped: Vec<String>,
}

impl Place {
    fn new() -> Self {
        for module in ["loop", "dm-thin-pool"] {
            // Built in, on some kernels.
            let _ = Command::new("modprobe").arg(module).status();
        }
        let directory = tempfile::Builder::new().prefix("layerstack-pools-").tempdir().unwrap();
        Self { directory, loops: Vec::new(), mapped: Vec::new() }
    }

    fn root(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A block device of zeros.
    fn device(&mut self, megabytes: u64) -> PathBuf {
        let image = self.directory.path().join(format!("image-{}", self.loops.len()));
        fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let device =
            PathBuf::from(run(Command::new("losetup").args(["--find", "--show"]).arg(&image)).trim());
        self.loops.push(device.clone());
        device
    }

    /// A pool as an administrator makes it.
    fn pool(&mut self) -> String {
        let (data, metadata) = (self.device(400), self.device(16));
        let name = format!("pool-{}-{}", std::process::id(), self.mapped.len());
        let table =
            format!("0 {} thin-pool {} {} 128 0", (400 << 20) / 512, metadata.display(), data.display());
        run(Command::new("dmsetup").env("DM_DISABLE_UDEV", "1").args(["create", &name, "--table", &table]));
        self.mapped.push(name.clone());
        name
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in &self.mapped {
            run(Command::new("dmsetup").env("DM_DISABLE_UDEV", "1").args(["remove", "--retry", name]));
        }
        for device in &self.loops {
            run(Command::new("losetup").arg("--detach").arg(device));
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn open(root: &Path, options: &[&str]) -> layerstack_core::Result<Layers> {
    let config = Options::parse(options)
        .unwrap()
        .iter()
        .fold(Config::new().with_driver(REGISTRATION.name), |config, (key, value)| {
            config.with_option(key, value)
        });
    Layers::open(root, &Registry::new(&[&REGISTRATION]).unwrap(), &config)
}

fn open_driver(root: &Path, options: &[&str]) -> Box<dyn Driver> {
    let options = Options::parse(options).unwrap();
    (REGISTRATION.open)(&OpenRequest::new(&root.join(REGISTRATION.name), &options)).unwrap()
}

fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

fn edit(layers: &Layers, layer: &str, change: impl FnOnce(&Path)) {
    let mount = layers.mount(&id(layer), &MountRequest::new()).unwrap();
    change(mount.target());
    mount.unmount().unwrap();
}

fn noise(megabytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(megabytes << 20)
    .collect()
}

fn wait_until(is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it did not come to pass");
}

/// An image's layer, a container on it, and what changed in it.
fn exercise(root: &Path, options: &[&str]) {
    let layers = open(root, options).unwrap();
    layers.create(&id("base"), None, &Options::new()).unwrap();
    edit(&layers, "base", |tree| {
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "content").unwrap();
        fs::write(tree.join("other"), noise(4)).unwrap();
    });
    layers.seal(&id("base")).unwrap();
    drop(layers);
    let layers = open(root, options).unwrap();
    layers.create(&id("top"), Some(&id("base")), &Options::new()).unwrap();
    edit(&layers, "top", |tree| fs::write(tree.join("a/b/file"), "changed").unwrap());
    let changes: Vec<_> =
        layers.changes(&id("top"), Base::Parent).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["C /a", "C /a/b", "C /a/b/file"]);
    assert!(layers.check().unwrap().is_empty());
}

fn clear(root: &Path, options: &[&str]) {
    let layers = open(root, options).unwrap();
    for layer in ["top", "base"] {
        layers.remove(&id(layer)).unwrap();
    }
}

fn status(layers: &Layers, key: &str) -> String {
    let status = layers.status().unwrap();
    status.entries.into_iter().find(|(found, _)| found == key).unwrap().1
}

/// What a status says in megabytes.
fn megabytes(layers: &Layers, key: &str) -> f64 {
    let text = status(layers, key);
    let (number, factor) = [("kB", 0.001), ("MB", 1.0), ("GB", 1000.0)]
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or_else(|| (text.strip_suffix('B').unwrap(), 0.000_001));
    number.parse::<f64>().unwrap() * factor
}

/// A process that makes a pool can be killed between any two calls.
#[test]
#[ignore = "needs device-mapper"]
fn what_is_left_of_a_pool_that_was_being_made_is_taken_away() {
    let mut place = Place::new();
    let root = place.root("half");
    let options = ["dm.loopdatasize=300M"];
    drop(open(&root, &options).unwrap());
    let home = root.join("devicemapper");
    let file = |name: &str| home.join("devicemapper").join(name);
    let attach = |name: &str| {
        // Not one that frees itself.
        run(Command::new("losetup").args(["--find", "--show"]).arg(file(name))).trim().to_owned()
    };
    attach("metadata");
    drop(open(&root, &options).unwrap());
    let found = home.metadata().unwrap();
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    let pool = format!("docker-{major}:{minor}-{}-pool", found.ino());
    let dmsetup = |words: &[&str]| run(Command::new("dmsetup").env("DM_DISABLE_UDEV", "1").args(words));
    // The last pool goes by itself.
    wait_until(|| !dmsetup(&["ls"]).contains(&pool));
    let table = format!("0 8192 thin-pool {} {} 128 0", attach("metadata"), attach("data"));
    dmsetup(&["create", &pool, "--notable"]);
    place.mapped.push(pool.clone());
    dmsetup(&["load", &pool, "--table", &table]);
    exercise(&root, &options);
    place.mapped.clear();
    for name in ["data", "metadata"] {
        wait_until(|| run(Command::new("losetup").arg("--associated").arg(file(name))).is_empty());
    }
}

#[test]
#[ignore = "needs device-mapper"]
fn a_pool_on_block_devices() {
    let mut place = Place::new();
    let (data, metadata) = (place.device(400), place.device(16));
    let options =
        [format!("dm.datadev={}", data.display()), format!("dm.metadatadev={}", metadata.display())];
    let options = options.each_ref().map(String::as_str);
    exercise(&place.root("root"), &options);
    clear(&place.root("root"), &options);
}

#[test]
#[ignore = "needs device-mapper"]
fn a_pool_on_parts_of_one_device() {
    let mut place = Place::new();
    let device = place.device(400);
    let option = format!("dm.directlvm_device={}", device.display());
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&device));
    let error = open(&place.root("root"), &[&option]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(error.to_string().contains("dm.directlvm_device_force"), "{error}");
    exercise(&place.root("root"), &[&option, "dm.directlvm_device_force=true"]);
    // Once it is divided no force is needed, and it is not divided again.
    let layers = open(&place.root("root"), &[&option]).unwrap();
    edit(&layers, "top", |tree| assert_eq!(fs::read_to_string(tree.join("a/b/file")).unwrap(), "changed"));
    drop(layers);
    let other = place.device(400);
    let other = format!("dm.directlvm_device={}", other.display());
    let error = open(&place.root("root"), &[&other]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    clear(&place.root("root"), &[&option]);
}

#[test]
#[ignore = "needs device-mapper"]
fn a_pool_that_is_there() {
    let mut place = Place::new();
    let option = format!("dm.thinpooldev=/dev/mapper/{}", place.pool());
    exercise(&place.root("root"), &[&option]);
    // One pool is one home's.
    let error = open(&place.root("other"), &[&option]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    // And one home's pool is one.
    let another = place.pool();
    exercise(&place.root("third"), &[&format!("dm.thinpooldev={another}")]);
    let error = open(&place.root("root"), &[&format!("dm.thinpooldev={another}")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    let error = open(&place.root("other"), &["dm.thinpooldev=no-such-pool"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    clear(&place.root("root"), &[&option]);
}

/// moby#15629, containerd#4790: a number that somebody else's device has is neither used nor, after a crash, deleted.
#[test]
#[ignore = "needs device-mapper"]
fn a_device_of_somebody_elses_is_left_alone() {
    let mut place = Place::new();
    let pool = place.pool();
    let option = format!("dm.thinpooldev={pool}");
    let root = place.root("root");
    drop(open(&root, &[&option]).unwrap());
    let message = |text: &str| run(Command::new("dmsetup").args(["message", &pool, "0", text]));
    // The base device has 1.
    message("create_thin 2");
    exercise(&root, &[&option]);
    let layers = open(&root, &[&option]).unwrap();
    assert_eq!(layers.inspect(&id("base")).unwrap()["DeviceId"], "3");
    drop(layers);
    // As after a kill between the intent and the pool's answer that the number is taken.
    let intent = root.join("devicemapper/metadata/transaction-metadata");
    let noted = fs::read_to_string(&intent).unwrap();
    let counted: u64 = noted.split(['{', ':', ',']).nth(2).unwrap().parse().unwrap();
    let doubt = format!(r#"{{"open_transaction_id":{},"device_hash":"lost","device_id":2}}"#, counted + 1);
    fs::write(&intent, format!("{doubt:512}")).unwrap();
    exercise_again(&root, &option);
    // It is still there: deleting it works once.
    message("delete 2");
    let again = Command::new("dmsetup").args(["message", &pool, "0", "delete 2"]).output().unwrap();
    assert!(!again.status.success());
    // A device that is gone is found out.
    let layers = open(&root, &[&option]).unwrap();
    let number = layers.inspect(&id("top")).unwrap()["DeviceId"].clone();
    message(&format!("delete {number}"));
    assert_eq!(layers.inspect(&id("top")).unwrap_err().kind(), ErrorKind::Corrupt);
    let findings = layers.check().unwrap();
    assert!(findings.len() == 1 && findings[0].layer == id("top"), "{findings:?}");
    assert_eq!(layers.mount(&id("top"), &MountRequest::new()).unwrap_err().kind(), ErrorKind::Corrupt);
    layers.remove(&id("top")).unwrap();
    drop(layers);
    // A pool that has gone back behind what the home knows is refused.
    let doubt = format!(r#"{{"open_transaction_id":{},"device_hash":"lost","device_id":2}}"#, counted + 9);
    fs::write(&intent, format!("{doubt:512}")).unwrap();
    let error = open(&root, &[&option]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    fs::write(&intent, noted).unwrap();
}

fn exercise_again(root: &Path, option: &str) {
    let layers = open(root, &[option]).unwrap();
    edit(&layers, "top", |tree| assert_eq!(fs::read_to_string(tree.join("a/b/file")).unwrap(), "changed"));
}

#[test]
#[ignore = "needs device-mapper"]
fn files_and_file_systems_grow_and_never_shrink() {
    let place = Place::new();
    let root = place.root("root");
    let total = |options: &[&str]| megabytes(&open(&root, options).unwrap(), "Data Space Total");
    let small = total(&["dm.loopdatasize=64M", "dm.basesize=100M"]);
    assert!((60.0..68.0).contains(&small), "{small}");
    let large = total(&["dm.loopdatasize=256M"]);
    assert!((250.0..270.0).contains(&large), "{large}");
    assert!(total(&["dm.loopdatasize=32M"]) >= large);
    let options = ["dm.loopdatasize=256M", "dm.basesize=300M"];
    let layers = open(&root, &options).unwrap();
    let room = |layer: &str| {
        let mount = layers.mount(&id(layer), &MountRequest::new()).unwrap();
        let found = rustix::fs::statvfs(mount.target()).unwrap();
        mount.unmount().unwrap();
        (found.f_blocks * found.f_frsize) >> 20
    };
    layers.create(&id("base"), None, &Options::new()).unwrap();
    let ordinary = room("base");
    assert!((240..=300).contains(&ordinary), "{ordinary}");
    layers.seal(&id("base")).unwrap();
    let sized = |size: &str| Options::parse([format!("size={size}")]).unwrap();
    layers.create(&id("top"), Some(&id("base")), &sized("1G")).unwrap();
    assert!(room("top") > 900, "{}", room("top"));
    let error = layers.create(&id("small"), Some(&id("base")), &sized("200M")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(!layers.contains(&id("small")).unwrap());
}

#[test]
#[ignore = "needs device-mapper"]
fn an_xfs_is_made_grown_and_compared() {
    let place = Place::new();
    let root = place.root("root");
    let options = ["dm.fs=xfs", "dm.basesize=400M", "dm.loopdatasize=300M", "dm.xfs_nospace_max_retries=3"];
    exercise(&root, &options);
    let driver = open_driver(&root, &options);
    let Candidates::Paths(found) = driver.candidates(&id("top")).unwrap() else { panic!("everything") };
    let found: Vec<_> = found.map(|found| found.unwrap().path).collect();
    assert_eq!(found, [Path::new("a/b/file")]);
    drop(driver);
    let layers = open(&root, &options).unwrap();
    layers.create(&id("large"), Some(&id("base")), &Options::parse(["size=1G"]).unwrap()).unwrap();
    let mount = layers.mount(&id("large"), &MountRequest::new()).unwrap();
    let found = rustix::fs::statvfs(mount.target()).unwrap();
    assert!((found.f_blocks * found.f_frsize) >> 20 > 900);
    let device = fs::read_dir("/sys/fs/xfs").unwrap().flatten().map(|entry| entry.path());
    let retries = |device: PathBuf| fs::read_to_string(device.join("error/metadata/ENOSPC/max_retries")).ok();
    assert_eq!(device.filter_map(retries).collect::<Vec<_>>(), ["3\n"]);
    fs::write(mount.target().join("new"), "x").unwrap();
    // While it is written to.
    let changes: Vec<_> =
        layers.changes(&id("large"), Base::Parent).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["A /new"]);
    mount.unmount().unwrap();
}

/// containerd#5691, moby#3182: what a removed layer had is given back, to the pool and to the host.
#[test]
#[ignore = "needs device-mapper"]
fn removing_gives_space_back_to_pool_and_host() {
    let place = Place::new();
    let root = place.root("root");
    let layers = open(&root, &["dm.loopdatasize=300M"]).unwrap();
    let file = root.join("devicemapper/devicemapper/data");
    let taken = || (file.metadata().unwrap().blocks() * 512) >> 20;
    let used = || megabytes(&layers, "Data Space Used");
    let before = (used(), taken());
    layers.create(&id("layer"), None, &Options::new()).unwrap();
    edit(&layers, "layer", |tree| fs::write(tree.join("large"), noise(64)).unwrap());
    layers.seal(&id("layer")).unwrap();
    assert!(used() > before.0 + 64.0 && taken() >= before.1 + 64, "{before:?}, {}, {}", used(), taken());
    let exclusive = layers.usage(&id("layer")).unwrap().exclusive.unwrap() >> 20;
    assert!((64..80).contains(&exclusive), "{exclusive}");
    layers.remove(&id("layer")).unwrap();
    assert!(used() < before.0 + 1.0 && taken() <= before.1 + 1, "{before:?}, {}, {}", used(), taken());
}

#[test]
#[ignore = "needs device-mapper"]
fn what_was_not_touched_is_not_looked_at() {
    let place = Place::new();
    let root = place.root("root");
    let options = ["dm.loopdatasize=300M"];
    exercise(&root, &options);
    let candidates = |driver: &dyn Driver, layer: &str| match driver.candidates(&id(layer)).unwrap() {
        Candidates::Paths(found) => found.map(|found| found.unwrap()).collect::<Vec<_>>(),
        Candidates::All { .. } => panic!("everything"),
    };
    let layers = open(&root, &options).unwrap();
    layers.create(&id("same"), Some(&id("base")), &Options::new()).unwrap();
    layers.create(&id("mounted"), Some(&id("base")), &Options::new()).unwrap();
    edit(&layers, "mounted", |tree| {
        fs::read(tree.join("other")).unwrap();
    });
    layers.create(&id("moved"), Some(&id("base")), &Options::new()).unwrap();
    edit(&layers, "moved", |tree| {
        fs::rename(tree.join("a/b"), tree.join("c")).unwrap();
        fs::create_dir_all(tree.join("a/b")).unwrap();
    });
    drop(layers);
    let driver = open_driver(&root, &options);
    assert_eq!(candidates(&*driver, "same"), []);
    // Being mounted and read is no change.
    assert_eq!(candidates(&*driver, "mounted"), []);
    let found: Vec<_> =
        candidates(&*driver, "moved").into_iter().map(|found| (found.path, found.scope)).collect();
    let expected = [
        ("", Scope::Entry),
        ("a", Scope::Entry),
        ("a/b", Scope::Subtree),
        ("a/b/file", Scope::Entry),
        ("c", Scope::Entry),
    ];
    assert_eq!(found, expected.map(|(path, scope)| (PathBuf::from(path), scope)));
}

/// The home as Docker leaves it: no `rootfs` in the base device, no parents, no note of ours.
#[test]
#[ignore = "needs device-mapper"]
fn a_home_of_dockers_is_opened() {
    let place = Place::new();
    let root = place.root("root");
    let options = ["dm.loopdatasize=300M"];
    exercise(&root, &options);
    let metadata = root.join("devicemapper/metadata");
    for (name, key) in [("top", r#","parent":"base""#), ("deviceset-metadata", r#","BaseDeviceRootfs":true"#)]
    {
        let text = fs::read_to_string(metadata.join(name)).unwrap();
        assert!(text.contains(key), "{text}");
        fs::write(metadata.join(name), text.replace(key, "")).unwrap();
    }
    fs::remove_dir_all(root.join("layerstack")).unwrap();
    // Docker calls the base device "base", so that no layer of its has the name: here it is one of ours.
    let layers = open(&root, &options).unwrap();
    assert_eq!(layers.list().unwrap(), [id("base"), id("top")]);
    assert_eq!(layers.layer(&id("top")).unwrap().parent, None);
    let mount = layers.mount(&id("top"), &MountRequest::new()).unwrap();
    assert_eq!(fs::read_to_string(mount.target().join("a/b/file")).unwrap(), "changed");
    mount.unmount().unwrap();
}

#[test]
#[ignore = "needs device-mapper"]
fn devices_are_removed_without_the_kernels_help_too() {
    let place = Place::new();
    let root = place.root("root");
    let options = ["dm.use_deferred_removal=false", "dm.loopdatasize=300M"];
    exercise(&root, &options);
    clear(&root, &options);
    let stat = root.join("devicemapper").metadata().unwrap();
    let listed = run(Command::new("dmsetup").arg("ls"));
    assert!(!listed.contains(&format!("-{}-", stat.ino())), "{listed}");
}

/// What a diff of ten changes in a large tree costs, against a walk of both trees. Prints the times.
#[test]
#[ignore = "needs device-mapper"]
fn ten_changes_in_many_files() {
    const FILES: usize = 100_000;
    let place = Place::new();
    let root = place.root("root");
    let layers = open(&root, &["dm.loopdatasize=1500M"]).unwrap();
    layers.create(&id("base"), None, &Options::new()).unwrap();
    edit(&layers, "base", |tree| {
        for number in 0..FILES {
            let directory = tree.join(format!("d{}/e{}", number / 5000, number / 100));
            if number % 100 == 0 {
                fs::create_dir_all(&directory).unwrap();
            }
            fs::write(directory.join(format!("f{number}")), number.to_string()).unwrap();
        }
    });
    layers.seal(&id("base")).unwrap();
    layers.create(&id("top"), Some(&id("base")), &Options::new()).unwrap();
    layers.create(&id("same"), Some(&id("base")), &Options::new()).unwrap();
    edit(&layers, "top", |tree| {
        for number in (0..FILES).step_by(FILES / 10) {
            fs::write(tree.join(format!("d{}/e{}/f{number}", number / 5000, number / 100)), "changed")
                .unwrap();
        }
    });
    let timed = |name: &str, work: &mut dyn FnMut() -> usize| {
        for state in ["cold", "warm"] {
            if state == "cold" {
                fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
            }
            let start = std::time::Instant::now();
            let found = work();
            println!("{name}, {state}: {found} lines, {:?}", start.elapsed());
        }
    };
    timed("unchanged, narrowed", &mut || layers.changes(&id("same"), Base::Parent).unwrap().len());
    timed("ten changes, narrowed", &mut || layers.changes(&id("top"), Base::Parent).unwrap().len());
    let walk = |untouched| {
        let (layer, base) = (layers.tree(&id("top")).unwrap(), layers.tree(&id("base")).unwrap());
        layerstack_core::diff::changes(&layer, Some(&base), Candidates::All { untouched }).unwrap().len()
    };
    timed("ten changes, both trees walked, metadata trusted", &mut || walk(None));
    timed("ten changes, both trees walked, contents compared", &mut || {
        walk(Some(layerstack_core::driver::CtimeWindow::NEVER))
    });
    assert_eq!(layers.changes(&id("top"), Base::Parent).unwrap().len(), walk(None));
    assert!(layers.changes(&id("same"), Base::Parent).unwrap().is_empty());
}
