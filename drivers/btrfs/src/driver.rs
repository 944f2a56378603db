//! The driver.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use layerstack_core::capability::Capabilities;
use layerstack_core::driver::{ApplyTarget, Candidates, Driver, FoundLayer, LayerForm, NewLayer, Usage};
use layerstack_core::fs::sync_file_system;
use layerstack_core::mount::{Access, MountPlan, remove_target};
use layerstack_core::options::Options;
use layerstack_core::registry::OpenRequest;
use layerstack_core::{Error, ErrorKind, LayerId, Result, kill_point};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use crate::layout::Layout;
use crate::options::{self, Settings};
use crate::quota::{self, Mode as Quota};
use crate::space::Room;
use crate::subvolume::Subvolume;
use crate::{candidates, nested, probe, snapshots, subvolume, usage};

/// The driver's name.
pub const NAME: &str = "btrfs";

layerstack_core::register_driver! {
    name: NAME,
    summary: "snapshots of btrfs subvolumes",
    rank: 20,
    options: options::DRIVER,
    layer_options: options::LAYER,
    probe: probe::probe,
    open: |request| Ok(Box::new(Btrfs::open(request)?)),
}

/// A home of this driver, opened.
#[derive(Debug)]
pub struct Btrfs {
    layout: Layout,
    settings: Settings,
    quota: Quota,
    capabilities: Capabilities,
    /// Numbers of sealed layers in which there are no subvolumes, so that the next child need not look for any: a
    /// search waits for the commit that another creation is in. No number is given twice.
    plain: Mutex<HashSet<u64>>,
}

impl Btrfs {
    /// Opens a home, making it where it is absent.
    ///
    /// # Errors
    /// `Unavailable` where the home is not on btrfs, `InvalidInput` for an option's value, `Unsupported` for a size where
    /// quota is off.
    pub fn open(request: &OpenRequest<'_>) -> Result<Self> {
        let settings = Settings::parse(request.options)?;
        let layout = Layout::open(request.home)?;
        let quota = quota::mode(layout.file_system())?;
        snapshots::sweep(&layout)?;
        let capabilities = probe::capabilities(request.home, quota);
        let btrfs = Self { layout, settings, quota, capabilities, plain: Mutex::default() };
        btrfs.limit(&Options::new())?;
        Ok(btrfs)
    }

    /// The limit of a new layer in bytes, None where it has none.
    fn limit(&self, options: &Options) -> Result<Option<u64>> {
        let limit = self.settings.limit(options)?;
        match self.capabilities.quota.reason() {
            Some(reason) if limit.is_some() => {
                Err(Error::new(ErrorKind::Unsupported, format!("a size cannot be set: {reason}")))
            }
            _ => Ok(limit),
        }
    }

    /// Gives a new snapshot of `from` the subvolumes in it.
    fn copy_nested(&self, (parent, found): (&Path, Subvolume), path: &Path) -> Result<()> {
        let plain = || self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        if found.read_only && plain().contains(&found.number) {
            return Ok(());
        }
        let (from, to) = ((parent, found.number), (path, subvolume::containing(path)?));
        let copied = nested::copy(self.layout.file_system(), from, to)?;
        if found.read_only && copied == 0 {
            plain().insert(found.number);
        }
        Ok(())
    }
}

