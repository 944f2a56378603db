//! A btrfs in a file in memory, and layers on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use layerstack_btrfs::REGISTRATION;
use layerstack_core::driver::{Driver, NewLayer};
use layerstack_core::layers::{Config, Layers, MountRequest};
use layerstack_core::options::Options;
use layerstack_core::registry::{OpenRequest, Registry};
use layerstack_core::{LayerId, Result};

/// Held as long as there is a store, so that there is one at a time: a process that a test starts holds for a moment
/// what all others have open, locks and what keeps a mount in use among them.
static TURN: Mutex<()> = Mutex::new(());

/// A file system, mounted until dropped. Its file has no name any more, and goes with the mount.
pub(crate) struct Store {
    directory: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Store {
    /// A small one, where removing a layer waits for its room.
    pub(crate) fn new() -> Self {
        Self::of_size(1 << 30)
    }

    /// One with so much room that nobody waits for any.
    pub(crate) fn large() -> Self {
        Self::of_size(16 << 30)
    }

    fn of_size(size: u64) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::Builder::new().prefix("layerstack-btrfs-").tempdir_in("/dev/shm").unwrap();
        let image = directory.path().join("image");
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        run(Command::new("mkfs.btrfs").arg("-q").arg(&image));
        let store = Self { directory, _turn: turn };
        fs::create_dir(store.path()).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(store.path()));
        fs::remove_file(image).unwrap();
        store
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root().join("btrfs")
    }

    pub(crate) fn try_open(&self, options: &[&str]) -> Result<Box<dyn Driver>> {
        let options = Options::parse(options)?;
        let home = self.home();
        let request = OpenRequest::new(&home, &options);
        (REGISTRATION.probe)(&request)?;
        (REGISTRATION.open)(&request)
    }

    pub(crate) fn open(&self) -> Box<dyn Driver> {
        self.try_open(&[]).unwrap()
    }

    pub(crate) fn layers(&self) -> Layers {
        let registry = Registry::new(&[&REGISTRATION]).unwrap();
        Layers::open(&self.root(), &registry, &Config::new().with_driver("btrfs")).unwrap()
    }

    /// What `btrfs subvolume list` shows, by path.
    pub(crate) fn subvolumes(&self) -> Vec<String> {
        let list = output(Command::new("btrfs").args(["subvolume", "list"]).arg(self.path()));
        let mut paths: Vec<_> =
            list.lines().filter_map(|line| Some(line.split_once(" path ")?.1.to_owned())).collect();
        paths.sort();
        paths
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).status();
        assert!(
            std::thread::panicking() || unmounted.is_ok_and(|status| status.success()),
            "it stays mounted"
        );
    }
}

pub(crate) fn run(command: &mut Command) {
    output(command);
}

pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

pub(crate) fn create(driver: &dyn Driver, layer: &str, parent: Option<&str>) -> PathBuf {
    create_with(driver, layer, parent, &[]).unwrap();
    driver.home().join("subvolumes").join(layer)
}

pub(crate) fn create_with(
    driver: &dyn Driver,
    layer: &str,
    parent: Option<&str>,
    options: &[&str],
) -> Result<()> {
    let (layer, parent, options) = (id(layer), parent.map(id), Options::parse(options)?);
    driver.create(&NewLayer::new(&layer, parent.as_ref(), &options))
}

/// Makes a layer, changes it and seals it where asked.
pub(crate) fn grow(
    layers: &Layers,
    layer: &str,
    parent: Option<&str>,
    sealed: bool,
    change: impl FnOnce(&Path),
) {
    let (layer, parent) = (id(layer), parent.map(id));
    layers.create(&layer, parent.as_ref(), &Options::new()).unwrap();
    let mount = layers.mount(&layer, &MountRequest::new()).unwrap();
    change(mount.target());
    mount.unmount().unwrap();
    if sealed {
        layers.seal(&layer).unwrap();
    }
}

/// Everything that is in a home, by name.
pub(crate) fn names(home: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for directory in ["subvolumes", "quotas", "snapshots", "mnt"] {
        for entry in fs::read_dir(home.join(directory)).unwrap() {
            names.push(format!("{directory}/{}", entry.unwrap().file_name().display()));
        }
    }
    names.sort();
    names
}
