//! Making and filling layers.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use super::records::{Guard, Pending};
use super::{Layer, LayerState, Layers, writeback};
use crate::apply::{Applied, ApplyRequest};
use crate::capability::QuotaKind;
use crate::driver::NewLayer;
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::options::Options;
use crate::tree::Tree;

impl Layers {
    /// Makes a writable layer whose tree equals its parent's; an empty one without a parent.
    ///
    /// # Errors
    /// In this order: `AlreadyExists` (what has the id is untouched), `NotFound` for the parent, `NotSealed` for a parent
    /// that is still writable unless the driver declares `fork_live`, `Unsupported` past the driver's longest chain,
    /// `InvalidInput` for an unknown option or a bad value, `NoSpace`. After an error nothing is left.
    pub fn create(&self, id: &LayerId, parent: Option<&LayerId>, options: &Options) -> Result<()> {
        let create = || {
            let pending = self.make(id, parent, options)?;
            self.records.finish(pending, &self.records.lock()?)?;
            crate::kill_point!("layers.create.visible");
            Ok(())
        };
        create().map_err(|error| self.context(error, "create", id))
    }

    /// Makes a layer, fills it from a tar, and seals it: visible in one step, or not at all.
    ///
    /// # Errors
    /// As [`Layers::create`] and [`Layers::apply`].
    pub fn import(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        options: &Options,
        tar: &mut dyn Read,
        request: ApplyRequest<'_>,
    ) -> Result<Applied> {
        self.import_verified(id, parent, options, tar, request, &mut |_| Ok(()))
    }

    /// As [`Layers::import`]; `verify` has the last word before the layer becomes visible, for instance on a digest
    /// that is known only when the tar has been read to its end.
    ///
    /// # Errors
    /// As [`Layers::import`], and what `verify` gives.
    pub fn import_verified(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        options: &Options,
        tar: &mut dyn Read,
        request: ApplyRequest<'_>,
        verify: &mut dyn FnMut(&Applied) -> Result<()>,
    ) -> Result<Applied> {
        let import = || {
            let pending = self.make(id, parent, options)?;
            let (pending, applied) = self.or_undo(pending, |layer| {
                let applied = self.unpack(layer, tar, request, self.durable())?;
                crate::kill_point!("layers.import.applied");
                verify(&applied)?;
                self.driver.seal(id, self.durable())?;
                Ok(applied)
            })?;
            crate::kill_point!("layers.import.sealed");
            self.records.finish_sealed(pending, self.durable())?;
            crate::kill_point!("layers.import.visible");
            Ok(applied)
        };
        import().map_err(|error| self.context(error, "import", id))
    }

    /// Unpacks a layer tar into a writable layer. The tar is treated as hostile; see [`crate::apply`].
    ///
    /// Until it is done the layer is out of sight; after an error it is absent.
    ///
    /// # Errors
    /// `NotFound`; `InUse` where it is mounted; `InvalidInput` where it is sealed, or for an entry that cannot be
    /// applied, which is named; `HasChildren`; `NoSpace`; `QuotaExceeded`.
    pub fn apply(&self, id: &LayerId, tar: &mut dyn Read, request: ApplyRequest<'_>) -> Result<Applied> {
        let apply = || {
            let pending = {
                let guard = self.records.lock()?;
                self.settle(id, &guard)?;
                let held = self.records.hold_alone(id)?;
                if held.layer.state != LayerState::Writable {
                    return Err(Error::new(ErrorKind::InvalidInput, "the layer is not writable"));
                }
                self.refuse_mounted(&held.layer, &guard)?;
                self.records.refuse_children(id, &guard)?;
                self.records.withdraw(held, &guard)?
            };
            crate::kill_point!("layers.apply.withdrawn");
            let (pending, applied) =
                self.or_undo(pending, |layer| self.unpack(layer, tar, request, false))?;
            crate::kill_point!("layers.apply.applied");
            self.records.finish(pending, &self.records.lock()?)?;
            Ok(applied)
        };
        apply().map_err(|error| self.context(error, "apply to", id))
    }

