//! Sealing and removing layers.

use super::{LayerState, Layers};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;

impl Layers {
    /// Seals a layer: it never changes again, and other layers can stand on it. Unless the root was opened with
    /// [`Durability::Never`](super::Durability::Never) all of it is on stable storage when this returns. Sealing a sealed
    /// layer does nothing.
    ///
    /// # Errors
    /// `NotFound`; `InUse` where it is mounted; `NoSpace` where delayed writes found no room.
    pub fn seal(&self, id: &LayerId) -> Result<()> {
        let seal = || {
            let mut held = {
                let guard = self.records.lock()?;
                let held = self.records.hold_alone(id)?;
                if held.layer.state == LayerState::Sealed {
                    return Ok(());
                }
                self.refuse_mounted(&held.layer, &guard)?;
                held
            };
            self.driver.seal(id, self.durable())?;
            crate::kill_point!("layers.seal.sealed");
            held.layer.state = LayerState::Sealed;
            self.records.replace(&held.layer, self.durable())?;
            crate::kill_point!("layers.seal.visible");
            Ok(())
        };
        seal().map_err(|error| self.context(error, "seal", id))
    }

    /// Says of an adopted layer whose state is [`LayerState::Unknown`] that it is writable (a container's). To say that it
    /// is an image's, [seal](Layers::seal) it.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where the state is known.
    pub fn declare_writable(&self, id: &LayerId) -> Result<()> {
        let declare = || {
            let mut held = self.records.hold_alone(id)?;
            if held.layer.state != LayerState::Unknown {
                return Err(Error::new(ErrorKind::InvalidInput, "the layer's state is known"));
            }
            held.layer.state = LayerState::Writable;
            self.records.replace(&held.layer, self.durable())
        };
        declare().map_err(|error| self.context(error, "declare", id))
    }

    /// Removes a layer.
    ///
    /// # Errors
    /// `NotFound`; `HasChildren`; `InUse` where it is mounted or being worked on.
    pub fn remove(&self, id: &LayerId) -> Result<()> {
        let remove = || {
            let pending = {
                let guard = self.records.lock()?;
                self.settle(id, &guard)?;
                let held = self.records.hold_alone(id)?;
                self.refuse_mounted(&held.layer, &guard)?;
                self.records.refuse_children(id, &guard)?;
                self.records.withdraw(held, &guard)?
            };
            crate::kill_point!("layers.remove.withdrawn");
            self.discard(&pending)
        };
        remove().map_err(|error| self.context(error, "remove", id))
    }
}
