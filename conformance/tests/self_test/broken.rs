//! The front on vfs with one thing wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use layerstack_conformance::files;
use layerstack_conformance::kernel;
use layerstack_conformance::subject::{Mounted, Subject, Verify};
use layerstack_core::apply::{Applied, ApplyRequest, apply};
use layerstack_core::capability::{Capabilities, Feature, QuotaKind};
use layerstack_core::diff::{Change, ChangeKind, DiffSummary};
use layerstack_core::driver::{LayerForm, Usage};
use layerstack_core::layers::{
    Base, Config, Finding, LayerState, Layers, MountInfo, MountRequest, Recovered, Status, View,
};
use layerstack_core::mount::{Access, MountPlan};
use layerstack_core::options::Options;
use layerstack_core::registry::{Registration, Registry};
use layerstack_core::{Error, ErrorKind, Layer, LayerId, Result};

use crate::tar::{self, Entry};

/// The environment variable that names what is wrong. Processes that a case starts have it too.
pub(crate) const VARIABLE: &str = "LAYERSTACK_SELF_TEST_BREAKAGE";

/// Opens a root with what the environment says wrong.
pub(crate) fn open(
    registration: &'static Registration,
    root: &Path,
    config: &Config,
) -> Result<Box<dyn Subject>> {
    let breakage = std::env::var(VARIABLE).unwrap_or_default();
    let is = |name: &str| breakage == name;
    let other = || Error::new(ErrorKind::Other, "it did not work");
    if is("a root's path may have no colon") && root.display().to_string().contains(':') {
        return Err(other());
    }
    if is("opening needs room") {
        let _ = fs::create_dir_all(root);
        let path = root.join("room");
        let written = fs::write(&path, vec![7; 1 << 20]);
        let _ = fs::remove_file(path);
        written.map_err(|_| other())?;
    }
    if is("opening leaves something behind") {
        let _ = fs::create_dir_all(root);
        let count = fs::read_dir(root).map_or(0, Iterator::count);
        let _ = fs::write(root.join(format!("debris-{count}")), "");
    }
    if is("opening removes what is no layer") {
        let _ = fs::remove_file(root.join("README"));
    }
    let registry = Registry::new(&[registration])?;
    let opened = Layers::open(root, &registry, config);
    let layers = match opened {
        Err(error)
            if is("an unknown option of the driver is ignored")
                && error.kind() == ErrorKind::InvalidInput =>
        {
            Layers::open(root, &registry, &Config::new().with_driver(registration.name))?
        }
        Err(error) if is("an unknown driver is any driver") && error.kind() == ErrorKind::NotFound => {
            Layers::open(root, &registry, &Config::new())?
        }
        Err(_) if is("an error says nothing") => return Err(Error::new(ErrorKind::Corrupt, "error")),
        other => other?,
    };
    if is("the driver of a root has to be named") && config.driver.is_none() {
        return Err(other());
    }
    if is("homes are open to others") {
        for path in ["", "layerstack", "vfs", "vfs/dir"] {
            let _ = files::mode(&root.join(path), 0o755);
        }
    }
    let mut capabilities = Layers::capabilities(&layers).clone();
    let no = || Feature::no("");
    match breakage.as_str() {
        "a capability is off without a reason" => capabilities.fork_live = no(),
        "capabilities change" => capabilities.max_name = 200 + fastrand::u32(..50),
        "a longer name is declared" => capabilities.max_name = 254,
        "a name space is declared and not kept" => {}
        "a depth is declared and not kept" => capabilities.max_depth = Some(10),
        "a native diff is declared" => capabilities.native_diff = Feature::Yes,
        "sharing is declared" => capabilities.shares_blocks = Feature::Yes,
        "forking is declared" => capabilities.fork_live = Feature::Yes,
        "usage without a walk is declared" => capabilities.usage_without_walk = Feature::Yes,
        "the parent's data count, and do not" => {
            capabilities.quota = Feature::Yes;
            capabilities.quota_kind = Some(QuotaKind::Whole);
        }
        "quota is declared" | "one limit is all layers'" => {
            capabilities.quota = Feature::Yes;
            capabilities.quota_kind = Some(QuotaKind::Added);
        }
        _ => {}
    }
    Ok(Box::new(Broken { layers, breakage, capabilities, state: Mutex::default() }))
}

#[derive(Debug)]
struct Broken {
    layers: Layers,
    breakage: String,
    capabilities: Capabilities,
    state: Mutex<State>,
}

