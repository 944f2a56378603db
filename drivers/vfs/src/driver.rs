//! The driver.

use std::collections::BTreeMap;
use std::path::Path;

use layerstack_core::capability::Capabilities;
use layerstack_core::driver::{ApplyTarget, Candidates, Driver, FoundLayer, LayerForm, NewLayer, Usage};
use layerstack_core::fs::{FileSystemType, Reflink, copy_tree, sync_file_system, tree_usage};
use layerstack_core::mount::{Access, MountPlan};
use layerstack_core::registry::OpenRequest;
use layerstack_core::{Error, ErrorKind, LayerId, Result, kill_point};
use rustix::fs::Mode;

use crate::layout::Layout;
use crate::window::{self, Marker};
use crate::{options, probe};

/// The driver's name.
pub(crate) const NAME: &str = "vfs";

/// The driver, opened on a home.
#[derive(Debug)]
pub struct Vfs {
    layout: Layout,
    reflink: Reflink,
    capabilities: Capabilities,
}

/// Opens a home, making it where it is absent.
pub(crate) fn open(request: &OpenRequest<'_>) -> Result<Box<dyn Driver>> {
    let reflink = options::reflink(request.options)?;
    let layout = Layout::open(request.home)?;
    let capabilities = probe::capabilities(request.home, reflink)?;
    Ok(Box::new(Vfs { layout, reflink, capabilities }))
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

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        let id = layer.id;
        let tree = self.layout.stage(id)?;
        kill_point!("vfs.create.staged");
        if let Some(parent) = layer.parent {
            let path = self.layout.tree(parent);
            let parent = self.layout.open_tree(parent)?;
            let note = |error| Error::from_io(error, "note the time of the copy");
            let marker = Marker::begin(self.layout.windows(), id).map_err(|errno| note(errno.into()))?;
            copy_tree(&parent, &tree, &path, self.reflink)?;
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
        if !self.layout.remove_mount_point(id)? {
            return Err(Error::new(ErrorKind::InUse, "is mounted").with_path(self.layout.mount_point(id)));
        }
        // What an interrupted call left has the name that the tree is about to get.
        self.layout.remove_staged(id)?;
        self.layout.withdraw(id)?;
        kill_point!("vfs.remove.withdrawn");
        window::remove(self.layout.windows(), id)
            .map_err(|errno| Error::from_errno(errno, "forget the time of the copy"))?;
        self.layout.remove_staged(id)
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
        self.layout.make_mount_point(id)?;
        Ok(MountPlan::bind(self.layout.tree(id), access, self.layout.mount_point(id)))
    }

    fn unmounted(&self, id: &LayerId) -> Result<()> {
        // A sealed layer may be mounted there a second time.
        self.layout.remove_mount_point(id).map(drop)
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
