//! The contract between core and a storage driver.
//!
//! # Terms
//! A *layer* is a file tree named by a [`LayerId`], with at most one *parent*, whose tree it starts from. It is
//! *writable* until it is *sealed*. The *home* of a driver is the directory in which it keeps its layers, laid
//! out as Docker's driver of the same name lays it out.
//!
//! # Life cycle
//! ```text
//!            create            seal
//!   absent ─────────► writable ─────► sealed
//!      ▲                 │               │
//!      └─────────────────┴───────────────┘
//!                     remove
//! ```
//! Core calls a driver only in this order. By the time a driver is called, core has checked that the id is
//! well-formed and absent (or present), that the parent exists and is sealed, that a layer to be removed has
//! neither children nor mounts, and that the options are known; it holds the layer's lock, and its record says
//! what is about to happen. So a driver checks none of this again.
//!
//! # After a kill or a power loss
//! Core keeps a durable note of every layer that is being made or removed. On the next open it calls
//! [`Driver::remove`] for each. So a driver needs no journal and no recovery of its own: `remove` takes away
//! whatever an interrupted `create` or `remove` of the id left.
//!
//! # Uses
//! A container: `create(top, parent)`, `mount_plan(top, ReadWrite)` and core attaches it, `candidates(top)` for
//! its diff, `remove(top)`. An image layer: `create(id, parent)`, `apply_target(id)` and core unpacks the tar
//! there, `seal(id)`. A root made by Docker: `list()`, then `find(id)` for each, and core writes the records.
//!
//! The conformance suite's cases cite the clauses below word for word.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::capability::Capabilities;
use crate::error::Result;
use crate::id::LayerId;
use crate::mount::{Access, MountPlan};
use crate::options::Options;

/// The primitives in which storage back ends differ. See the [module](self) for what core guarantees.
///
/// Methods are called from several threads at once, never two at once for the same layer except for reading.
pub trait Driver: Send + Sync + fmt::Debug {
    /// The driver's name: its folder, its cargo feature, its `--driver` value.
    fn name(&self) -> &'static str;

    /// The directory in which the driver keeps its layers.
    fn home(&self) -> &Path;

    /// What this driver can do on this host and this home; found out at open, constant since.
    fn capabilities(&self) -> &Capabilities;

    /// What the driver has to say of itself: pairs under the keys that `docker info` prints for it, in its order.
    ///
    /// # Errors
    /// Where the back end cannot be asked.
    fn status(&self) -> Result<Vec<(String, String)>>;

    /// What the back end knows of why it has no space, where `df` would not show it, and what to do about it: a
    /// fragment that fits after "no space: ". Called right after something failed with `NoSpace`.
    fn why_full(&self) -> Option<String>;

    /// Makes the storage of a layer, its tree equal to the parent's.
    ///
    /// - The root directory of the tree has the parent's mode, owner, times and extended attributes; 0755
    ///   root:root for a base layer.
    /// - Nothing is flushed: durability comes with [`Driver::seal`].
    /// - After an error core calls [`Driver::remove`]; what was made so far may be left to that.
    ///
    /// # Errors
    /// `NoSpace`, `Unsupported` for an option the host cannot serve, `InvalidInput` for an option's value.
    fn create(&self, layer: &NewLayer<'_>) -> Result<()>;

    /// Makes a layer read-only for good and, where `durable`, sees to it that all of the layer's content and
    /// whatever the driver knows of it is on stable storage when this returns.
    ///
    /// # Errors
    /// `NoSpace`, or what the flush gives.
    fn seal(&self, id: &LayerId, durable: bool) -> Result<()>;

    /// Takes the storage of a layer away.
    ///
    /// - Takes away also whatever an interrupted `create` or `remove` of the id left; a layer of which nothing is
    ///   there is no error.
    /// - A first step that is atomic makes the layer unusable; the rest may take its time.
    ///
    /// Where the layer's mount plan has a target outside of the layer, that goes too
    /// ([`remove_target`](crate::mount::remove_target)).
    ///
    /// # Errors
    /// What the back end gives; calling it again goes on.
    fn remove(&self, id: &LayerId) -> Result<()>;

    /// The ids of which anything is in the home, whole or not, in any order. Reads names only.
    ///
    /// # Errors
    /// Where the home cannot be read.
    fn list(&self) -> Result<Vec<LayerId>>;

    /// What is in the home of a layer of which core has no record. None: only debris, to be removed.
    ///
    /// # Errors
    /// `Corrupt` where the layer contradicts itself.
    fn find(&self, id: &LayerId) -> Result<Option<FoundLayer>>;

    /// What to mount for a layer. Mounts nothing. May prepare what the mount needs (a device node, a directory).
    ///
    /// # Errors
    /// `Corrupt` where a piece of the layer is missing.
    fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan>;

    /// Called after a mount of the layer went away, so that what [`Driver::mount_plan`] prepared can go too.
    ///
    /// # Errors
    /// What the back end gives; the layer stays usable.
    fn unmounted(&self, id: &LayerId) -> Result<()>;

    /// Where and in which form core writes the entries of a layer tar into an unsealed layer.
    ///
    /// # Errors
    /// As [`Driver::mount_plan`].
    fn apply_target(&self, id: &LayerId) -> Result<ApplyTarget>;

    /// The paths at which a layer may differ from its parent: all at which it does, and as few others as the back
    /// end can tell. Core looks at each in both trees and keeps those that really differ.
    ///
    /// `layer` may be mounted and written to meanwhile. It has a parent: without one there is nothing to narrow.
    ///
    /// # Errors
    /// What the back end gives.
    fn candidates(&self, id: &LayerId) -> Result<Candidates>;

    /// What a layer occupies.
    ///
    /// # Errors
    /// What the back end gives.
    fn usage(&self, id: &LayerId) -> Result<Usage>;

    /// Where the layer's pieces are, under Docker's names (overlay2: `LowerDir`, `UpperDir`, `WorkDir`, `MergedDir`).
    ///
    /// # Errors
    /// `Corrupt` where a piece of the layer is missing.
    fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>>;
}

/// A layer to be made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct NewLayer<'a> {
    /// Its id; absent in the home.
    pub id: &'a LayerId,
    /// Its parent; whole and sealed, or writable where the driver declares `fork_live`.
    pub parent: Option<&'a LayerId>,
    /// Options of this layer; every key is one that the driver's registration lists.
    pub options: &'a Options,
}

