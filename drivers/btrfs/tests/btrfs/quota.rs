//! Limits and counts, with both kinds of quota.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use layerstack_core::ErrorKind;
use layerstack_core::capability::QuotaKind;
use layerstack_core::driver::Driver;

use crate::store::{Store, create, create_with, id, names, output, run};

/// Turns quota on: `BTRFS_QUOTA_CTL_ENABLE` by btrfs-progs, and `BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA`, which those of
/// Debian 12 do not know, by the ioctl. False where the kernel does not know it either.
fn enable(store: &Store, simple: bool) -> bool {
    if !simple {
        run(Command::new("btrfs").args(["quota", "enable"]).arg(store.path()));
        return true;
    }
    let script =
        r#"open(my $f, "<", $ARGV[0]) or die; ioctl($f, 0xc0109428, my $a = pack("QQ", 4, 0)) or die "$!""#;
    let enabled = Command::new("perl").args(["-e", script]).arg(store.path()).output().unwrap();
    let text = String::from_utf8_lossy(&enabled.stderr).into_owned();
    assert!(enabled.status.success() || text.contains("Inappropriate") || text.contains("Invalid"), "{text}");
    enabled.status.success()
}

/// Both kinds, as far as the kernel has them.
fn with_each_kind(work: impl Fn(&Store)) {
    for simple in [false, true] {
        let store = Store::large();
        if enable(&store, simple) {
            work(&store);
        }
    }
}

/// How many bytes can be written to a file, in pieces of a megabyte that no file system can make smaller.
fn fits(path: &Path, megabytes: u32) -> u32 {
    let mut file = fs::File::create(path).unwrap();
    for count in 0..megabytes {
        let chunk: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
        if file.write_all(&chunk).and_then(|()| file.sync_data()).is_err() {
            return count;
        }
    }
    megabytes
}

/// Waits until deleted subvolumes are gone.
pub(crate) fn settle(store: &Store) {
    for words in [["filesystem", "sync"], ["subvolume", "sync"], ["filesystem", "sync"]] {
        run(Command::new("btrfs").args(words).arg(store.path()));
    }
}

pub(crate) fn groups(store: &Store) -> Vec<String> {
    settle(store);
    let shown = output(Command::new("btrfs").args(["qgroup", "show"]).arg(store.path()));
    let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    shown.lines().map(first).filter(|name| name.starts_with("0/") && name != "0/5").collect()
}

#[test]
fn a_limit_counts_what_the_layer_adds() {
    with_each_kind(|store| {
        let driver = store.open();
        assert_eq!(driver.capabilities().quota_kind, Some(QuotaKind::Added));
        let base = create(&*driver, "base", None);
        assert_eq!(fits(&base.join("data"), 60), 60);
        driver.seal(&id("base"), true).unwrap();
        create_with(&*driver, "top", Some("base"), &["size=32M"]).unwrap();
        assert_eq!(fs::read_to_string(store.home().join("quotas/top")).unwrap(), (32 << 20).to_string());
        let top = store.home().join("subvolumes/top");
        let most = fits(&top.join("more"), 64);
        assert!((24..=32).contains(&most), "{most} MiB fit into 32");
        // Reading, and changing metadata of what is the parent's, is not writing.
        fs::remove_file(top.join("more")).unwrap();
        assert_eq!(fits(&top.join("again"), 16), 16);
        let free = create(&*driver, "free", Some("base"));
        assert_eq!(fits(&free.join("more"), 64), 64);

        driver.remove(&id("top")).unwrap();
        assert!(!store.home().join("quotas/top").exists());
        driver.remove(&id("free")).unwrap();
        driver.remove(&id("base")).unwrap();
        assert_eq!(names(&store.home()), [""; 0]);
        settle(store);
        // Where the kernel does not remove a group itself, it goes when the home is left.
        drop(driver);
        assert_eq!(groups(store), [""; 0]);
    });
}

/// A command that removes a layer ends long before the kernel has taken it away.
#[test]
fn a_group_goes_though_nobody_waits_for_the_kernel() {
    with_each_kind(|store| {
        let driver = store.open();
        for layer in ["one", "two", "three"] {
            let tree = create(&*driver, layer, None);
            fs::write(tree.join("file"), vec![1; 1 << 20]).unwrap();
        }
        settle(store);
        assert_eq!(groups(store).len(), 3);
        driver.remove(&id("one")).unwrap();
        drop(driver);
        settle(store);
        // Opening does for those that others have left, and removing for those before.
        let driver = store.open();
        assert_eq!((groups(store).len(), notes(store)), (2, vec![]));
        driver.remove(&id("two")).unwrap();
        settle(store);
        driver.remove(&id("three")).unwrap();
        assert!(groups(store).len() <= 1);
        drop(driver);
        assert_eq!((groups(store), notes(store)), (vec![], vec![]));
    });
}

#[test]
fn only_what_the_kernel_does_itself_is_not_noted() {
    with_each_kind(|store| {
        let driver = store.open();
        for layer in ["one", "two", "three"] {
            create(&*driver, layer, None);
        }
        for layer in ["one", "two"] {
            settle(store);
            driver.remove(&id(layer)).unwrap();
        }
        settle(store);
        let before = (notes(store), groups(store));
        driver.remove(&id("three")).unwrap();
        if notes(store) == before.0 {
            // Nobody asks for this one.
            assert!(groups(store).len() < before.1.len());
        }
        settle(store);
        drop(driver);
        assert_eq!((groups(store), notes(store)), (vec![], vec![]));
    });
}