/// What happened since the root was opened.
#[derive(Debug, Default)]
struct State {
    removed: BTreeSet<LayerId>,
    with_children: BTreeSet<LayerId>,
    count: u32,
}

/// A mount that is not what it should be.
#[derive(Debug)]
struct Odd<'a> {
    inner: Option<layerstack_core::layers::Mount<'a>>,
    target: PathBuf,
    breakage: &'a str,
}

impl Mounted for Odd<'_> {
    fn target(&self) -> &Path {
        &self.target
    }

    fn unmount(mut self: Box<Self>) -> Result<()> {
        let Some(inner) = self.inner.take() else { return Ok(()) };
        let gone = !kernel::mounts_below(&self.target).is_ok_and(|mounts| !mounts.is_empty());
        match self.breakage {
            "unmounting does nothing" => {
                std::mem::forget(inner);
                Ok(())
            }
            "a mount taken away makes an error that sticks" if gone => {
                Err(Error::new(ErrorKind::Other, "it is gone"))
            }
            "what is written to a full store is lost" => {
                let _ = fs::remove_file(self.target.join("after"));
                inner.unmount()
            }
            "what another process writes is lost" if is_errand() => {
                let _ = fs::remove_file(self.target.join("written"));
                inner.unmount()
            }
            "what is written is lost" => {
                for name in ["etc/passwd", "file", "after", "added", "written"] {
                    let _ = fs::remove_file(self.target.join(name));
                }
                inner.unmount()
            }
            "unmounting tears away" => {
                let target = self.target.clone();
                inner.unmount().or_else(|_| kernel::take_away(&target).map_err(|_| wrong(ErrorKind::Other)))
            }
            _ => inner.unmount(),
        }
    }
}

/// A tar that is read whole and altered when it is first asked for.
struct Altered<'a> {
    broken: &'a Broken,
    tar: &'a mut dyn Read,
    whole: Option<std::io::Cursor<Vec<u8>>>,
}

impl Read for Altered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.whole.is_none() {
            let mut bytes = Vec::new();
            // Some tars of the suite have no end worth reading.
            (&mut *self.tar).take(16 << 20).read_to_end(&mut bytes)?;
            self.whole = Some(std::io::Cursor::new(self.broken.altered(&bytes)));
        }
        self.whole.as_mut().map_or(Ok(0), |whole| whole.read(buffer))
    }
}

fn wrong(kind: ErrorKind) -> Error {
    Error::new(kind, "it did not work")
}

/// Whether this is a process that a case started.
fn is_errand() -> bool {
    std::env::var_os("LAYERSTACK_CONFORMANCE_ERRAND").is_some()
}

impl Broken {
    fn is(&self, name: &str) -> bool {
        self.breakage == name
    }

