//! The front on the smallest driver that there can be: one directory a layer, nothing shared with the parent.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use layerstack_core::apply::ApplyRequest;
use layerstack_core::archive::{Entry, EntryKind, Writer};
use layerstack_core::capability::{Capabilities, Feature};
use layerstack_core::driver::{ApplyTarget, Candidates, FoundLayer, LayerForm, NewLayer, Usage};
use layerstack_core::layers::{Base, MountRequest, Recovered};
use layerstack_core::mount::{Access, MountPlan};
use layerstack_core::options::{OptionSpec, Options};
use layerstack_core::registry::{OpenRequest, Registration, Registry};
use layerstack_core::{Config, Driver, Error, ErrorKind, LayerId, LayerState, Layers, Result};

#[derive(Debug)]
struct Plain {
    home: PathBuf,
}

static CAPABILITIES: LazyLock<Capabilities> = LazyLock::new(|| {
    let mut capabilities = Capabilities::none("a test driver");
    capabilities.max_depth = Some(3);
    capabilities.independent_layers = Feature::Yes;
    capabilities
});

impl Driver for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn home(&self) -> &Path {
        &self.home
    }

    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        Ok(vec![("Key".into(), "value".into())])
    }

    fn why_full(&self) -> Option<String> {
        None
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        if layer.options.get("fail").is_some() {
            std::fs::create_dir(self.home.join(layer.id.as_str())).unwrap();
            return Err(Error::new(ErrorKind::NoSpace, "as asked for"));
        }
        std::fs::create_dir(self.home.join(layer.id.as_str()))
            .map_err(|error| Error::from_io(error, "make the layer"))
    }

    fn seal(&self, _id: &LayerId, _durable: bool) -> Result<()> {
        Ok(())
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        let home = std::fs::File::open(&self.home).unwrap();
        layerstack_core::fs::remove_tree(home, id.as_str().as_ref(), &self.home)
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        let entries = std::fs::read_dir(&self.home).unwrap();
        Ok(entries
            .filter_map(|entry| LayerId::new(entry.unwrap().file_name().to_str().unwrap()).ok())
            .collect())
    }

    fn find(&self, id: &LayerId) -> Result<Option<FoundLayer>> {
        match id.as_str() {
            "debris" => Ok(None),
            "strange" => Err(Error::new(ErrorKind::Corrupt, "it contradicts itself")),
            "orphan" => Ok(Some(FoundLayer { parent: Some(LayerId::new("gone")?), sealed: None })),
            _ => Ok(Some(FoundLayer { parent: None, sealed: None })),
        }
    }

    fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan> {
        let directory = self.home.join(id.as_str());
        Ok(MountPlan::bind(directory, access, self.home.join(format!(".mnt.{id}"))))
    }

    fn unmounted(&self, _id: &LayerId) -> Result<()> {
        Ok(())
    }

    fn apply_target(&self, id: &LayerId) -> Result<ApplyTarget> {
        Ok(ApplyTarget { plan: self.mount_plan(id, Access::ReadWrite)?, form: LayerForm::Whole })
    }

    fn candidates(&self, _id: &LayerId) -> Result<Candidates> {
        Ok(Candidates::All { untouched: None })
    }

    fn usage(&self, _id: &LayerId) -> Result<Usage> {
        Ok(Usage::new(1, 1))
    }

    fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        Ok([("Dir".to_owned(), self.home.join(id.as_str()).display().to_string())].into())
    }
}

fn open_plain(request: &OpenRequest<'_>) -> Result<Box<dyn Driver>> {
    std::fs::create_dir_all(request.home).map_err(|error| Error::from_io(error, "make the home"))?;
    Ok(Box::new(Plain { home: request.home.to_owned() }))
}

fn probe_other(_request: &OpenRequest<'_>) -> Result<()> {
    Err(Error::new(ErrorKind::Unavailable, "the kernel lacks it"))
}

static LAYER_OPTIONS: [OptionSpec; 1] = [OptionSpec { name: "fail", help: "" }];

layerstack_core::register_driver! {
    name: "plain",
    summary: "one directory a layer",
    rank: 20,
    options: &[],
    layer_options: &LAYER_OPTIONS,
    probe: |_| Ok(()),
    open: open_plain,
}

static OTHER: Registration = Registration {
    name: "other",
    summary: "never available",
    rank: 10,
    options: &[],
    layer_options: &[],
    probe: probe_other,
    open: open_plain,
};

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Layers {
        self.open_with(&Config::new()).unwrap()
    }

    fn open_with(&self, config: &Config) -> Result<Layers> {
        Layers::open(self.0.path(), &Registry::new(&[&REGISTRATION, &OTHER]).unwrap(), config)
    }
}