#[test]
fn where_nothing_is_counted_nothing_is_noted() {
    let store = Store::new();
    let driver = store.open();
    create(&*driver, "layer", None);
    driver.remove(&id("layer")).unwrap();
    assert_eq!(notes(&store), Vec::<String>::new());
}

/// The groups of which the driver keeps in mind that they are to go.
pub(crate) fn notes(store: &Store) -> Vec<String> {
    let quotas = fs::File::open(store.home().join("quotas")).unwrap();
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::flistxattr(quotas, &mut names[..]).unwrap();
    names[..length]
        .split(|&byte| byte == 0)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| name.contains("layerstack"))
        .collect()
}

#[test]
fn sizes_of_the_driver_and_their_minimum_hold() {
    let store = Store::new();
    assert!(enable(&store, false));
    let driver = store.try_open(&["btrfs.size=16M", "btrfs.min_space=8M"]).unwrap();
    let layer = create(&*driver, "layer", None);
    assert!(fits(&layer.join("data"), 32) <= 16);
    let error = create_with(&*driver, "small", None, &["size=4M"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("btrfs.min_space"), "{error}");
    create_with(&*driver, "unlimited", None, &["size=0"]).unwrap();
    assert!(!store.home().join("quotas/unlimited").exists());
}

#[test]
fn without_quota_a_size_is_unsupported_and_nothing_is_turned_on() {
    let store = Store::new();
    let driver = store.open();
    let error = create_with(&*driver, "layer", None, &["size=1G"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("btrfs quota enable --simple"), "{error}");
    assert_eq!(store.try_open(&["btrfs.size=1G"]).unwrap_err().kind(), ErrorKind::Unsupported);
    store.try_open(&["btrfs.min_space=1G"]).unwrap();
    create(&*driver, "layer", None);
    driver.remove(&id("layer")).unwrap();
    let shown = Command::new("btrfs").args(["qgroup", "show"]).arg(store.path()).output().unwrap();
    assert!(!shown.status.success(), "quota is on");
}

/// What each of base, middle and top says of itself, in megabytes: bytes, exclusive, shared.
fn usage(driver: &dyn Driver, layer: &str) -> (u64, Option<u64>, Option<u64>) {
    let usage = driver.usage(&id(layer)).unwrap();
    let round = |bytes: u64| (bytes + (1 << 19)) >> 20;
    (round(usage.bytes), usage.exclusive.map(round), usage.shared.map(round))
}

fn three_layers(driver: &dyn Driver) {
    let base = create(driver, "base", None);
    assert_eq!(fits(&base.join("data"), 20), 20);
    driver.seal(&id("base"), true).unwrap();
    let middle = create(driver, "middle", Some("base"));
    assert_eq!(fits(&middle.join("more"), 8), 8);
    driver.seal(&id("middle"), true).unwrap();
    let top = create(driver, "top", Some("middle"));
    assert_eq!(fits(&top.join("own"), 4), 4);
}

#[test]
fn usage_is_what_the_file_system_counts() {
    with_each_kind(|store| {
        let driver = store.open();
        assert!(driver.capabilities().usage_without_walk.offered());
        three_layers(&*driver);
        assert_eq!(usage(&*driver, "base").0, 20);
        assert_eq!(usage(&*driver, "middle").0, 8);
        assert_eq!((usage(&*driver, "top").0, usage(&*driver, "top").1), (4, Some(4)));
        assert_eq!(driver.usage(&id("top")).unwrap().inodes, None);
    });
}

#[test]
fn without_quota_usage_is_that_of_the_changes() {
    let store = Store::new();
    let driver = store.open();
    assert!(driver.capabilities().usage_without_walk.reason().unwrap().contains("btrfs quota enable"));
    three_layers(&*driver);
    fs::create_dir(store.home().join("subvolumes/top/d")).unwrap();
    fs::write(store.home().join("subvolumes/top/d/f"), vec![1; 1 << 20]).unwrap();
    rustix::fs::syncfs(fs::File::open(store.path()).unwrap()).unwrap();
    assert_eq!(usage(&*driver, "base"), (20, None, None));
    assert_eq!(usage(&*driver, "middle"), (8, None, None));
    assert_eq!(usage(&*driver, "top"), (5, None, None));
}

/// Linux 6.11 and later: a group that is removed at the wrong moment, and no limit on the file system holds any more.
#[test]
fn removing_layers_does_not_make_the_counts_wrong() {
    let store = Store::new();
    enable(&store, false);
    let driver = store.open();
    let deadline = Instant::now() + Duration::from_secs(4);
    std::thread::scope(|scope| {
        // The kernel takes deleted subvolumes away after each commit.
        scope.spawn(|| {
            while Instant::now() < deadline {
                rustix::fs::syncfs(fs::File::open(store.path()).unwrap()).unwrap();
            }
        });
        for count in 0.. {
            let name = format!("layer-{count}");
            create(&*driver, &name, None);
            fs::write(store.home().join("subvolumes").join(&name).join("file"), [1; 100_000]).unwrap();
            driver.remove(&id(&name)).unwrap();
            if Instant::now() > deadline {
                break;
            }
        }
    });
    create(&*driver, "layer", None);
    assert!(driver.usage(&id("layer")).unwrap().exclusive.is_some(), "what is counted is marked as wrong");
}