    fn ignores_sizes(&self) -> bool {
        [
            "quota is declared",
            "one limit is all layers'",
            "the parent's data count, and do not",
            "a limit is not kept",
        ]
        .contains(&self.breakage.as_str())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result, with an error of this kind turned into a success where the breakage is this one.
    fn forgives<T>(
        &self,
        name: &str,
        kind: ErrorKind,
        result: Result<T>,
        instead: impl FnOnce() -> T,
    ) -> Result<T> {
        match result {
            Err(error) if self.is(name) && error.kind() == kind => Ok(instead()),
            other => other,
        }
    }

    /// The result, with an error of one kind turned into one of another where the breakage says so.
    fn confused<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match (self.breakage.as_str(), error.kind()) {
            ("an unknown layer is some other error", ErrorKind::NotFound) => wrong(ErrorKind::Other),
            ("no space is some other error", ErrorKind::NoSpace) => wrong(ErrorKind::Other),
            ("a refused tar is some other error", ErrorKind::InvalidInput) => wrong(ErrorKind::Other),
            ("an error does not say what was wrong", kind) => wrong(kind),
            _ => error,
        })
    }

    /// Does something to a writable layer.
    fn touch(&self, id: &LayerId, change: impl FnOnce(&Path)) {
        if let Ok(mount) = self.layers.mount(id, &MountRequest::default()) {
            change(mount.target());
            let _ = mount.unmount();
        }
    }

    /// Does something to the tree of any layer, where vfs has it.
    fn damage(&self, id: &LayerId, change: impl FnOnce(&Path)) {
        change(&self.layers.home().join("dir").join(id.as_str()));
    }

    fn after_create(&self, id: &LayerId, parent: Option<&LayerId>) {
        match (self.breakage.as_str(), parent) {
            ("a base layer is closed", None) => self.touch(id, |root| {
                let _ = files::mode(root, 0o700);
            }),
            ("a base layer has something in it", None) => self.touch(id, |root| {
                let _ = fs::create_dir(root.join("lost+found"));
            }),
            ("a child has something of its own", Some(_)) => self.touch(id, |root| {
                let _ = fs::write(root.join(".own"), "");
            }),
            ("a child's root is a base layer's", Some(_)) => self.touch(id, |root| {
                let _ = files::owner(root, 0, 0);
                let _ = files::mode(root, 0o755);
            }),
            ("children have pipes for sockets", Some(_)) => self.touch(id, |root| {
                if root.join("socket").exists() && fs::remove_file(root.join("socket")).is_ok() {
                    let _ = files::special(&root.join("socket"), rustix::fs::FileType::Fifo, 0);
                }
            }),
            ("children's holes are filled", Some(_)) => self.touch(id, |root| {
                for name in ["sparse", "only-hole"] {
                    if let Ok(content) = fs::read(root.join(name)) {
                        let _ = fs::write(
                            root.join(name),
                            content.iter().map(|byte| byte | 1).collect::<Vec<_>>(),
                        );
                    }
                }
            }),
            ("children lose attributes", Some(_)) => self.touch(id, |root| {
                let _ = rustix::fs::lremovexattr(root.join("file"), "user.suite");
            }),
            ("a removed id has its old files", _) if self.state().removed.contains(id) => {
                self.touch(id, |root| {
                    let _ = fs::write(root.join("old"), "old");
                });
            }
            _ => {}
        }
    }

    fn altered(&self, tar: &[u8]) -> Vec<u8> {
        let retain = |keep: fn(&Entry) -> bool| tar::changed(tar, |entries| entries.retain(keep));
        let each = |change: fn(&mut Entry)| tar::changed(tar, |entries| entries.iter_mut().for_each(change));
        match self.breakage.as_str() {
            "whiteouts are lost" => {
                retain(|entry| !entry.name().contains(".wh.") || entry.name().contains(".opq"))
            }
            "opaque markers are lost" => retain(|entry| !entry.name().contains(".wh..wh..opq")),
            "PAX headers are lost" => each(|entry| entry.pax.clear()),
            "modes lose setuid" => each(|entry| entry.set(100, 7, entry.number(100, 7) & 0o777)),
            "owners are root" => each(|entry| {
                entry.set(108, 7, 0);
                entry.set(116, 7, 0);
            }),
            "times are lost" => each(|entry| {
                entry.forget_pax_time();
                entry.set(136, 11, 0);
            }),
            "hardlinks are lost" => retain(|entry| entry.kind() != b'1'),
            "pipes and devices are lost" => retain(|entry| !matches!(entry.kind(), b'3' | b'4' | b'6')),
            "symlinks are lost" => retain(|entry| entry.kind() != b'2'),
            "directories are lost" => retain(|entry| entry.kind() != b'5'),
            "the last entry is lost" => tar::changed(tar, |entries| drop(entries.pop())),
            "entries come in the wrong order" => tar::changed(tar, |entries| entries.reverse()),
            _ => tar.to_vec(),
        }
    }

    /// Reads a tar and alters it, where that is what is wrong.
    fn read<'t>(&'t self, tar: &'t mut dyn Read) -> Result<Box<dyn Read + 't>> {
        const ALTERING: [&str; 12] = [
            "whiteouts are lost",
            "opaque markers are lost",
            "PAX headers are lost",
            "modes lose setuid",
            "owners are root",
            "times are lost",
            "hardlinks are lost",
            "pipes and devices are lost",
            "symlinks are lost",
            "directories are lost",
            "the last entry is lost",
            "entries come in the wrong order",
        ];
        if !ALTERING.contains(&self.breakage.as_str()) {
            return Ok(Box::new(tar));
        }
        Ok(Box::new(Altered { broken: self, tar, whole: None }))
    }

    /// What some tar was made to do: changes a file that lies outside the root.
    fn break_out(&self) {
        let Some(place) = self.layers.root().parent() else { return };
        for path in ["work/outside/secret", "work/outside/victim", "work/victim", "work/outside"] {
            let path = place.join(path);
            if path.is_file() && fs::write(&path, "changed from inside").is_ok() {
                let _ = files::mode(&path, 0o777);
            }
        }
    }
}

