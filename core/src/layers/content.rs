//! What is in a layer: its tree, and how it differs from others.

use std::io::Write;
use std::ops::Deref;

use rustix::fs::{Mode, OFlags};

use super::records::Held;
use super::{Layers, mounts};
use crate::diff::{self, Change, DiffSummary};
use crate::driver::Candidates;
use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::mount::{self, Access, MountPlan};
use crate::tree::Tree;

/// What a layer is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Base<'a> {
    /// Its parent; nothing, where it has none.
    #[default]
    Parent,
    /// Nothing: the whole tree is new.
    Nothing,
    /// Any other layer.
    Layer(&'a LayerId),
}

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

impl View<'_> {
    /// The bare tree, for work on a child, which keeps the layer in place; the driver is not told when it is gone.
    pub(super) fn into_tree(mut self) -> Option<Tree> {
        self.tree.take()
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
            // A copy of that one mount: what is mounted inside it (a container's /proc) is no part of the layer.
            let root = mount::attach_detached(&MountPlan::bind(target, Access::ReadOnly, ""))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::openat(&root, ".", flags, Mode::empty())
                .map_err(|errno| Error::from_errno(errno, "open the mount"))?;
            return Ok(View { layers: self, tree: Some(Tree::from_fd(root)), held, attached: false });
        }
        let plan = self.driver.mount_plan(id, Access::ReadOnly)?;
        let attached = !plan.is_bind();
        match mounts::when_free(&plan, Tree::open) {
            Ok(tree) => Ok(View { layers: self, tree: Some(tree), held, attached }),
            Err(error) => {
                // The first error says what went wrong; the driver tries again with the next mount.
                let _ = self.driver.unmounted(id);
                Err(error)
            }
        }
    }

    /// What a layer changed, ordered by path: what `docker diff` prints.
    ///
    /// # Errors
    /// `NotFound` for the layer or the base.
    pub fn changes(&self, id: &LayerId, base: Base<'_>) -> Result<Vec<Change>> {
        self.compare(id, base, diff::changes).map_err(|error| self.context(error, "list the changes of", id))
    }

    /// Writes what a layer changed as an OCI layer tar, uncompressed. The same two trees give the same bytes, on every
    /// driver.
    ///
    /// # Errors
    /// `NotFound` for the layer or the base; what reading or `out` gives, naming the path. What was written by then is
    /// of no use.
    pub fn diff(&self, id: &LayerId, base: Base<'_>, out: &mut dyn Write) -> Result<DiffSummary> {
        self.compare(id, base, |layer, base, candidates| diff::export(layer, base, candidates, out))
            .map_err(|error| self.context(error, "diff", id))
    }

    fn compare<T>(
        &self,
        id: &LayerId,
        base: Base<'_>,
        work: impl FnOnce(&Tree, Option<&Tree>, Candidates) -> Result<T>,
    ) -> Result<T> {
        let layer = self.view(id)?;
        let parent = layer.held.layer.parent.as_ref();
        let base = match base {
            Base::Parent => parent,
            Base::Nothing => None,
            Base::Layer(base) => Some(base),
        };
        let Some(base) = base else {
            return work(&layer, None, Candidates::All { untouched: None });
        };
        // Only against its own parent does the driver know where the layer may differ.
        let candidates = if Some(base) == parent {
            self.driver.candidates(id)?
        } else {
            Candidates::All { untouched: None }
        };
        let base = self.view(base)?;
        work(&layer, Some(&base), candidates)
    }
}
