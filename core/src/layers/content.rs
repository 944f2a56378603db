//! What is in a layer: its tree, and how it differs from others.

use std::ops::Deref;

use rustix::fs::{Mode, OFlags};

use super::Layers;
use super::records::Held;
use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::mount::Access;
use crate::tree::Tree;

/// A read-only view of a layer's tree. The layer is neither removed nor sealed while it lives.
#[derive(Debug)]
pub struct View<'a> {
    layers: &'a Layers,
    /// None only while the view is being dropped.
    tree: Option<Tree>,
    held: Held,
    /// Whether the driver wants to know when the view is gone.
    attached: bool,
}

impl Deref for View<'_> {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        match &self.tree {
            Some(tree) => tree,
            None => unreachable!("taken in drop only"),
        }
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        self.tree = None;
        if self.attached
            && let Err(error) = self.layers.driver.unmounted(&self.held.layer.id)
        {
            tracing::warn!(layer = %self.held.layer.id, ?error, "the driver could not put away what a view needed");
        }
    }
}

impl Layers {
    /// Opens a read-only view of a layer's tree, without mounting it anywhere. Of a mounted layer that is being written
    /// to it shows what its mount shows.
    ///
    /// # Errors
    /// `NotFound`; `InUse` while the layer is being sealed or removed.
    pub fn tree(&self, id: &LayerId) -> Result<View<'_>> {
        self.view(id).map_err(|error| self.context(error, "look into", id))
    }

    pub(super) fn view(&self, id: &LayerId) -> Result<View<'_>> {
        let held = self.records.hold(id)?;
        if let Some(target) = self.live_mount(&held.layer)? {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(&target, flags, Mode::empty())
                .map_err(|errno| Error::from_errno(errno, "open the mount").with_path(&target))?;
            return Ok(View { layers: self, tree: Some(Tree::from_fd(root)), held, attached: false });
        }
        let plan = self.driver.mount_plan(id, Access::ReadOnly)?;
        let attached = !plan.is_bind();
        match Tree::open(&plan) {
            Ok(tree) => Ok(View { layers: self, tree: Some(tree), held, attached }),
            Err(error) => {
                // The first error says what went wrong; the driver tries again with the next mount.
                let _ = self.driver.unmounted(id);
                Err(error)
            }
        }
    }
}
