//! What a case is given: a fresh root, a fresh work directory, and ways to fill both.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use layerstack_core::layers::{Base, Config, MountRequest};
use layerstack_core::options::Options;
use layerstack_core::registry::Registration;
use layerstack_core::{LayerId, Result};

use crate::case::{Stop, Verdict, check};
use crate::errand::{Errand, Step};
use crate::kernel;
use crate::snapshot::Snapshot;
use crate::subject::Subject;
use crate::suite::Stage;

/// The place in which one case runs. Whatever is left in it goes when the case has ended.
#[derive(Debug)]
pub struct Scene {
    pub(crate) stage: Arc<Stage>,
    directory: PathBuf,
    /// Whether no other case runs meanwhile.
    alone: bool,
}

impl Scene {
    /// A fresh place named `name` in `store`.
    pub(crate) fn new(stage: Arc<Stage>, store: &Path, name: &str, alone: bool) -> Verdict<Self> {
        let directory = store.join(name);
        fs::create_dir(&directory)?;
        fs::create_dir(directory.join("work"))?;
        Ok(Self { stage, directory, alone })
    }

    /// The directory that [`Scene::open`] opens. Absent until then.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// A directory for the case's own files, on the same file system as the root.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// Opens the root with the driver under test.
    ///
    /// # Errors
    /// Where that fails.
    #[track_caller]
    pub fn open(&self) -> Verdict<Box<dyn Subject>> {
        Ok(self.try_open(&self.root(), &self.config())?)
    }

    /// Opens any root with any configuration.
    ///
    /// # Errors
    /// As the front's `open`.
    pub fn try_open(&self, root: &Path, config: &Config) -> Result<Box<dyn Subject>> {
        (self.stage.suite.open)(self.stage.suite.registration, root, config)
    }

    /// What the driver under test says of itself.
    #[must_use]
    pub fn registration(&self) -> &'static Registration {
        self.stage.suite.registration
    }

    /// The configuration that names the driver under test, with the options that the run was asked for.
    #[must_use]
    pub fn config(&self) -> Config {
        self.stage.suite.config()
    }

    /// Does something in a second place, on the small store, which is one case's at a time.
    ///
    /// # Errors
    /// `NotRun` where there is no small store; else what `work` gives.
    pub fn on_small_store(&self, work: impl FnOnce(&Self) -> Verdict) -> Verdict {
        let Some(small) = &self.stage.small else {
            return Err(Stop::not_run(
                "no small store: set LAYERSTACK_CONFORMANCE_SMALL_STORE to a mounted file system of about 64 MiB \
                 (cargo xtask conformance makes one)",
            ));
        };
        let _turn = self.stage.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.directory.file_name().unwrap_or_default();
        let room = kernel::free_bytes(small)?;
        let scene = Self::new(self.stage.clone(), small, &name.to_string_lossy(), self.alone)?;
        let done = work(&scene).map_err(|stop| match stop {
            Stop::Failed(what) => Stop::Failed(format!("{what}\n    {}", scene.dump())),
            other => other,
        });
        done.and(scene.clear())?;
        wait_for_room(small, room)
    }

    /// A process that opens the root, does the steps and reports on each.
    #[must_use]
    pub fn errand(&self, steps: impl IntoIterator<Item = Step>) -> Errand {
        Errand::new(&self.root(), steps.into_iter().collect(), self.alone)
    }

    /// Every name below the root with its type, mounts included: what an operation that fails must leave as it
    /// was.
    ///
    /// # Errors
    /// Where the root cannot be read.
    pub fn names(&self) -> Verdict<Vec<String>> {
        let root = self.root();
        let mut names: Vec<_> =
            kernel::mounts_below(&root)?.iter().map(|target| format!("mount {}", target.display())).collect();
        list_names(&root, &root, &mut names)?;
        names.sort();
        Ok(names)
    }

    /// Fails the case where the names below the root are not what [`Scene::names`] gave before.
    ///
    /// # Errors
    /// Where they differ.
    #[track_caller]
    pub fn must_have(&self, before: &[String]) -> Verdict {
        let names = self.names()?;
        let missing =
            before.iter().filter(|name| !names.contains(name)).map(|name| format!("missing: {name}"));
        let extra =
            names.iter().filter(|name| !before.contains(name)).map(|name| format!("left behind: {name}"));
        let lines: Vec<_> = missing.chain(extra).collect();
        check!(lines.is_empty(), "the root is not as it was: {}", lines.join("; "));
        Ok(())
    }

    /// The root and the work directory as lines, for the report of a failure.
    pub(crate) fn dump(&self) -> String {
        const MOST: usize = 150;
        let mut lines = Vec::new();
        dump(&self.directory, &self.directory, MOST, &mut lines);
        let cut = lines.len() > MOST;
        lines.truncate(MOST);
        if cut {
            lines.push("…".to_owned());
        }
        lines.join("\n    ")
    }

    /// The text with the place of this scene left out, which is another in each case.
    pub(crate) fn without_its_place(&self, text: &str) -> String {
        text.replace(&self.directory.display().to_string(), "STORE")
    }

    /// Takes everything away: mounts, layers through the driver, files.
    pub(crate) fn clear(&self) -> Verdict {
        kernel::take_away_all(&self.directory)?;
        if self.root().exists()
            && let Ok(layers) = self.try_open(&self.root(), &self.config())
        {
            // Only what the file system cannot remove (datasets, devices) has to go this way, and a root that a
            // case has damaged need not let it: what stays shows below.
            let _ = remove_all(&*layers);
        }
        kernel::take_away_all(&self.directory)?;
        let parent = self.directory.parent().unwrap_or(Path::new("/"));
        let name = self.directory.file_name().unwrap_or_default();
        Ok(layerstack_core::fs::remove_tree(fs::File::open(parent)?, name, parent)?)
    }
}