impl Driver for Btrfs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn home(&self) -> &Path {
        self.layout.home()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let mut lines = vec![
            ("Build Version".to_owned(), build_version()),
            ("Library Version".to_owned(), loaded_version()),
        ];
        let quota = match self.quota {
            Quota::Off => "off",
            Quota::Full => "qgroups",
            Quota::Simple => "simple",
        };
        lines.push(("Quota".to_owned(), quota.to_owned()));
        lines.extend(Room::of(self.layout.file_system())?.lines());
        Ok(lines)
    }

    fn why_full(&self) -> Option<String> {
        match Room::of(self.layout.file_system()) {
            Ok(room) => room.why_full(self.home()),
            Err(error) => {
                tracing::warn!(?error, "the file system does not say what is free");
                None
            }
        }
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        let limit = self.limit(layer.options)?;
        let path = self.layout.tree(layer.id);
        match layer.parent {
            None => {
                subvolume::create(&path)?;
                kill_point!("btrfs.create.empty");
                set_root(&path)?;
            }
            Some(parent) => {
                let (parent, found) = self.layout.subvolume(parent)?;
                subvolume::snapshot(&parent, &path, false)?;
                kill_point!("btrfs.create.snapshot");
                self.copy_nested((&parent, found), &path)?;
            }
        }
        let Some(bytes) = limit else { return Ok(()) };
        quota::limit(self.layout.file_system(), subvolume::containing(&path)?, bytes)?;
        kill_point!("btrfs.create.limited");
        self.layout.note_limit(layer.id, bytes)
    }

    fn seal(&self, id: &LayerId, durable: bool) -> Result<()> {
        let (path, _) = self.layout.subvolume(id)?;
        subvolume::set_read_only(&path, true)?;
        kill_point!("btrfs.seal.read-only");
        if durable { sync_file_system(&path) } else { Ok(()) }
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        self.layout.remove(id)?;
        self.layout.forget_limit(id)?;
        remove_target(&self.layout.mount_point(id))
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        self.layout.ids()
    }

    fn find(&self, id: &LayerId) -> Result<Option<FoundLayer>> {
        let path = self.layout.tree(id);
        match subvolume::inspect(&path)? {
            Some(found) => Ok(Some(FoundLayer {
                parent: self.layout.parent(&found)?,
                // Docker's image layers can be written to like its containers'.
                sealed: found.read_only.then_some(true),
            })),
            None if path.is_dir() => {
                Err(Error::new(ErrorKind::Corrupt, "it is a directory, not a subvolume").with_path(path))
            }
            None => Ok(None),
        }
    }

    fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan> {
        let (path, found) = self.layout.subvolume(id)?;
        if access == Access::ReadWrite && found.read_only {
            // A process was killed after it sealed the subvolume, and before that was written down.
            subvolume::set_read_only(&path, false)?;
            self.plain.lock().unwrap_or_else(PoisonError::into_inner).remove(&found.number);
        }
        Ok(MountPlan::bind(path, access, self.layout.mount_point(id)))
    }

    fn unmounted(&self, _id: &LayerId) -> Result<()> {
        // A plan prepares nothing.
        Ok(())
    }

    fn apply_target(&self, id: &LayerId) -> Result<ApplyTarget> {
        Ok(ApplyTarget { plan: self.mount_plan(id, Access::ReadWrite)?, form: LayerForm::Whole })
    }

    fn candidates(&self, id: &LayerId) -> Result<Candidates> {
        candidates::of(&self.layout, id)
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        usage::of(&self.layout, id)
    }

    fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let (path, found) = self.layout.subvolume(id)?;
        Ok(BTreeMap::from([
            ("Subvolume".to_owned(), path.display().to_string()),
            ("SubvolumeID".to_owned(), found.number.to_string()),
        ]))
    }
}

/// Makes the root directory of a base layer what it has to be, whatever the umask and the directory above are.
fn set_root(path: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let set = || {
        let root: OwnedFd = rustix::fs::open(path, flags, Mode::empty())?;
        rustix::fs::fchown(&root, Some(Uid::ROOT), Some(Gid::ROOT))?;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))
    };
    set().map_err(|errno| Error::from_errno(errno, "set the mode of the layer's directory").with_path(path))
}

/// The version of libbtrfsutil that this was built against.
fn build_version() -> String {
    use libbtrfsutil_sys::{BTRFS_UTIL_VERSION_MAJOR, BTRFS_UTIL_VERSION_MINOR, BTRFS_UTIL_VERSION_PATCH};
    format!("libbtrfsutil {BTRFS_UTIL_VERSION_MAJOR}.{BTRFS_UTIL_VERSION_MINOR}.{BTRFS_UTIL_VERSION_PATCH}")
}

/// The version of the libbtrfsutil that this process has loaded: the library has no function that tells, its file's name
/// does. "-" where it is linked in, as Docker has it where it cannot tell.
fn loaded_version() -> String {
    const LIBRARY: &str = "/libbtrfsutil.so.";
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let version = maps.lines().find_map(|line| Some(line.rsplit_once(LIBRARY)?.1.trim().to_owned()));
    version.unwrap_or_else(|| "-".to_owned())
}
