//! Mounts: a driver returns a [`MountPlan`], core attaches it.
//!
//! A plan is a value. It can be printed, tested without root, handed to containerd as its mount list or to a
//! microVM as a block device. Only this module calls the kernel's mount interface.
//!
//! # What a mount of ours is like
//! - [`Access::ReadOnly`] gives `EROFS` from the first moment that the mount is visible.
//! - Neither `nosuid` nor `nodev` is set: the root of a container needs both.
//! - It is private: mounts made inside it (a container's `/proc`, its volumes) do not spread to other mount
//!   namespaces. The home is not made private as Docker does it, because that would leave a mount on the home for
//!   good. So where the home lies on a shared mount, the mount of a layer shows in the namespaces that share it; its
//!   unmount is seen there as well.

mod attach;

mod plan;

mod fsmount;

mod classic;

mod directory;

mod lookup;

mod table;

mod target;

mod sys;

pub use attach::{
    Attached, Interface, attach, attach_detached, attach_detached_through, attach_through, detach,
};
pub use fsmount::appends_layers;
pub use lookup::{MountId, mounted_at};
pub use plan::{Access, Hold, MountOption, MountPlan, MountSpec};
pub use table::{TableEntry, mounts_below, parse_table};
pub(crate) use target::make_target;
pub use target::remove_target;
