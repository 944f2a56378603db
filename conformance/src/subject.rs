//! What the cases talk to: the front's methods as a trait, so that the suite's own test can put something broken
//! in the front's place.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::Path;

use layerstack_core::apply::Applied;
use layerstack_core::capability::Capabilities;
use layerstack_core::diff::{Change, DiffSummary};
use layerstack_core::driver::Usage;
use layerstack_core::layers::{Base, Finding, MountInfo, MountRequest, Recovered, Status, View};
use layerstack_core::mount::{Access, MountPlan};
use layerstack_core::options::Options;
use layerstack_core::{Layer, LayerId, Result};

/// An open root, with the methods of [`Layers`](layerstack_core::Layers), which says what they mean.
#[expect(missing_docs, reason = "each method is the one of the same name of `Layers`")]
#[expect(clippy::missing_errors_doc, reason = "each method is the one of the same name of `Layers`")]
pub trait Subject: Send + Sync + fmt::Debug {
    fn root(&self) -> &Path;
    fn home(&self) -> &Path;
    fn driver_name(&self) -> &'static str;
    fn capabilities(&self) -> &Capabilities;
    fn recovered(&self) -> &[Recovered];
    fn status(&self) -> Result<Status>;
    fn id(&self, text: &str) -> Result<LayerId>;
    fn create(&self, id: &LayerId, parent: Option<&LayerId>, options: &Options) -> Result<()>;
    fn seal(&self, id: &LayerId) -> Result<()>;
    fn apply(&self, id: &LayerId, tar: &mut dyn Read) -> Result<Applied>;
    fn import(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        tar: &mut dyn Read,
        verify: &mut Verify<'_>,
    ) -> Result<Applied>;
    fn remove(&self, id: &LayerId) -> Result<()>;
    fn layer(&self, id: &LayerId) -> Result<Layer>;
    fn contains(&self, id: &LayerId) -> Result<bool>;
    fn list(&self) -> Result<Vec<LayerId>>;
    fn chain(&self, id: &LayerId) -> Result<Vec<LayerId>>;
    fn children(&self, id: &LayerId) -> Result<Vec<LayerId>>;
    fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan>;
    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<Box<dyn Mounted + '_>>;
    fn mounts(&self, id: Option<&LayerId>) -> Result<Vec<MountInfo>>;
    fn unmount(&self, id: &LayerId, target: Option<&Path>) -> Result<()>;
    fn changes(&self, id: &LayerId, base: Base<'_>) -> Result<Vec<Change>>;
    fn diff(&self, id: &LayerId, base: Base<'_>, out: &mut dyn Write) -> Result<DiffSummary>;
    fn tree(&self, id: &LayerId) -> Result<View<'_>>;
    fn usage(&self, id: &LayerId) -> Result<Usage>;
    fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>>;
    fn check(&self) -> Result<Vec<Finding>>;
}

/// What [`Subject::import`] calls before the layer becomes visible: `Layers::import_verified`.
pub type Verify<'a> = dyn FnMut(&Applied) -> Result<()> + 'a;

/// A mount that [`Subject::mount`] made; dropping it unmounts, unless it was asked to be persistent.
pub trait Mounted: Send + fmt::Debug {
    /// Where the layer's tree is.
    fn target(&self) -> &Path;

    /// Unmounts and says how that went.
    ///
    /// # Errors
    /// As `Mount::unmount` of core.
    fn unmount(self: Box<Self>) -> Result<()>;
}
