//! The driver.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use layerstack_core::capability::{Capabilities, Feature, QuotaKind};
use layerstack_core::driver::{
    ApplyTarget, Candidates, CtimeWindow, Driver, FoundLayer, LayerForm, NewLayer, Usage,
};
use layerstack_core::mount::{Access, MountPlan, remove_target};
use layerstack_core::registry::OpenRequest;
use layerstack_core::tree::Tree;
use layerstack_core::{Error, ErrorKind, LayerId, Result, kill_point};
use rustix::io::Errno;

use crate::base::{self, Base};
use crate::gate::Gate;
use crate::inodes::{self, Device};
use crate::layout::{DeviceMetadata, Layout, deleted_key, key_of};
use crate::options::{self, FileSystem, Settings};
use crate::pool::Pool;
use crate::{candidates, file_system, probe, status, sys, transaction};

/// The driver's name.
pub const NAME: &str = "devicemapper";

layerstack_core::register_driver! {
    name: NAME,
    summary: "thin snapshots of block devices, each with a file system of its own",
    rank: 50,
    options: options::DRIVER,
    layer_options: options::LAYER,
    probe: probe::probe,
    open: |request| Ok(Box::new(Devicemapper::open(request)?)),
}

/// A home of this driver, opened.
#[derive(Debug)]
pub struct Devicemapper {
    layout: Layout,
    settings: Settings,
    gate: Gate,
    pool: Pool,
    base: Base,
    capabilities: Capabilities,
    /// The layers that this process was given plans for to write to.
    written: Mutex<HashSet<LayerId>>,
}

impl Devicemapper {
    /// Opens a home, making it where it is absent, and takes back what was interrupted in it.
    ///
    /// # Errors
    /// `InvalidInput` for an option's value or a device that holds something else; `Unavailable` where the host lacks
    /// something; `NoSpace`; `Corrupt` where the pool is not the one that the home knows.
    pub fn open(request: &OpenRequest<'_>) -> Result<Self> {
        let settings = Settings::parse(request.options)?;
        let layout = Layout::open(request.home)?;
        let gate = Gate::default();
        let (pool, base) = {
            let _passage = gate.pass(&layout)?;
            let pool = Pool::open(&layout, &settings)?;
            pool.remove_idle_devices()?;
            base::refuse_other_pool(&layout, &pool)?;
            transaction::settle(&layout, &pool)?;
            transaction::delete_marked(&layout, &pool)?;
            pool.grow()?;
            let base = base::open(&layout, &pool, &settings)?;
            (pool, base)
        };
        let mut capabilities = Capabilities::none("every layer is a file system of its own");
        capabilities.native_diff = Feature::Yes;
        capabilities.fork_live =
            Feature::no("a file system that is written to meanwhile is of no one moment");
        capabilities.shares_blocks = Feature::Yes;
        capabilities.quota = Feature::Yes;
        capabilities.quota_kind = Some(QuotaKind::FileSystem);
        capabilities.usage_without_walk = Feature::Yes;
        let written = Mutex::default();
        Ok(Self { layout, settings, gate, pool, base, capabilities, written })
    }

    fn written(&self) -> MutexGuard<'_, HashSet<LayerId>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to mount for a layer; the plan keeps its device.
    fn plan(&self, id: &LayerId, access: Access) -> Result<MountPlan> {
        let device = self.layout.layer(id)?;
        let active = {
            let _passage = self.gate.pass(&self.layout)?;
            self.pool.activate(&key_of(id), &device)?
        };
        let target = self.layout.mount_point(id);
        Ok(file_system::plan(active, self.base.file_system, &self.settings, access, target))
    }

    /// The tree of a layer to look at, and whether the layer is mounted and can change meanwhile.
    fn look(&self, id: &LayerId) -> Result<(Tree, bool)> {
        match Tree::open(&self.plan(id, Access::ReadOnly)?) {
            // A file system that is mounted to be written to cannot be mounted read-only as well.
            Err(error) if error.kind() == ErrorKind::InUse => {
                Ok((Tree::open(&self.plan(id, Access::ReadWrite)?)?, true))
            }
            tree => Ok((tree?, false)),
        }
    }

    /// The device that a layer's is a snapshot of.
    fn origin(&self, parent: Option<&LayerId>) -> Result<DeviceMetadata> {
        parent.map_or_else(|| Ok(self.base.device.clone()), |parent| self.layout.layer(parent))
    }

    /// The blocks in which a layer differs from what it was made of.
    fn differing_blocks(&self, device: &DeviceMetadata) -> Result<Vec<u64>> {
        let origin = self.origin(device.parent.as_ref())?;
        let _passage = self.gate.pass(&self.layout)?;
        self.pool.with_metadata(|metadata| metadata.differences(device.device_id, origin.device_id))
    }

