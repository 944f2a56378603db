//! The driver on real file systems: with and without reflinks, with and without room.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstack_core::capability::Feature;
use layerstack_core::driver::{Candidates, Driver, FoundLayer, NewLayer};
use layerstack_core::mount::Access;
use layerstack_core::options::Options;
use layerstack_core::registry::OpenRequest;
use layerstack_core::{ErrorKind, LayerId};
use layerstack_vfs::REGISTRATION;

/// A file system in a file, mounted until dropped.
struct Store {
    directory: tempfile::TempDir,
}

impl Store {
    fn new(make: &[&str], size: u64) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let image = directory.path().join("image");
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        run(Command::new(make[0]).args(&make[1..]).arg(&image));
        let store = Self { directory };
        fs::create_dir(store.path()).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(store.path()));
        store
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        run(Command::new("umount").arg(self.path()));
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn open(home: &Path, options: &[&str]) -> layerstack_core::Result<Box<dyn Driver>> {
    let options = Options::parse(options).unwrap();
    let request = OpenRequest::new(home, &options);
    (REGISTRATION.probe)(&request)?;
    (REGISTRATION.open)(&request)
}

fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

fn create(driver: &dyn Driver, layer: &str, parent: Option<&str>) -> layerstack_core::Result<()> {
    let (layer, parent) = (id(layer), parent.map(id));
    driver.create(&NewLayer::new(&layer, parent.as_ref(), &Options::new()))
}

/// Everything that a driver promises, in a home in `place`.
fn exercise(place: &Path) -> Box<dyn Driver> {
    let home = place.join("root/vfs");
    let driver = open(&home, &[]).unwrap();
    assert_eq!(home.metadata().unwrap().mode() & 0o7777, 0o710);
    create(&*driver, "base", None).unwrap();
    let base = home.join("dir/base");
    assert_eq!(base.metadata().unwrap().mode() & 0o7777, 0o755);
    fs::write(base.join("small"), "content").unwrap();
    fs::write(base.join("large"), vec![b'x'; 1 << 20]).unwrap();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o1770)).unwrap();
    driver.seal(&id("base"), true).unwrap();

    create(&*driver, "top", Some("base")).unwrap();
    let top = home.join("dir/top");
    assert_eq!(top.metadata().unwrap().mode() & 0o7777, 0o1770);
    assert_eq!(fs::read(top.join("large")).unwrap(), vec![b'x'; 1 << 20]);
    let Candidates::All { untouched: Some(window) } = driver.candidates(&id("top")).unwrap() else {
        panic!("a window is expected")
    };
    let ctime = |name: &str| {
        let meta = top.join(name).metadata().unwrap();
        i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec())
    };
    assert!(window.from_ns <= ctime("small"));
    let edited = fs::OpenOptions::new().write(true).open(top.join("large")).unwrap();
    let mtime = edited.metadata().unwrap().modified().unwrap();
    edited.write_all_at(b"y", 500_000).unwrap();
    edited.set_modified(mtime).unwrap();
    assert!(!window.contains(ctime("large")));
    assert_eq!(fs::read(base.join("large")).unwrap(), vec![b'x'; 1 << 20]);

    let plan = driver.mount_plan(&id("top"), Access::ReadOnly).unwrap();
    assert!(plan.is_bind() && plan.source == top && plan.target == home.join("mnt/top"));
    assert!(home.join("mnt").is_dir() && !plan.target.exists(), "core makes the directory itself");
    assert_eq!(driver.usage(&id("top")).unwrap().inodes, Some(3));
    assert_eq!(driver.inspect(&id("top")).unwrap()["Dir"], top.display().to_string());
    assert_eq!(driver.list().unwrap(), [id("base"), id("top")]);
    for layer in ["top", "base", "base"] {
        driver.remove(&id(layer)).unwrap();
    }
    assert_eq!(driver.list().unwrap(), []);
    for directory in ["dir", "windows", "mnt"] {
        assert_eq!(fs::read_dir(home.join(directory)).unwrap().count(), 0, "{directory}");
    }
    driver
}