impl<'a> NewLayer<'a> {
    /// A layer with a parent or none, and options.
    #[must_use]
    pub fn new(id: &'a LayerId, parent: Option<&'a LayerId>, options: &'a Options) -> Self {
        Self { id, parent, options }
    }
}

/// A layer found in a home without a record of core's: made by Docker, or by a process that lost power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLayer {
    /// The parent that the home's own metadata names.
    pub parent: Option<LayerId>,
    /// Whether it is sealed, where the home tells; None where it cannot be known.
    pub sealed: Option<bool>,
}

/// Where the entries of a layer tar go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyTarget {
    /// The tree to write to; a `bind` plan is written to without being mounted.
    pub plan: MountPlan,
    /// How deletions are written there.
    pub form: LayerForm,
}

/// How the tree of an [`ApplyTarget`] stands to the parent's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerForm {
    /// It holds the parent's files too: a whiteout removes the file.
    Whole,
    /// It holds only what differs: overlayfs' whiteouts (a character device 0:0) and the extended attribute
    /// `overlay.opaque` in the name space `trusted.` or, with `userxattr`, `user.`
    /// (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").
    Overlay {
        /// Whether the attributes are in the `user.` name space.
        userxattr: bool,
    },
    /// It holds only what differs: aufs' whiteouts `.wh.NAME` and `.wh..wh..opq`, the same names as OCI's.
    Aufs,
}

/// Where a layer may differ from its parent.
pub enum Candidates {
    /// Anywhere: both trees are walked.
    All {
        /// Files whose ctime lies in this window have not been touched since the layer was made. Of the others core
        /// compares the content where all metadata are equal. Without a window the back end cannot tell, and equal
        /// metadata, extended attributes included, count as equal content.
        untouched: Option<CtimeWindow>,
    },
    /// At these paths, ordered by their components as bytes: a directory before what is in it, siblings by name.
    Paths(Box<dyn Iterator<Item = Result<Candidate>> + Send>),
}

impl fmt::Debug for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All { untouched } => f.debug_struct("All").field("untouched", untouched).finish(),
            Self::Paths(_) => f.write_str("Paths(..)"),
        }
    }
}

/// A path at which a layer may differ from its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Relative to the tree's root, without `.` and `..`; empty for the root itself.
    pub path: PathBuf,
    /// Whether all below the path may differ too.
    pub scope: Scope,
}

/// How far a [`Candidate`] reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The path alone. Where it exists on one side only, or is a directory on one side only, all below it.
    Entry,
    /// The path and all below it.
    Subtree,
}

/// An interval of ctimes, both ends included, in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CtimeWindow {
    /// The first instant.
    pub from_ns: i128,
    /// The last instant.
    pub to_ns: i128,
}

impl CtimeWindow {
    /// The window that no instant lies in: where nothing is known to be untouched, so that content is compared
    /// wherever metadata are equal.
    pub const NEVER: Self = Self { from_ns: i128::MAX, to_ns: i128::MIN };

    /// Whether an instant lies in the window.
    #[must_use]
    pub fn contains(&self, ctime_ns: i128) -> bool {
        (self.from_ns..=self.to_ns).contains(&ctime_ns)
    }
}

/// What a layer occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes allocated to the layer, what it shares with its parent not counted where the back end can tell.
    pub bytes: u64,
    /// Files, directories and other inodes. None where the back end counts bytes alone, and they would take a walk.
    pub inodes: Option<u64>,
    /// Bytes that removing the layer would free, where the back end knows.
    pub exclusive: Option<u64>,
    /// Bytes that other layers hold too, where the back end knows.
    pub shared: Option<u64>,
}

impl Usage {
    /// A usage that was found by a walk; what is shared of it is not known.
    #[must_use]
    pub fn new(bytes: u64, inodes: u64) -> Self {
        Self { inodes: Some(inodes), ..Self::counted(bytes) }
    }

    /// A usage that the back end counts, in bytes alone.
    #[must_use]
    pub fn counted(bytes: u64) -> Self {
        Self { bytes, inodes: None, exclusive: None, shared: None }
    }

    /// With the part that is the layer's alone.
    #[must_use]
    pub fn with_exclusive(mut self, bytes: u64) -> Self {
        self.exclusive = Some(bytes);
        self
    }

    /// With the part that other layers hold too.
    #[must_use]
    pub fn with_shared(mut self, bytes: u64) -> Self {
        self.shared = Some(bytes);
        self
    }
}