    /// The size of a new layer, in bytes.
    fn size(&self, layer: &NewLayer<'_>, origin: &DeviceMetadata) -> Result<u64> {
        let size = match layer.options.size("size")? {
            // As with other drivers, no size of its own.
            None | Some(0) => return Ok(origin.size),
            Some(size) => size,
        };
        if size < origin.size {
            let message = format!(
                "option \"size\" is {size} bytes, less than the {} of what the layer starts from; file systems do not shrink",
                origin.size
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let block = self.pool.block_size();
        size.div_ceil(block).checked_mul(block).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "option \"size\" is more than any file system can have")
        })
    }

    /// Gives a device's blocks back to what the pool lies on. It has lost its name already.
    fn discard(&self, device: &DeviceMetadata) -> Result<()> {
        let key = deleted_key(device.device_id);
        let active = {
            let _passage = self.gate.pass(&self.layout)?;
            self.pool.activate(&key, device)?
        };
        let writable = File::options().write(true).open(&active.path);
        let fail = |error| Error::from_io(error, "discard the blocks of").with_path(&active.path);
        let discarded = sys::discard(&writable.map_err(fail)?, 0, device.size);
        drop(active);
        self.pool.deactivate(&key, device)?;
        match discarded {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(Error::from_errno(errno, "discard a device's blocks")),
        }
    }

    /// Removes a device that nobody uses, where the kernel does not do it by itself.
    fn put_away(&self, id: &LayerId, device: &DeviceMetadata) -> Result<()> {
        if !self.settings.deferred_removal {
            let name = self.pool.device_name(&key_of(id), device);
            self.pool.mapper().try_remove(&name)?;
        }
        Ok(())
    }

    /// The inodes that differ, found in the blocks that do. None where they cannot be found that way.
    fn changed_inodes(
        &self,
        id: &LayerId,
        device: &DeviceMetadata,
        blocks: &[u64],
    ) -> Result<Option<inodes::Changed>> {
        let origin = self.origin(device.parent.as_ref())?;
        let (layer, parent) = {
            let _passage = self.gate.pass(&self.layout)?;
            let parent = match &device.parent {
                Some(parent) => self.pool.activate(&key_of(parent), &origin)?,
                None => return Ok(None),
            };
            (self.pool.activate(&key_of(id), device)?, parent)
        };
        let (layer, parent) = (Device::open(&layer.path)?, Device::open(&parent.path)?);
        inodes::changed(self.base.file_system, &layer, &parent, blocks, self.pool.block_size())
    }

    /// Has all that was written to a mounted layer lie where it belongs. False where that cannot be had.
    fn settle_on_device(&self, tree: &Tree) -> Result<bool> {
        if self.base.file_system != FileSystem::Ext4 {
            return Ok(false);
        }
        rustix::fs::syncfs(tree.root()).map_err(|errno| Error::from_errno(errno, "flush the layer"))?;
        match sys::checkpoint_ext4(tree.root()) {
            Ok(()) => Ok(true),
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::ROFS) => Ok(false),
            Err(errno) => Err(Error::from_errno(errno, "empty the layer's journal")),
        }
    }
}

