//! The front that engines call: one root, one driver, and the semantics that are the same for every driver.
//!
//! [`Layers`] checks ids, parents, options and states, keeps the records, holds the locks between threads and
//! processes, attaches and finds mounts, and mends on open what a kill or a power loss left. The driver does the
//! rest.

mod check;
mod config;
mod content;
mod create;
mod docker;
mod lifecycle;
mod mount_entries;
mod mounts;
mod record;
mod records;
mod recover;
mod select;
mod status;
mod writeback;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use check::Finding;
pub use config::{CORE_OPTIONS, Config, Durability};
pub use content::{Base, View};
pub use mounts::{Mount, MountInfo, MountRequest};
pub use record::{Layer, LayerState};
pub use recover::Recovered;
pub use status::Status;

use crate::capability::Capabilities;
use crate::driver::{Driver, Usage};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::mount::{Access, MountPlan};
use crate::registry::{OpenRequest, Registration, Registry};
use records::Records;

/// One root, opened with one driver. All methods can be called from several threads; several processes can have the
/// same root open.
#[derive(Debug)]
pub struct Layers {
    root: PathBuf,
    registration: &'static Registration,
    driver: Box<dyn Driver>,
    records: Records,
    durability: Durability,
    recovered: Vec<Recovered>,
}

impl Layers {
    /// Opens a root, making it where it is absent, and mends what a kill or a power loss left there.
    ///
    /// The driver is the one that `config` names; else the one already used in this root; else the first that works
    /// here, in the order of the registrations' ranks. Its home is `<root>/<name>`. A home without records, as Docker
    /// leaves it, is adopted.
    ///
    /// # Errors
    /// `NotFound` for a driver that is not compiled in; `InvalidInput` for an unknown option, or where the root has
    /// layers of several drivers and `config` names none; `Unavailable` where no driver works, with each one's reason.
    pub fn open(root: &Path, registry: &Registry, config: &Config) -> Result<Self> {
        let root = std::path::absolute(root)
            .map_err(|error| Error::from_io(error, "find the root").with_path(root))?;
        let registration =
            select::select(&root, registry, config).map_err(|error| error.with_operation("open"))?;
        let context = |error: Error| error.with_operation("open").with_driver(registration.name);
        let (durability, options) = config.split(registration.options, registration.name).map_err(context)?;
        let home = root.join(registration.name);
        let request = OpenRequest::new(&home, &options);
        (registration.probe)(&request).map_err(context)?;
        let records_path = records::directory(&root, registration.name);
        make_directories(&records_path).map_err(context)?;
        let driver = (registration.open)(&request).map_err(context)?;
        let records = Records::open(records_path).map_err(context)?;
        let mut layers = Self { root, registration, driver, records, durability, recovered: Vec::new() };
        layers.recovered = layers.recover().map_err(context)?;
        Ok(layers)
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The driver's home, laid out as Docker's.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.driver.home()
    }

    /// The driver's name.
    #[must_use]
    pub fn driver_name(&self) -> &'static str {
        self.registration.name
    }

    /// What the driver can do here.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        self.driver.capabilities()
    }

    /// What opening the root found and mended.
    #[must_use]
    pub fn recovered(&self) -> &[Recovered] {
        &self.recovered
    }

    /// A layer's record.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn layer(&self, id: &LayerId) -> Result<Layer> {
        self.records.read(id).map_err(|error| self.context(error, "look up", id))
    }

    /// Whether there is such a layer.
    ///
    /// # Errors
    /// Where the records cannot be read.
    pub fn contains(&self, id: &LayerId) -> Result<bool> {
        self.records.contains(id).map_err(|error| self.context(error, "look up", id))
    }

    /// All layers, sorted by id.
    ///
    /// # Errors
    /// Where the records cannot be read.
    pub fn list(&self) -> Result<Vec<LayerId>> {
        let mut ids = self
            .records
            .list()
            .map_err(|error| error.with_operation("list").with_driver(self.driver_name()))?;
        ids.sort();
        Ok(ids)
    }

    /// A layer, its parent, its parent's parent and so on to the base.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn chain(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        let mut chain = Vec::new();
        let mut next = Some(id.clone());
        while let Some(id) = next {
            next = self.layer(&id)?.parent;
            chain.push(id);
        }
        Ok(chain)
    }

    /// The layers that stand directly on a layer, sorted by id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn children(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        let found = self.layer(id).and_then(|_| {
            let mut children = Vec::new();
            for child in self.records.children(id)? {
                if self.records.contains(&child)? {
                    children.push(child);
                }
            }
            children.sort();
            Ok(children)
        });
        found.map_err(|error| self.context(error, "list the children of", id))
    }

    /// What core would mount for a layer: to print, or to hand to a runtime that mounts itself. Mounts nothing.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for a writable mount of a sealed layer.
    pub fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan> {
        let plan = self.records.hold(id).and_then(|held| {
            mounts::check_access(&held.layer, Some(access))?;
            self.driver.mount_plan(id, access)
        });
        plan.map_err(|error| self.context(error, "plan the mount of", id))
    }

    /// What a layer occupies.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn usage(&self, id: &LayerId) -> Result<Usage> {
        let usage = self.records.hold(id).and_then(|_held| self.driver.usage(id));
        usage.map_err(|error| self.context(error, "measure", id))
    }

    /// Where a layer's pieces are, under the names that Docker's `GraphDriver.Data` has.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let found = self.records.hold(id).and_then(|_held| self.driver.inspect(id));
        found.map_err(|error| self.context(error, "inspect", id))
    }

    fn durable(&self) -> bool {
        self.durability == Durability::AtSeal
    }

    fn context(&self, error: Error, operation: &'static str, id: &LayerId) -> Error {
        self.explain(error).with_operation(operation).with_layer(id).with_driver(self.driver_name())
    }

    /// Where there was no space, says why if the driver knows.
    fn explain(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::NoSpace => error.with_reason(|| self.driver.why_full()),
            _ => error,
        }
    }
}

/// Makes the directories down to `path` that are missing, 0700 like all that can hold a layer.
fn make_directories(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::from_io(error, "make the directory").with_path(path))
}