/// Waits until a file system has as much room as before, but for a little that it may keep. Some free what was deleted
/// behind one's back (btrfs, xfs), and the next case would meet that. It checks nothing, and so goes on after a while:
/// some keep for metadata what they once set apart for it.
fn wait_for_room(store: &Path, before: u64) -> Verdict {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        layerstack_core::fs::sync_file_system(store)?;
        if kernel::free_bytes(store)? + (1 << 20) >= before || Instant::now() > deadline {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Adds what is below a directory, by type and name. Reads no file: a driver's own may be larger than any disk.
pub(crate) fn list_names(directory: &Path, root: &Path, names: &mut Vec<String>) -> Verdict {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let shown = path.strip_prefix(root).unwrap_or(&path).display();
        let what = if kind.is_symlink() {
            format!("link to {}", fs::read_link(&path)?.display())
        } else if kind.is_dir() {
            "directory".to_owned()
        } else if kind.is_file() {
            "file".to_owned()
        } else {
            format!("{kind:?}")
        };
        names.push(format!("{what} {shown}"));
        if kind.is_dir() {
            list_names(&path, root, names)?;
        }
    }
    Ok(())
}

fn remove_all(layers: &dyn Subject) -> Result<()> {
    loop {
        let ids = layers.list()?;
        let before = ids.len();
        for id in ids {
            // A parent goes in a later round.
            let _ = layers.remove(&id);
        }
        let left = layers.list()?.len();
        if left == 0 || left == before {
            return Ok(());
        }
    }
}

fn dump(directory: &Path, top: &Path, most: usize, lines: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if lines.len() > most {
            return;
        }
        let path = entry.path();
        let mut line = path.strip_prefix(top).unwrap_or(&path).display().to_string();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if let Ok(target) = fs::read_link(&path) {
            let _ = write!(line, " -> {}", target.display());
        } else if metadata.is_file() {
            let _ = write!(line, " ({} bytes)", metadata.len());
        } else if metadata.is_dir() {
            line.push('/');
        }
        lines.push(line);
        if metadata.is_dir() {
            dump(&path, top, most, lines);
        }
    }
}

/// The id with this text.
///
/// # Panics
/// Never for the literals of the suite: each is a good id.
#[must_use]
#[expect(clippy::unwrap_used, reason = "called with literals that are good ids")]
pub fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

/// Changes a layer through a mount.
///
/// # Errors
/// Where mounting, the change or unmounting fails.
pub fn edit(layers: &dyn Subject, name: &str, change: impl FnOnce(&Path) -> Verdict) -> Verdict {
    let mount = layers.mount(&id(name), &MountRequest::default())?;
    let done = change(mount.target());
    mount.unmount()?;
    done
}

/// Makes a writable layer and changes it through a mount.
///
/// # Errors
/// As [`edit`], and where creating fails.
pub fn grow(
    layers: &dyn Subject,
    name: &str,
    parent: Option<&str>,
    change: impl FnOnce(&Path) -> Verdict,
) -> Verdict {
    layers.create(&id(name), parent.map(id).as_ref(), &Options::new())?;
    edit(layers, name, change)
}

/// Makes a sealed layer with what a change left in it.
///
/// # Errors
/// As [`grow`], and where sealing fails.
pub fn sealed(
    layers: &dyn Subject,
    name: &str,
    parent: Option<&str>,
    change: impl FnOnce(&Path) -> Verdict,
) -> Verdict {
    grow(layers, name, parent, change)?;
    Ok(layers.seal(&id(name))?)
}

/// Makes a sealed layer from a tar.
///
/// # Errors
/// Where importing fails.
pub fn import(layers: &dyn Subject, name: &str, parent: Option<&str>, mut tar: &[u8]) -> Result<()> {
    layers.import(&id(name), parent.map(id).as_ref(), &mut tar, &mut |_| Ok(())).map(drop)
}

/// The tree of a layer as a mount shows it.
///
/// # Errors
/// Where mounting, reading or unmounting fails.
pub fn snapshot(layers: &dyn Subject, name: &str) -> Verdict<Snapshot> {
    use layerstack_core::mount::Access;
    let mount = layers.mount(&id(name), &MountRequest::default().with_access(Access::ReadOnly))?;
    let seen = Snapshot::read(mount.target());
    mount.unmount()?;
    seen
}

/// The diff of a layer against its parent.
///
/// # Errors
/// As the front's `diff`.
pub fn diff(layers: &dyn Subject, name: &str) -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    layers.diff(&id(name), Base::Parent, &mut tar)?;
    Ok(tar)
}

/// What changed in a layer against its parent, as `docker diff` prints it.
///
/// # Errors
/// As the front's `changes`.
pub fn changes(layers: &dyn Subject, name: &str) -> Result<Vec<String>> {
    Ok(layers.changes(&id(name), Base::Parent)?.iter().map(ToString::to_string).collect())
}

/// Fails the case where the front finds that something does not agree.
///
/// # Errors
/// Where it does.
#[track_caller]
pub fn must_be_clean(layers: &dyn Subject) -> Verdict {
    let findings: Vec<_> = layers.check()?.iter().map(ToString::to_string).collect();
    check!(findings.is_empty(), "check finds: {}", findings.join("; "));
    Ok(())
}