impl Subject for Broken {
    fn root(&self) -> &Path {
        self.layers.root()
    }

    fn home(&self) -> &Path {
        self.layers.home()
    }

    fn driver_name(&self) -> &'static str {
        if self.is("the driver has another name") { "other" } else { self.layers.driver_name() }
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn recovered(&self) -> &[Recovered] {
        if self.is("what was mended is not told") { &[] } else { self.layers.recovered() }
    }

    fn status(&self) -> Result<Status> {
        let mut status = self.layers.status()?;
        if self.is("the status names no file system") {
            status.backing_file_system.clear();
        }
        Ok(status)
    }

    fn id(&self, text: &str) -> Result<LayerId> {
        let id = LayerId::new(text);
        if self.is("any text is an id") { id.or_else(|_| LayerId::new("any")) } else { id }
    }

    fn create(&self, id: &LayerId, parent: Option<&LayerId>, options: &Options) -> Result<()> {
        let exists = self.layers.contains(id)?;
        let missing = match parent {
            Some(parent) => !self.layers.contains(parent)?,
            None => false,
        };
        let bad_option = !options.is_empty();
        match self.breakage.as_str() {
            "ids are the same in any case" if id.as_str() != id.as_str().to_lowercase() => {
                return Err(wrong(ErrorKind::AlreadyExists));
            }
            "a layer may not be named as a piece of a layout" if id.as_str() == "metadata" => {
                return Err(wrong(ErrorKind::InvalidInput));
            }
            "an existing id is created again" if exists && !missing && !bad_option => return Ok(()),
            "an existing layer is removed for a bad parent" if exists && missing => {
                let _ = self.layers.remove(id);
            }
            "an existing id with a bad option is created again" if exists && bad_option => return Ok(()),
            "a missing parent is no parent" if missing => return self.layers.create(id, None, options),
            "a missing parent is some other error" if missing => return Err(wrong(ErrorKind::Other)),
            "a child on a sealed parent is not made" if parent.is_some() => {
                return Err(wrong(ErrorKind::NotSealed));
            }
            _ => {}
        }
        if let Some(parent) = parent {
            self.state().with_children.insert(parent.clone());
        }
        let created = match self.layers.create(id, parent, options) {
            Err(error) if self.is("an unsealed parent will do") && error.kind() == ErrorKind::NotSealed => {
                self.layers.create(id, None, options)
            }
            Err(error) if self.is("an unknown option is ignored") && bad_option && !exists => {
                let _ = error;
                self.layers.create(id, parent, &Options::new())
            }
            Err(error) if self.ignores_sizes() && options.get("size").is_some() && !exists => {
                let _ = error;
                self.layers.create(id, parent, &Options::new())
            }
            Err(error) if self.is("a failed creation leaves a layer") && !exists => {
                let _ = self.layers.create(id, None, &Options::new());
                Err(error)
            }
            Err(error) if self.is("a failed creation leaves a link") => {
                let _ =
                    std::os::unix::fs::symlink(id.as_str(), self.layers.home().join(format!("link-{id}")));
                Err(error)
            }
            Err(error) if self.is("who comes second has won too") && exists => {
                let _ = error;
                Ok(())
            }
            Err(error)
                if self.is("who comes second has won too")
                    && matches!(error.kind(), ErrorKind::InUse | ErrorKind::AlreadyExists) =>
            {
                Ok(())
            }
            other => other,
        };
        if created.is_ok() {
            self.after_create(id, parent);
        }
        self.confused(created)
    }

    fn seal(&self, id: &LayerId) -> Result<()> {
        if self.is("sealing again is refused") && self.layers.layer(id)?.state == LayerState::Sealed {
            return Err(wrong(ErrorKind::InvalidInput));
        }
        if self.is("sealing changes the layer") {
            self.touch(id, |root| {
                let _ = fs::write(root.join("sealed"), "");
            });
        }
        if self.is("an adopted layer cannot be sealed") && self.layers.layer(id)?.state == LayerState::Unknown
        {
            return Err(wrong(ErrorKind::InvalidInput));
        }
        let sealed = self.layers.seal(id);
        let sealed = self.forgives("an unknown layer is sealed", ErrorKind::NotFound, sealed, || ());
        self.confused(self.forgives("a mounted layer is sealed", ErrorKind::InUse, sealed, || ()))
    }

