//! The driver.

use std::collections::BTreeMap;
use std::path::Path;

use layerstack_core::capability::{Capabilities, Feature, QuotaKind};
use layerstack_core::driver::{ApplyTarget, Candidates, Driver, FoundLayer, LayerForm, NewLayer, Usage};
use layerstack_core::fs::{FileSystemType, copy_tree, sync_file_system, tree_usage};
use layerstack_core::mount::{Access, MountPlan, remove_target};
use layerstack_core::options::Options;
use layerstack_core::quota::{Limits, ProjectQuota, within_limit};
use layerstack_core::registry::OpenRequest;
use layerstack_core::{Error, ErrorKind, LayerId, Result, kill_point};
use rustix::fs::Mode;

use crate::layout::Layout;
use crate::options::{self, Settings};
use crate::probe;
use crate::window::{self, Marker};

/// The driver's name.
pub const NAME: &str = "vfs";

layerstack_core::register_driver! {
    name: NAME,
    summary: "whole copies in plain directories, on any file system",
    rank: 100,
    options: options::DRIVER,
    layer_options: options::LAYER,
    probe: probe::probe,
    open: |request| Ok(Box::new(Vfs::open(request)?)),
}

/// A home of this driver, opened.
#[derive(Debug)]
pub struct Vfs {
    layout: Layout,
    settings: Settings,
    /// Where the file system has it; the capability says why not.
    quota: Option<ProjectQuota>,
    capabilities: Capabilities,
}

impl Vfs {
    /// Opens a home, making it where it is absent.
    ///
    /// # Errors
    /// `InvalidInput` for an option's value; `Unavailable`, `Unsupported` where the file system cannot serve it.
    pub fn open(request: &OpenRequest<'_>) -> Result<Self> {
        let settings = Settings::parse(request.options)?;
        let layout = Layout::open(request.home)?;
        let mut capabilities = probe::capabilities(request.home, settings.reflink)?;
        let quota = match ProjectQuota::probe(request.home) {
            Ok(quota) => {
                capabilities.quota = Feature::Yes;
                capabilities.quota_kind = Some(QuotaKind::Whole);
                Some(quota)
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                capabilities.quota = Feature::no(error.message());
                None
            }
            Err(error) => return Err(error),
        };
        let vfs = Self { layout, settings, quota, capabilities };
        vfs.limit(&Options::new())?;
        Ok(vfs)
    }

    /// The limit of a new layer, None where it has none.
    fn limit(&self, options: &Options) -> Result<Option<(&ProjectQuota, Limits)>> {
        match (options.size("size")?.or(self.settings.size), &self.quota) {
            // As with Docker, 0 is no limit.
            (None | Some(0), _) => Ok(None),
            (Some(bytes), Some(quota)) => Ok(Some((quota, Limits::of_bytes(bytes)))),
            (Some(_), None) => {
                let reason = self.capabilities.quota.reason().unwrap_or_default();
                Err(Error::new(ErrorKind::Unsupported, format!("a size cannot be set: {reason}")))
            }
        }
    }

    /// Removes what has the staged name, and its limit.
    fn remove_staged(&self, id: &LayerId) -> Result<()> {
        let project = match (&self.quota, self.layout.open_staged(id)?) {
            (Some(quota), Some(tree)) => quota.project_of(&tree)?.map(|project| (quota, project)),
            _ => None,
        };
        self.layout.remove_staged(id)?;
        project.map_or(Ok(()), |(quota, project)| quota.clear(project))
    }
}

impl Driver for Vfs {
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
        let file_system = FileSystemType::of(self.home())?.name();
        Ok(vec![
            ("Backing Filesystem".to_owned(), file_system),
            ("Reflink".to_owned(), self.capabilities.shares_blocks.offered().to_string()),
        ])
    }

    fn why_full(&self) -> Option<String> {
        // What is full shows in `df`.
        None
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        let id = layer.id;
        let limit = self.limit(layer.options)?;
        let tree = self.layout.stage(id)?;
        kill_point!("vfs.create.staged");
        if let Some((quota, limits)) = limit {
            quota.assign(&tree, id.as_str(), limits)?;
        }
        if let Some(parent) = layer.parent {
            let path = self.layout.tree(parent);
            let parent = self.layout.open_tree(parent)?;
            let note = |error| Error::from_io(error, "note the time of the copy");
            let marker = Marker::begin(self.layout.windows(), id).map_err(|errno| note(errno.into()))?;
            let copy = || copy_tree(&parent, &tree, &path, self.settings.reflink);
            if limit.is_some() {
                within_limit(&tree, self.home(), copy)?;
            } else {
                copy()?;
            }
            marker.end().map_err(note)?;
        } else {
            rustix::fs::fchmod(&tree, Mode::from_raw_mode(0o755))
                .map_err(|errno| Error::from_errno(errno, "set the mode of the layer's directory"))?;
        }
        kill_point!("vfs.create.filled");
        self.layout.publish(id)
    }

    fn seal(&self, _id: &LayerId, durable: bool) -> Result<()> {
        if durable { sync_file_system(self.home()) } else { Ok(()) }
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        // What an interrupted call left has the name that the tree is about to get.
        self.remove_staged(id)?;
        self.layout.withdraw(id)?;
        kill_point!("vfs.remove.withdrawn");
        window::remove(self.layout.windows(), id)
            .map_err(|errno| Error::from_errno(errno, "forget the time of the copy"))?;
        self.remove_staged(id)?;
        remove_target(&self.layout.mount_point(id))
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        self.layout.ids()
    }

    /// A tree does not tell from which other one it was copied, nor whether it is sealed. It is whole in any case, so
    /// it stands on its own without a parent.
    fn find(&self, id: &LayerId) -> Result<Option<FoundLayer>> {
        let found = FoundLayer { parent: None, sealed: None };
        Ok(self.layout.has(id)?.then_some(found))
    }

    fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan> {
        self.layout.open_tree(id)?;
        Ok(MountPlan::bind(self.layout.tree(id), access, self.layout.mount_point(id)))
    }

    fn unmounted(&self, _id: &LayerId) -> Result<()> {
        // A plan prepares nothing.
        Ok(())
    }

    fn apply_target(&self, id: &LayerId) -> Result<ApplyTarget> {
        self.layout.open_tree(id)?;
        let plan = MountPlan::bind(self.layout.tree(id), Access::ReadWrite, self.layout.mount_point(id));
        Ok(ApplyTarget { plan, form: LayerForm::Whole })
    }

    fn candidates(&self, id: &LayerId) -> Result<Candidates> {
        let window = window::read(self.layout.windows(), id)
            .map_err(|error| Error::from_io(error, "read the time of the copy"))?;
        Ok(Candidates::All { untouched: Some(window) })
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        tree_usage(self.layout.open_tree(id)?, &self.layout.tree(id))
    }

    fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        self.layout.open_tree(id)?;
        let path = self.layout.tree(id).display().to_string();
        Ok(BTreeMap::from([("Dir".to_owned(), path)]))
    }
}