#[test]
fn ext4_and_tmpfs_have_no_reflinks() {
    let store = Store::new(&["mkfs.ext4", "-q"], 64 << 20);
    let tmpfs = tempfile::tempdir_in("/dev/shm").unwrap();
    for place in [store.path(), tmpfs.path().to_owned()] {
        let driver = exercise(&place);
        assert!(matches!(driver.capabilities().shares_blocks, Feature::No { .. }));
        assert_eq!(driver.capabilities().xattrs.len(), 4, "{:?}", driver.capabilities().xattrs);
        let error = open(&place.join("root/vfs"), &["vfs.reflink=always"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        // Neither has project quota: mkfs.ext4 turns it on only when asked to.
        let error = open(&place.join("root/vfs"), &["vfs.size=1G"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let options = Options::parse(["size=1G"]).unwrap();
        let error = driver.create(&NewLayer::new(&id("sized"), None, &options)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(driver.list().unwrap(), []);
    }
}

#[test]
fn xfs_and_btrfs_share_blocks() {
    for make in [&["mkfs.xfs", "-q"][..], &["mkfs.btrfs", "-q"]] {
        let store = Store::new(make, 400 << 20);
        let driver = exercise(&store.path());
        assert_eq!(driver.capabilities().shares_blocks, Feature::Yes);
        create(&*driver, "base", None).unwrap();
        fs::write(driver.home().join("dir/base/large"), vec![b'x'; 64 << 20]).unwrap();
        driver.seal(&id("base"), true).unwrap();
        // Ten copies would need 640 MiB.
        for number in 0..10 {
            create(&*driver, &format!("copy{number}"), Some("base")).unwrap();
        }
    }
}

#[test]
fn a_full_file_system_is_no_space_and_what_is_left_can_be_removed() {
    let store = Store::new(&["mkfs.ext4", "-q"], 16 << 20);
    let driver = open(&store.path().join("vfs"), &[]).unwrap();
    create(&*driver, "base", None).unwrap();
    for number in 0..9 {
        fs::write(driver.home().join(format!("dir/base/{number}")), vec![b'x'; 1 << 20]).unwrap();
    }
    let error = create(&*driver, "top", Some("base")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    assert!(!driver.home().join("dir/top").exists());
    driver.remove(&id("top")).unwrap();
    assert_eq!(driver.list().unwrap(), [id("base")]);
    driver.remove(&id("base")).unwrap();
}

#[test]
fn a_home_that_docker_made_has_layers_without_parents() {
    let scratch = tempfile::tempdir().unwrap();
    let home = scratch.path().join("vfs");
    let docker = "f".repeat(64);
    fs::create_dir_all(home.join("dir").join(&docker)).unwrap();
    fs::write(home.join("dir").join(&docker).join("file"), "x").unwrap();
    fs::create_dir(home.join("dir/.half")).unwrap();
    fs::create_dir(home.join("dir/not a layer")).unwrap();
    let driver = open(&home, &[]).unwrap();
    assert_eq!(driver.list().unwrap(), [id(&docker), id("half")]);
    let whole = FoundLayer { parent: None, sealed: None };
    assert_eq!(driver.find(&id(&docker)).unwrap(), Some(whole));
    assert_eq!(driver.find(&id("half")).unwrap(), None);
    // Without a window nothing is taken for untouched.
    let Candidates::All { untouched: Some(window) } = driver.candidates(&id(&docker)).unwrap() else {
        panic!("a window is expected")
    };
    assert!(!window.contains(0));
}

#[test]
fn a_place_that_cannot_be_written_to_is_unavailable() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(open(&file.join("vfs"), &[]).unwrap_err().kind(), ErrorKind::Unavailable);
    let store = Store::new(&["mkfs.ext4", "-q"], 16 << 20);
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(store.path()));
    let error = open(&store.path().join("vfs"), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("read-only"), "{error}");
}