    fn apply(&self, id: &LayerId, tar: &mut dyn Read) -> Result<Applied> {
        let was = self.layers.layer(id).map(|layer| layer.state);
        let mut tar = self.read(tar)?;
        let applied = Subject::apply(&self.layers, id, &mut *tar);
        let applied = match applied {
            Err(error)
                if error.kind() == ErrorKind::InvalidInput && matches!(was, Ok(LayerState::Sealed)) =>
            {
                self.forgives(
                    "a sealed layer takes a tar",
                    ErrorKind::InvalidInput,
                    Err(error),
                    Applied::default,
                )
            }
            other => other,
        };
        let applied =
            self.forgives("a mounted layer takes a tar", ErrorKind::InUse, applied, Applied::default);
        if applied.is_err() && self.is("a failed apply leaves the layer") {
            let _ = self.layers.create(id, None, &Options::new());
        }
        self.confused(applied)
    }

    fn import(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        tar: &mut dyn Read,
        verify: &mut Verify<'_>,
    ) -> Result<Applied> {
        if self.is("an import breaks out of the layer") {
            self.break_out();
        }
        if self.is("an import keeps what it reads") {
            let mut kept = Vec::new();
            let read = tar.take(300 << 20).read_to_end(&mut kept);
            read.map_err(|error| Error::from_io(error, "read"))?;
            return Subject::import(&self.layers, id, parent, &mut kept.chain(tar), verify);
        }
        if self.is("more than 122 layers are refused")
            && let Some(parent) = parent
            && self.layers.layer(parent)?.depth >= 122
        {
            return Err(wrong(ErrorKind::Unsupported));
        }
        if self.is("an import is seen before it is whole") {
            self.layers.create(id, parent, &Options::new())?;
            let path = self.layers.home().join("dir").join(id.as_str());
            let directory = fs::File::open(path).map_err(|error| Error::from_io(error, "open"))?;
            let mut no_parent = || Ok(None);
            let request = ApplyRequest::default();
            let applied = apply(&directory, LayerForm::Whole, &mut no_parent, tar, request)?;
            verify(&applied)?;
            self.layers.seal(id)?;
            return Ok(applied);
        }
        if self.is("an import is not sealed") {
            self.layers.create(id, parent, &Options::new())?;
            return Subject::apply(&self.layers, id, tar);
        }
        let mut tar = self.read(tar)?;
        let imported = if self.is("an import is seen before it is verified") {
            let applied = Subject::import(&self.layers, id, parent, &mut *tar, &mut |_| Ok(()));
            applied.and_then(|applied| verify(&applied).map(|()| applied))
        } else {
            Subject::import(&self.layers, id, parent, &mut *tar, verify)
        };
        let imported = match imported {
            Err(error) if self.is("a refused tar is applied") && error.kind() == ErrorKind::InvalidInput => {
                self.layers.create(id, parent, &Options::new())?;
                self.layers.seal(id)?;
                Ok(Applied::default())
            }
            Err(error)
                if self.is("a layer is imported twice")
                    && matches!(error.kind(), ErrorKind::InUse | ErrorKind::AlreadyExists) =>
            {
                Ok(Applied::default())
            }
            Err(error) if self.is("a failed import leaves the layer") => {
                let _ = self.layers.create(id, None, &Options::new());
                Err(error)
            }
            Err(error)
                if self.is("who comes second has won too") && error.kind() != ErrorKind::InvalidInput =>
            {
                let _ = error;
                Ok(Applied::default())
            }
            other => other,
        };
        self.confused(imported)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        let parent = self.layers.layer(id).ok().and_then(|layer| layer.parent);
        match self.breakage.as_str() {
            "removal matches beginnings" if !self.layers.contains(id)? => {
                let longer =
                    self.layers.list()?.into_iter().find(|other| other.as_str().starts_with(id.as_str()));
                return longer.map_or_else(|| self.layers.remove(id), |longer| self.layers.remove(&longer));
            }
            "a layer that had children is never removed" if self.state().with_children.contains(id) => {
                return Err(wrong(ErrorKind::HasChildren));
            }
            "children go with their parent" => {
                for child in self.layers.children(id).unwrap_or_default() {
                    let _ = self.layers.remove(&child);
                }
            }
            "a layer is taken from under its mount" => {
                for mount in self.layers.mounts(Some(id)).unwrap_or_default() {
                    let _ = kernel::take_away(&mount.target);
                }
            }
            "a layer with a pipe in it is not removed" => {
                let mut pipe = false;
                self.damage(id, |root| pipe = root.join("pipe").exists());
                if pipe {
                    return Err(wrong(ErrorKind::Other));
                }
            }
            "removal follows links" => self.damage(id, |root| {
                if let Ok(target) = fs::read_link(root.join("a")) {
                    let _ = fs::remove_file(target.join("kept"));
                }
            }),
            _ => {}
        }
        let kept = if self.is("removal frees nothing") {
            self.layers.usage(id).map_or(0, |usage| usage.bytes)
        } else {
            0
        };
        let removed = self.layers.remove(id);
        if removed.is_ok() && kept > 1 << 20 {
            let path = self.layers.home().join(format!("windows/.kept-{}", fastrand::u64(..)));
            let _ = fs::write(path, vec![7; usize::try_from(kept).unwrap_or(0)]);
        }
        if removed.is_ok() {
            self.state().removed.insert(id.clone());
            match (self.breakage.as_str(), &parent) {
                ("removal leaves something behind", _) => {
                    let _ = fs::create_dir(self.layers.home().join(format!("left-{id}")));
                }
                ("removal damages the parent", Some(parent)) => self.damage(parent, |root| {
                    let _ = fs::write(root.join("damage"), "");
                }),
                ("removal damages siblings", Some(parent)) => {
                    for sibling in self.layers.children(parent).unwrap_or_default() {
                        self.damage(&sibling, |root| {
                            let _ = fs::write(root.join("damage"), "");
                        });
                    }
                }
                ("what is removed keeps its mount point", _) => {
                    let _ = fs::create_dir_all(self.layers.home().join("mnt").join(id.as_str()));
                }
                _ => {}
            }
        }
        let removed = self.forgives("an unknown layer is removed", ErrorKind::NotFound, removed, || ());
        let removed = self.forgives("a parent is removed", ErrorKind::HasChildren, removed, || ());
        self.confused(self.forgives("who comes second has won too", ErrorKind::NotFound, removed, || ()))
    }

