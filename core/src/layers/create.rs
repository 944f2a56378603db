//! Making and filling layers.

use std::time::{SystemTime, UNIX_EPOCH};

use super::records::{Guard, Pending};
use super::{Layer, LayerState, Layers};
use crate::driver::NewLayer;
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::options::Options;

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
            self.records.finish(pending)?;
            crate::kill_point!("layers.create.visible");
            Ok(())
        };
        create().map_err(|error| self.context(error, "create", id))
    }

    /// Checks what is asked for, notes the layer as pending and has the driver make it.
    fn make(&self, id: &LayerId, parent: Option<&LayerId>, options: &Options) -> Result<Pending> {
        let pending = {
            let guard = self.records.lock()?;
            self.settle(id, &guard)?;
            if self.records.contains(id)? {
                return Err(Error::new(ErrorKind::AlreadyExists, "a layer with this id exists"));
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

    /// Does `work` on a pending layer; where it fails, nothing of the layer is left.
    pub(super) fn or_undo<T>(
        &self,
        pending: Pending,
        work: impl FnOnce(&Layer) -> Result<T>,
    ) -> Result<(Pending, T)> {
        match work(&pending.layer) {
            Ok(done) => Ok((pending, done)),
            Err(error) => {
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