fn id(name: &str) -> LayerId {
    LayerId::new(name).unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn none() -> Options {
    Options::new()
}

#[test]
fn a_chain_is_made_sealed_and_removed_from_the_top() {
    let root = Root::new();
    let layers = root.open();
    layers.create(&id("a"), None, &none()).unwrap();
    assert_eq!(kind(layers.create(&id("b"), Some(&id("a")), &none())), ErrorKind::NotSealed);
    layers.seal(&id("a")).unwrap();
    layers.seal(&id("a")).unwrap();
    layers.create(&id("b"), Some(&id("a")), &none()).unwrap();
    layers.seal(&id("b")).unwrap();
    layers.create(&id("c"), Some(&id("b")), &none()).unwrap();
    layers.seal(&id("c")).unwrap();
    assert_eq!(kind(layers.create(&id("d"), Some(&id("c")), &none())), ErrorKind::Unsupported);
    assert_eq!(layers.chain(&id("c")).unwrap(), [id("c"), id("b"), id("a")]);
    assert_eq!(layers.children(&id("a")).unwrap(), [id("b")]);
    assert_eq!(layers.layer(&id("c")).unwrap().depth, 3);
    assert_eq!(layers.layer(&id("c")).unwrap().state, LayerState::Sealed);
    assert_eq!(kind(layers.remove(&id("a"))), ErrorKind::HasChildren);
    for name in ["c", "b", "a"] {
        layers.remove(&id(name)).unwrap();
        assert_eq!(kind(layers.remove(&id(name))), ErrorKind::NotFound);
    }
    assert_eq!(layers.list().unwrap(), []);
    assert_eq!(layers.check().unwrap(), []);
}

#[test]
fn the_existing_layer_counts_before_anything_else_that_is_wrong() {
    let root = Root::new();
    let layers = root.open();
    layers.create(&id("a"), None, &none()).unwrap();
    let bad = Options::parse(["nonsense=1"]).unwrap();
    assert_eq!(kind(layers.create(&id("a"), Some(&id("missing")), &bad)), ErrorKind::AlreadyExists);
    assert_eq!(kind(layers.create(&id("b"), Some(&id("missing")), &bad)), ErrorKind::NotFound);
    assert_eq!(kind(layers.create(&id("b"), None, &bad)), ErrorKind::InvalidInput);
    let fail = Options::parse(["fail=1"]).unwrap();
    let error = layers.create(&id("b"), None, &fail).unwrap_err();
    assert_eq!(error.to_string(), "plain: create layer b: as asked for");
    assert_eq!(layers.list().unwrap(), [id("a")]);
    assert!(!layers.home().join("b").exists());
}

#[test]
fn open_mends_what_a_dead_process_left() {
    let root = Root::new();
    let layers = root.open();
    layers.create(&id("kept"), None, &none()).unwrap();
    layers.seal(&id("kept")).unwrap();
    layers.create(&id("lost"), Some(&id("kept")), &none()).unwrap();
    let records = root.0.path().join("layerstack/plain");
    // Being made when its process died: pending, not locked by anybody.
    std::fs::write(records.join("pending/half"), "{").unwrap();
    std::fs::create_dir(layers.home().join("half")).unwrap();
    std::fs::create_dir(layers.home().join("debris")).unwrap();
    std::fs::create_dir(layers.home().join("docker")).unwrap();
    std::fs::remove_dir(layers.home().join("lost")).unwrap();
    drop(layers);
    let layers = root.open();
    assert_eq!(
        layers.recovered(),
        [
            Recovered::Removed { layer: id("half") },
            Recovered::Debris { layer: id("debris") },
            Recovered::Adopted { layer: id("docker"), state: LayerState::Unknown },
            Recovered::Lost { layer: id("lost") },
        ]
    );
    assert_eq!(layers.list().unwrap(), [id("docker"), id("kept")]);
    assert_eq!(layers.check().unwrap(), []);
    layers.remove(&id("kept")).unwrap();
    assert_eq!(
        kind(layers.mount(&id("docker"), &MountRequest::new().with_access(Access::ReadWrite))),
        ErrorKind::InvalidInput
    );
    layers.declare_writable(&id("docker")).unwrap();
    assert_eq!(layers.layer(&id("docker")).unwrap().state, LayerState::Writable);
    assert_eq!(root.open().recovered(), []);
}

#[test]
fn opening_again_reads_no_record() {
    let root = Root::new();
    root.open().create(&id("garbled"), None, &none()).unwrap();
    let records = root.0.path().join("layerstack/plain");
    std::fs::write(records.join("layers/garbled"), "not a record").unwrap();
    let layers = root.open();
    assert_eq!(layers.recovered(), []);
    assert_eq!(layers.list().unwrap(), [id("garbled")]);
    drop(layers);
    // After a boot every record is looked at, for a power loss leaves such ones.
    std::fs::write(records.join("boot"), "another boot").unwrap();
    assert_eq!(root.open().recovered(), [Recovered::Lost { layer: id("garbled") }]);
}

#[test]
fn what_cannot_be_adopted_is_named_and_left_alone() {
    let root = Root::new();
    let home = root.open().home().to_owned();
    for name in ["strange", "orphan"] {
        std::fs::create_dir(home.join(name)).unwrap();
        std::fs::write(home.join(name).join("data"), "x").unwrap();
    }
    let layers = root.open();
    let found: Vec<_> = layers.recovered().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "layer strange: it contradicts itself; left alone",
            "layer orphan: its parent gone is missing; left alone"
        ]
    );
    for name in ["strange", "orphan"] {
        assert_eq!(kind(layers.create(&id(name), None, &none())), ErrorKind::AlreadyExists);
        assert!(home.join(name).join("data").exists());
    }
    assert_eq!(layers.check().unwrap().len(), 2);
}