    fn layer(&self, id: &LayerId) -> Result<Layer> {
        let mut layer = self.confused(self.layers.layer(id))?;
        match self.breakage.as_str() {
            "a sealed layer says that it is writable" => layer.state = LayerState::Writable,
            "a writable layer says that it is sealed" => layer.state = LayerState::Sealed,
            "a parent is not told" => layer.parent = None,
            "a parent is guessed" if layer.parent.is_none() => layer.parent = Some(id.clone()),
            "depths count from nothing" => layer.depth -= 1,
            "a record changes when it is read" => {
                self.state().count += 1;
                layer.created = u64::from(self.state().count) + fastrand::u64(..1 << 32);
            }
            _ => {}
        }
        Ok(layer)
    }

    fn contains(&self, id: &LayerId) -> Result<bool> {
        if self.is("a removed layer is remembered") && self.state().removed.contains(id) {
            return Ok(true);
        }
        if self.is("every layer is there") {
            return Ok(true);
        }
        let there = self.layers.contains(id)?;
        Ok(there
            && !(self.is("a sealed layer is not there")
                && self.layers.layer(id)?.state == LayerState::Sealed))
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        let mut ids = self.layers.list()?;
        if self.is("a list lacks a layer") {
            ids.pop();
        }
        Ok(ids)
    }

    fn chain(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        let mut chain = self.confused(self.layers.chain(id))?;
        if self.is("a chain is one layer") {
            chain.truncate(1);
        }
        Ok(chain)
    }

    fn children(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        let children = self.confused(self.layers.children(id))?;
        Ok(if self.is("children are not known") { Vec::new() } else { children })
    }

    fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan> {
        let planned = self
            .layers
            .mount_plan(id, if self.is("a plan is read-only") { Access::ReadOnly } else { access });
        let mut plan = self.confused(planned)?;
        plan.access = access;
        if self.is("a plan is read-only") {
            plan.access = Access::ReadOnly;
        }
        if self.is("a plan is mounted") {
            let _ = fs::create_dir_all(&plan.target);
            let _ = kernel::mount_by_words(&plan.to_spec(), &plan.target);
        }
        if self.is("a plan is of the parent")
            && let Ok(Some(parent)) = self.layers.layer(id).map(|layer| layer.parent)
        {
            plan.source = self.layers.home().join("dir").join(parent.as_str());
        }
        Ok(plan)
    }

    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<Box<dyn Mounted + '_>> {
        let mut request = request.clone();
        let sealed = self.layers.layer(id).is_ok_and(|layer| layer.state == LayerState::Sealed);
        match self.breakage.as_str() {
            "read-only is not meant" => request.access = None,
            "a sealed layer's writable mount is read-only" if sealed => request.access = None,
            "a dropped mount stays" => request.persistent = true,
            "no mount stays" => request.persistent = false,
            "the place asked for is not used" => request.target = None,
            "a missing place is made" => {
                if let Some(target) = &request.target {
                    let _ = fs::create_dir_all(target);
                }
            }
            "one limit is all layers'" if !self.layers.mounts(None)?.is_empty() => {
                return Err(wrong(ErrorKind::QuotaExceeded));
            }
            "a sealed layer is mounted once" if sealed && !self.layers.mounts(Some(id))?.is_empty() => {
                return Err(wrong(ErrorKind::InUse));
            }
            "a layer is its sibling" => {
                if let Some(parent) = self.layers.layer(id)?.parent
                    && let Some(first) = self.layers.children(&parent)?.first()
                    && first != id
                {
                    return Ok(Box::new(self.layers.mount(first, &request)?));
                }
            }
            _ => {}
        }
        let mounted = match self.layers.mount(id, &request) {
            Err(error) if error.kind() == ErrorKind::InUse => {
                let fakes = self.is("a writable layer is mounted twice")
                    || self.is("who comes second has won too")
                    || (self.is("other processes may mount too") && is_errand());
                let existing = self.layers.mounts(Some(id)).ok().and_then(|mounts| mounts.into_iter().next());
                return match existing {
                    Some(mount) if fakes => {
                        Ok(Box::new(Odd { inner: None, target: mount.target, breakage: &self.breakage }))
                    }
                    _ => Err(error),
                };
            }
            other => self.confused(other)?,
        };
        let target = mounted.target().to_owned();
        match self.breakage.as_str() {
            "a sealed layer is mounted writable" if sealed => {
                let again = rustix::mount::MountFlags::BIND;
                let _ = rustix::mount::mount_remount(&target, again, c"");
            }
            "a mount forbids devices" => {
                use rustix::mount::MountFlags;
                let read_only = if sealed { MountFlags::RDONLY } else { MountFlags::empty() };
                let flags = MountFlags::BIND | MountFlags::NODEV | MountFlags::NOSUID | read_only;
                let _ = rustix::mount::mount_remount(&target, flags, c"");
            }
            _ => {}
        }
        Ok(Box::new(Odd { inner: Some(mounted), target, breakage: &self.breakage }))
    }

    fn mounts(&self, id: Option<&LayerId>) -> Result<Vec<MountInfo>> {
        let mounts = self.layers.mounts(id)?;
        Ok(if self.is("mounts are not listed") { Vec::new() } else { mounts })
    }

    fn unmount(&self, id: &LayerId, target: Option<&Path>) -> Result<()> {
        let unmounted = self.layers.unmount(id, target);
        self.confused(self.forgives("there is no unmount too many", ErrorKind::NotFound, unmounted, || ()))
    }

    fn changes(&self, id: &LayerId, base: Base<'_>) -> Result<Vec<Change>> {
        let base = match base {
            Base::Layer(_) if self.is("a diff is always against the parent") => Base::Parent,
            Base::Parent if self.is("a diff is always against nothing") => Base::Nothing,
            other => other,
        };
        let parent = self.layers.layer(id).ok().and_then(|layer| layer.parent);
        let listed = self.layers.changes(id, base);
        let mut changes = self.confused(self.forgives(
            "an unknown layer has no changes",
            ErrorKind::NotFound,
            listed,
            Vec::new,
        ))?;
        let kinds = |kind: ChangeKind| move |change: &Change| change.kind != kind;
        match self.breakage.as_str() {
            "additions are not seen" => changes.retain(kinds(ChangeKind::Added)),
            "modifications are not seen" => changes.retain(kinds(ChangeKind::Modified)),
            "removals are not seen" => changes.retain(kinds(ChangeKind::Deleted)),
            "directories above a change are not listed" => {
                let all = changes.clone();
                changes.retain(|change| {
                    let above = all
                        .iter()
                        .any(|other| other.path != change.path && other.path.starts_with(&change.path));
                    change.kind != ChangeKind::Modified || !above
                });
            }
            "equal size and time is no change" => {
                if let Some(parent) = &parent
                    && let (Ok(upper), Ok(lower)) = (self.layers.tree(id), self.layers.tree(parent))
                {
                    changes.retain(|change| {
                        let path = change.path.strip_prefix("/").unwrap_or(&change.path);
                        let of = |tree: &View<'_>| {
                            tree.metadata(path).ok().flatten().map(|m| (m.size, m.mtime, m.kind))
                        };
                        change.kind != ChangeKind::Modified || of(&upper) != of(&lower)
                    });
                }
            }
            "the last change is not listed" => drop(changes.pop()),
            "something is always changed" if parent.is_some() => {
                changes.push(Change { path: "/zzz".into(), kind: ChangeKind::Modified });
            }
            "what was removed is listed file by file" => {
                let removed = changes.iter().position(|change| change.kind == ChangeKind::Deleted);
                if let Some(at) = removed {
                    let below = Change { path: changes[at].path.join("below"), kind: ChangeKind::Deleted };
                    changes.insert(at + 1, below);
                }
            }
            "a replaced file is removed and added" => {
                for change in &mut changes {
                    if change.kind == ChangeKind::Modified {
                        change.kind = ChangeKind::Added;
                    }
                }
            }
            _ => {}
        }
        Ok(changes)
    }

    fn diff(&self, id: &LayerId, base: Base<'_>, out: &mut dyn Write) -> Result<DiffSummary> {
        let base = match base {
            Base::Layer(_) if self.is("a diff is always against the parent") => Base::Parent,
            Base::Parent if self.is("a diff is always against nothing") => Base::Nothing,
            Base::Nothing if self.is("nothing is the parent") => Base::Parent,
            other => other,
        };
        let mut bytes = Vec::new();
        let written = self.layers.diff(id, base, &mut bytes);
        let written = if self.is("what a tar cannot hold is left out") {
            written.or_else(|_| Ok(DiffSummary::default()))
        } else {
            written
        };
        let summary = self.confused(written)?;
        let mut bytes = self.altered(&bytes);
        match self.breakage.as_str() {
            "a tar is another every time" => {
                bytes = tar::changed(&bytes, |entries| {
                    for entry in entries {
                        entry.set(136, 11, fastrand::u32(..));
                    }
                });
            }
            "a diff lacks its last entry" => bytes = tar::changed(&bytes, |entries| drop(entries.pop())),
            "a tar shows native whiteouts" => {
                bytes = tar::changed(&bytes, |entries| {
                    for entry in entries.iter_mut().filter(|entry| entry.name().contains(".wh.")) {
                        entry.header[156] = b'3';
                        entry.set(136, 11, 0);
                    }
                });
            }
            "a tar has a sparse format" => {
                bytes = tar::changed(&bytes, |entries| {
                    for entry in entries.iter_mut().filter(|entry| entry.name().contains("sparse")) {
                        entry.header[156] = b'S';
                        entry.set(136, 11, 0);
                    }
                });
            }
            "links are to the wrong file" => {
                bytes = tar::changed(&bytes, |entries| {
                    for entry in entries.iter_mut().filter(|entry| entry.kind() == b'1') {
                        entry.header[157..257].fill(0);
                        entry.header[157..161].copy_from_slice(b"x-99");
                        entry.set(136, 11, 0);
                    }
                });
            }
            _ => {}
        }
        out.write_all(&bytes).map_err(|error| Error::from_io(error, "write"))?;
        Ok(summary)
    }

    fn tree(&self, id: &LayerId) -> Result<View<'_>> {
        self.layers.tree(id)
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        let usage = self.layers.usage(id);
        let usage =
            self.forgives("an unknown layer takes no space", ErrorKind::NotFound, usage, || Usage::new(0, 0));
        let usage = self.confused(usage)?;
        Ok(if self.is("usage is not measured") { Usage::new(4096, 1) } else { usage })
    }

    fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let pieces = self.confused(self.layers.inspect(id))?;
        Ok(if self.is("a layer's pieces are not named") { BTreeMap::new() } else { pieces })
    }

    fn check(&self) -> Result<Vec<Finding>> {
        match self.breakage.as_str() {
            "a check finds nothing" => Ok(Vec::new()),
            "a check fails" => Err(wrong(ErrorKind::Other)),
            _ => self.layers.check(),
        }
    }
}
