//! Mounts: a driver returns a [`MountPlan`], core attaches it.
//!
//! A plan is a value. It can be printed, tested without root, handed to containerd as its mount list or to a
//! microVM as a block device. Only this module calls the kernel's mount interface.

mod plan;

pub use plan::{Access, MountOption, MountPlan, MountSpec};