impl Driver for Devicemapper {
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
        status::pairs(&self.layout, &self.pool, &self.base, &self.settings)
    }

    fn why_full(&self) -> Option<String> {
        self.pool.status().ok().and_then(|status| self.pool.lack(&status).ok()?)
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        let id = layer.id;
        let origin = self.origin(layer.parent)?;
        let size = self.size(layer, &origin)?;
        let device = {
            let _passage = self.gate.pass(&self.layout)?;
            self.pool.check_room()?;
            transaction::make(
                &self.layout,
                &self.pool,
                &key_of(id),
                Some(origin.device_id),
                size,
                layer.parent,
            )?
        };
        kill_point!("devicemapper.create.made");
        if size > origin.size {
            file_system::grow(self.plan(id, Access::ReadWrite)?, self.base.file_system, size)?;
            self.put_away(id, &device)?;
        }
        Ok(())
    }

    fn seal(&self, id: &LayerId, durable: bool) -> Result<()> {
        if !durable {
            return Ok(());
        }
        // What the device's files say was made durable when it was made. Its blocks, and that they are its blocks, are
        // flushed through the device.
        let device = self.layout.layer(id)?;
        let active = {
            let _passage = self.gate.pass(&self.layout)?;
            self.pool.activate(&key_of(id), &device)?
        };
        rustix::fs::fsync(&active.file)
            .map_err(|errno| Error::from_errno(errno, "flush the device").with_path(&active.path))?;
        drop(active);
        self.put_away(id, &device)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        remove_target(&self.layout.mount_point(id))?;
        let key = key_of(id);
        let device = {
            let _passage = self.gate.pass(&self.layout)?;
            transaction::settle(&self.layout, &self.pool)?;
            let Some(device) = self.layout.device(&key)? else { return Ok(()) };
            let idle = self.pool.deactivate(&key, &device)?;
            if !idle && !self.settings.deferred_deletion {
                return Err(Error::new(ErrorKind::InUse, "the layer's device is still open"));
            }
            self.layout.mark_deleted(&key, device.device_id)?;
            kill_point!("devicemapper.remove.marked");
            if !idle {
                // When it is no longer in use, the next that opens the home deletes it.
                return Ok(());
            }
            device
        };
        if self.settings.discard
            && let Err(error) = self.discard(&device)
        {
            // The pool has the blocks again all the same.
            tracing::warn!(layer = %id, ?error, "the space of a removed layer could not be given back");
        }
        kill_point!("devicemapper.remove.discarded");
        let _passage = self.gate.pass(&self.layout)?;
        transaction::delete(&self.layout, &self.pool, device.device_id).map(drop)
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        self.layout.layers()
    }

    fn find(&self, id: &LayerId) -> Result<Option<FoundLayer>> {
        let Some(device) = self.layout.device(&key_of(id))? else { return Ok(None) };
        Ok(Some(FoundLayer { parent: device.parent, sealed: None }))
    }

    fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan> {
        if access == Access::ReadWrite {
            self.written().insert(id.clone());
        }
        self.plan(id, access)
    }

    fn unmounted(&self, id: &LayerId) -> Result<()> {
        if let Some(device) = self.layout.device(&key_of(id))? {
            self.put_away(id, &device)?;
        }
        // The file system says no more than that something could not be written.
        if self.written().remove(id) && self.pool.status()?.is_full {
            let message = format!("the pool {} is full: what was written last is lost", self.pool.name());
            return Err(Error::new(ErrorKind::NoSpace, message));
        }
        Ok(())
    }

    fn apply_target(&self, id: &LayerId) -> Result<ApplyTarget> {
        {
            let _passage = self.gate.pass(&self.layout)?;
            self.pool.check_room()?;
        }
        Ok(ApplyTarget { plan: self.mount_plan(id, Access::ReadWrite)?, form: LayerForm::Whole })
    }

    fn candidates(&self, id: &LayerId) -> Result<Candidates> {
        let everything = Candidates::All { untouched: Some(CtimeWindow::NEVER) };
        let device = self.layout.layer(id)?;
        let Some(parent) = &device.parent else { return Ok(everything) };
        // The first mount after a power loss writes what the journal has to where it belongs.
        let (tree, live) = self.look(id)?;
        if live && !self.settle_on_device(&tree)? {
            return Ok(everything);
        }
        let blocks = self.differing_blocks(&device)?;
        let changed = if blocks.is_empty() {
            Some(inodes::Changed::new())
        } else {
            self.changed_inodes(id, &device, &blocks)?
        };
        let Some(changed) = changed else { return Ok(everything) };
        let found = if changed.is_empty() {
            Vec::new()
        } else {
            candidates::paths(&tree, &self.look(parent)?.0, &changed, live)?
        };
        drop(tree);
        self.put_away(id, &device)?;
        Ok(Candidates::Paths(Box::new(found.into_iter().map(Ok))))
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        let device = self.layout.layer(id)?;
        let own = self.differing_blocks(&device)?.len() as u64 * self.pool.block_size();
        let (tree, _) = self.look(id)?;
        let found = rustix::fs::fstatvfs(tree.root())
            .map_err(|errno| Error::from_errno(errno, "ask for the layer's free space"))?;
        drop(tree);
        self.put_away(id, &device)?;
        let used = (found.f_blocks - found.f_bfree) * found.f_frsize;
        // Those that every such file system has: ext4's first eleven, xfs' root and its two for real-time devices.
        let reserved = match self.base.file_system {
            FileSystem::Ext4 => 11,
            FileSystem::Xfs => 3,
        };
        let inodes = (found.f_files - found.f_ffree).saturating_sub(reserved);
        Ok(Usage::new(used.min(own), inodes).with_exclusive(own))
    }

    fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let device = self.layout.layer(id)?;
        {
            let _passage = self.gate.pass(&self.layout)?;
            let found = self.pool.with_metadata(|metadata| metadata.details(device.device_id))?;
            if found.is_none() {
                let message = format!("the pool {} has no device {}", self.pool.name(), device.device_id);
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
        }
        Ok(BTreeMap::from([
            ("DeviceId".to_owned(), device.device_id.to_string()),
            ("DeviceSize".to_owned(), device.size.to_string()),
            ("DeviceName".to_owned(), self.pool.device_name(&key_of(id), &device)),
        ]))
    }
}