    /// Checks what is asked for, notes the layer as pending and has the driver make it.
    fn make(&self, id: &LayerId, parent: Option<&LayerId>, options: &Options) -> Result<Pending> {
        let pending = {
            let guard = self.records.lock()?;
            self.settle(id, &guard)?;
            if self.records.contains(id)? {
                return Err(Error::new(ErrorKind::AlreadyExists, "a layer with this id exists"));
            }
            if self.recovered.iter().any(|found| found.is_unusable(id)) {
                let message = "something that is no usable layer has this name in the driver's home";
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            let depth = self.depth_on(parent)?;
            let whose = format!("a layer of driver {}", self.driver_name());
            options.check_known(self.registration.layer_options, &whose)?;
            let layer = Layer {
                id: id.clone(),
                parent: parent.cloned(),
                state: LayerState::Writable,
                depth,
                options: options.clone(),
                created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            };
            self.records.begin(layer, &guard)?
        };
        crate::kill_point!("layers.create.pending");
        let (pending, ()) = self.or_undo(pending, |layer| {
            self.driver.create(&NewLayer::new(&layer.id, layer.parent.as_ref(), &layer.options))
        })?;
        crate::kill_point!("layers.create.made");
        Ok(pending)
    }

    /// The depth of a new layer on `parent`, which must exist and be one that a layer can stand on.
    fn depth_on(&self, parent: Option<&LayerId>) -> Result<u32> {
        let Some(parent) = parent else { return Ok(1) };
        let capabilities = self.driver.capabilities();
        let found = self.records.read(parent).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("no such parent: {parent}")),
            _ => error,
        })?;
        if found.state != LayerState::Sealed && !capabilities.fork_live.offered() {
            return Err(Error::new(ErrorKind::NotSealed, format!("the parent {parent} is not sealed")));
        }
        let depth = found.depth + 1;
        match capabilities.max_depth {
            Some(most) if depth > most => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the chain would have {depth} layers, and {} takes at most {most} here",
                    self.driver_name()
                ),
            )),
            _ => Ok(depth),
        }
    }

    /// Unpacks a tar into a pending layer; where that is to be sealed durably afterwards, the flush begins meanwhile.
    fn unpack(
        &self,
        layer: &Layer,
        tar: &mut dyn Read,
        request: ApplyRequest<'_>,
        flush: bool,
    ) -> Result<Applied> {
        let target = self.driver.apply_target(&layer.id)?;
        let tree = Tree::open(&target.plan)?;
        let mut parent = || match &layer.parent {
            Some(parent) => Ok(self.view(parent)?.into_tree()),
            None => Ok(None),
        };
        let apply =
            |tar: &mut dyn Read| crate::apply::apply(tree.root(), target.form, &mut parent, tar, request);
        let fill = || if flush { writeback::while_filling(tree.root(), tar, apply) } else { apply(tar) };
        let mut applied = match self.driver.capabilities().quota_kind {
            Some(QuotaKind::Added | QuotaKind::Whole) => {
                let home = self.root.join(self.registration.name);
                crate::quota::within_limit(tree.root(), &home, fill)
            }
            // A file system of its own is full for everybody.
            Some(QuotaKind::FileSystem) | None => fill(),
        };
        // What finds no room only when it is written back is lost without a word by an unmount.
        if applied.is_ok()
            && target.plan.is_on_device()
            && let Err(errno) = rustix::fs::syncfs(tree.root())
        {
            applied = Err(Error::from_errno(errno, "flush what was unpacked"));
        }
        drop(tree);
        if !target.plan.is_bind() {
            self.driver.unmounted(&layer.id)?;
        }
        applied
    }

    /// Does `work` on a pending layer; where it fails, nothing of the layer is left.
    pub(super) fn or_undo<T>(
        &self,
        pending: Pending,
        work: impl FnOnce(&Layer) -> Result<T>,
    ) -> Result<(Pending, T)> {
        match work(&pending.layer) {
            Ok(done) => Ok((pending, done)),
            Err(error) => {
                // Before what fills the store goes.
                let error = self.explain(error);
                // What cannot be removed now stays pending and is removed when the root is next opened.
                if let Err(left) = self.discard(&pending) {
                    tracing::warn!(layer = %pending.layer.id, error = ?left, "a failed layer could not be removed yet");
                }
                Err(error)
            }
        }
    }

    /// Removes whatever there is of a pending layer, then its record.
    pub(super) fn discard(&self, pending: &Pending) -> Result<()> {
        self.driver.remove(&pending.layer.id)?;
        crate::kill_point!("layers.remove.removed");
        self.records.forget(&pending.layer.id, pending.layer.parent.as_ref())
    }

    /// Makes sure that no half-made layer of this id is in the way: one whose process is dead is removed, one that
    /// another process works on is an error.
    pub(super) fn settle(&self, id: &LayerId, guard: &Guard<'_>) -> Result<()> {
        if !self.records.is_pending(id)? {
            return Ok(());
        }
        match self.records.take_over(id, guard)? {
            Some(pending) => self.discard(&pending),
            // Either at work, or done since.
            None if self.records.is_pending(id)? => {
                Err(Error::new(ErrorKind::InUse, "another operation is making or removing the layer"))
            }
            None => Ok(()),
        }
    }
}
