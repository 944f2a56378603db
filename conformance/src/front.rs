//! The front of core as the subject of the suite.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use layerstack_core::apply::{Applied, ApplyRequest};
use layerstack_core::capability::Capabilities;
use layerstack_core::diff::{Change, DiffSummary};
use layerstack_core::driver::Usage;
use layerstack_core::layers::{Base, Finding, MountInfo, MountRequest, Recovered, Status, View};
use layerstack_core::mount::{Access, MountPlan};
use layerstack_core::options::Options;
use layerstack_core::{Layer, LayerId, Layers, Result};

use crate::subject::{Mounted, Subject, Verify};

impl Subject for Layers {
    fn root(&self) -> &Path {
        self.root()
    }

    fn home(&self) -> &Path {
        self.home()
    }

    fn driver_name(&self) -> &'static str {
        self.driver_name()
    }

    fn capabilities(&self) -> &Capabilities {
        self.capabilities()
    }

    fn recovered(&self) -> &[Recovered] {
        self.recovered()
    }

    fn status(&self) -> Result<Status> {
        self.status()
    }

    fn id(&self, text: &str) -> Result<LayerId> {
        LayerId::new(text)
    }

    fn create(&self, id: &LayerId, parent: Option<&LayerId>, options: &Options) -> Result<()> {
        self.create(id, parent, options)
    }

    fn seal(&self, id: &LayerId) -> Result<()> {
        self.seal(id)
    }

    fn apply(&self, id: &LayerId, tar: &mut dyn Read) -> Result<Applied> {
        self.apply(id, tar, ApplyRequest::default())
    }

    fn import(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        tar: &mut dyn Read,
        verify: &mut Verify<'_>,
    ) -> Result<Applied> {
        self.import_verified(id, parent, &Options::new(), tar, ApplyRequest::default(), verify)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        self.remove(id)
    }

    fn layer(&self, id: &LayerId) -> Result<Layer> {
        self.layer(id)
    }

    fn contains(&self, id: &LayerId) -> Result<bool> {
        self.contains(id)
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        self.list()
    }

    fn chain(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        self.chain(id)
    }

    fn children(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        self.children(id)
    }

    fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan> {
        self.mount_plan(id, access)
    }

    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<Box<dyn Mounted + '_>> {
        Ok(Box::new(self.mount(id, request)?))
    }

    fn mounts(&self, id: Option<&LayerId>) -> Result<Vec<MountInfo>> {
        self.mounts(id)
    }

    fn unmount(&self, id: &LayerId, target: Option<&Path>) -> Result<()> {
        self.unmount(id, target)
    }

    fn changes(&self, id: &LayerId, base: Base<'_>) -> Result<Vec<Change>> {
        self.changes(id, base)
    }

    fn diff(&self, id: &LayerId, base: Base<'_>, out: &mut dyn Write) -> Result<DiffSummary> {
        self.diff(id, base, out)
    }

    fn tree(&self, id: &LayerId) -> Result<View<'_>> {
        self.tree(id)
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        self.usage(id)
    }

    fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        self.inspect(id)
    }

    fn check(&self) -> Result<Vec<Finding>> {
        self.check()
    }
}

impl Mounted for layerstack_core::layers::Mount<'_> {
    fn target(&self) -> &Path {
        self.target()
    }

    fn unmount(self: Box<Self>) -> Result<()> {
        (*self).unmount()
    }
}