#[test]
fn a_pending_layer_of_a_living_process_is_left_alone() {
    let root = Root::new();
    let layers = root.open();
    let records = root.0.path().join("layerstack/plain");
    let record = std::fs::File::create(records.join("pending/busy")).unwrap();
    record.lock().unwrap();
    std::fs::create_dir(layers.home().join("busy")).unwrap();
    assert_eq!(root.open().recovered(), []);
    assert_eq!(kind(layers.create(&id("busy"), None, &none())), ErrorKind::InUse);
    assert_eq!(kind(layers.remove(&id("busy"))), ErrorKind::InUse);
    assert!(layers.home().join("busy").exists());
    drop(record);
    layers.create(&id("busy"), None, &none()).unwrap();
}

#[test]
fn mounts_are_exclusive_where_written_to_and_found_by_others() {
    let root = Root::new();
    let layers = root.open();
    layers.create(&id("a"), None, &none()).unwrap();
    let mount = layers.mount(&id("a"), &MountRequest::new()).unwrap();
    std::fs::write(mount.target().join("file"), "x").unwrap();
    let other = root.open();
    assert_eq!(other.recovered(), []);
    assert_eq!(other.mounts(None).unwrap().len(), 1);
    for result in [
        layers.mount(&id("a"), &MountRequest::new()).map(drop),
        other.mount(&id("a"), &MountRequest::new().with_access(Access::ReadOnly)).map(drop),
        other.remove(&id("a")),
        other.seal(&id("a")),
    ] {
        assert_eq!(kind(result), ErrorKind::InUse);
    }
    let target = mount.target().to_owned();
    mount.unmount().unwrap();
    assert!(!target.exists());
    layers.seal(&id("a")).unwrap();
    let mounts: Vec<_> = (0..3).map(|_| layers.mount(&id("a"), &MountRequest::new()).unwrap()).collect();
    for mount in &mounts {
        assert_eq!(std::fs::read(mount.target().join("file")).unwrap(), b"x");
        let error = std::fs::write(mount.target().join("file"), "y").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(kind(layers.unmount(&id("a"), None)), ErrorKind::InvalidInput);
    layers.unmount(&id("a"), Some(mounts[0].target())).unwrap();
    drop(mounts);
    assert_eq!(layers.mounts(None).unwrap(), []);
    layers.remove(&id("a")).unwrap();
}

#[test]
fn a_persistent_mount_stays_and_one_taken_away_is_noticed() {
    let root = Root::new();
    let layers = root.open();
    layers.create(&id("a"), None, &none()).unwrap();
    let target = layers.mount(&id("a"), &MountRequest::new().persistent()).unwrap().target().to_owned();
    let other = root.open();
    assert_eq!(other.mounts(Some(&id("a"))).unwrap()[0].target, target);
    other.unmount(&id("a"), None).unwrap();
    assert_eq!(kind(other.unmount(&id("a"), None)), ErrorKind::NotFound);

    let mount = layers.mount(&id("a"), &MountRequest::new()).unwrap();
    rustix::mount::unmount(mount.target(), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(other.mounts(None).unwrap(), []);
    mount.unmount().unwrap();
    layers.mount(&id("a"), &MountRequest::new()).unwrap().unmount().unwrap();
}

#[test]
fn what_is_mounted_inside_a_live_mount_is_no_part_of_the_layer() {
    let root = Root::new();
    let layers = root.open();
    layers.create(&id("a"), None, &none()).unwrap();
    let mount = layers.mount(&id("a"), &MountRequest::new()).unwrap();
    let inner = mount.target().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let plan = MountPlan::bind(root.0.path(), Access::ReadOnly, "");
    layerstack_core::mount::attach(&plan, &inner).unwrap();
    let changes = layers.changes(&id("a"), Base::Parent);
    layerstack_core::mount::detach(&inner).unwrap();
    mount.unmount().unwrap();
    let changes: Vec<_> = changes.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["A /inner"]);
}

#[test]
fn a_place_of_the_callers_own_must_exist_and_stays() {
    let root = Root::new();
    let layers = root.open();
    layers.create(&id("a"), None, &none()).unwrap();
    let place = root.0.path().join("place");
    let request = MountRequest::new().with_target(&place);
    assert_eq!(kind(layers.mount(&id("a"), &request)), ErrorKind::NotFound);
    std::fs::create_dir(&place).unwrap();
    let mount = layers.mount(&id("a"), &request).unwrap();
    layers.create(&id("b"), None, &none()).unwrap();
    assert_eq!(kind(layers.mount(&id("b"), &request)), ErrorKind::InUse);
    mount.unmount().unwrap();
    assert!(place.is_dir());
}

#[test]
fn the_driver_is_chosen_by_name_by_use_and_by_rank() {
    let root = Root::new();
    assert_eq!(kind(root.open_with(&Config::new().with_driver("nonesuch"))), ErrorKind::NotFound);
    assert_eq!(kind(root.open_with(&Config::new().with_driver("other"))), ErrorKind::Unavailable);
    assert_eq!(kind(root.open_with(&Config::new().with_option("plain.x", "1"))), ErrorKind::Unavailable);
    let layers = root.open();
    assert_eq!(layers.driver_name(), "plain");
    layers.create(&id("a"), None, &none()).unwrap();
    std::fs::create_dir_all(root.0.path().join("other/something")).unwrap();
    let error = root.open_with(&Config::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("other, plain"), "{error}");
    assert_eq!(root.open_with(&Config::new().with_driver("plain")).unwrap().list().unwrap(), [id("a")]);
}

#[test]
fn two_roots_at_once_in_threads_keep_count() {
    let root = Root::new();
    let (one, two) = (root.open(), root.open());
    let made = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for layers in [&one, &two, &one, &two] {
            scope.spawn(|| {
                for number in 0..50 {
                    match layers.create(&id(&format!("n{number}")), None, &none()) {
                        Ok(()) => made.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
                        Err(error) => {
                            assert!(
                                matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::InUse),
                                "{error:?}"
                            );
                            0
                        }
                    };
                }
            });
        }
    });
    assert_eq!(made.into_inner(), 50);
    assert_eq!(one.list().unwrap().len(), 50);
    assert_eq!(one.check().unwrap(), []);
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, content) in files {
        let entry = Entry::new(*path, EntryKind::File { size: content.len() as u64 }, 0o644);
        writer.append(&entry, Some(&mut content.as_bytes())).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_layer_is_imported_whole_or_not_at_all() {
    let root = Root::new();
    let layers = root.open();
    let import =
        |name: &str, mut tar: &[u8]| layers.import(&id(name), None, &none(), &mut tar, ApplyRequest::new());
    let good = tar(&[("a", "1"), ("b", "22")]);
    assert_eq!(import("good", &good).unwrap().entries, 2);
    assert_eq!(layers.layer(&id("good")).unwrap().state, LayerState::Sealed);
    assert_eq!(kind(import("good", &good)), ErrorKind::AlreadyExists);
    let error = import("bad", &tar(&[("a", "1"), ("../b", "2")])).unwrap_err();
    assert_eq!(error.to_string(), "plain: import layer bad: ../b: the name has the component \"..\"");
    assert!(!layers.contains(&id("bad")).unwrap() && !layers.home().join("bad").exists());

    let refused = layers.import_verified(
        &id("refused"),
        None,
        &none(),
        &mut good.as_slice(),
        ApplyRequest::new(),
        &mut |applied| {
            assert_eq!(applied.bytes, 3);
            assert!(!layers.contains(&id("refused"))?);
            Err(Error::new(ErrorKind::Corrupt, "the digest differs"))
        },
    );
    assert_eq!(kind(refused), ErrorKind::Corrupt);
    assert_eq!(layers.list().unwrap(), [id("good")]);

    let mut out = Vec::new();
    let summary = layers.diff(&id("good"), Base::Parent, &mut out).unwrap();
    assert_eq!((summary.entries, summary.bytes), (3, 3), "with the root itself");
    assert_eq!(
        kind(layers.apply(&id("good"), &mut out.as_slice(), ApplyRequest::new())),
        ErrorKind::InvalidInput
    );
    layers.create(&id("again"), None, &none()).unwrap();
    layers.apply(&id("again"), &mut out.as_slice(), ApplyRequest::new()).unwrap();
    let mut again = Vec::new();
    layers.diff(&id("again"), Base::Nothing, &mut again).unwrap();
    assert_eq!(out, again);
    assert_eq!(layers.changes(&id("again"), Base::Layer(&id("good"))).unwrap(), []);
    assert_eq!(layers.check().unwrap(), []);
}
