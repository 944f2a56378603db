//! The driver on real file systems: what it makes of them, and that its diff sees what a walk over everything sees.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../core/tests/diff/edit.rs"]
mod edit;

#[path = "btrfs/store.rs"]
mod store;

#[path = "btrfs/diff.rs"]
mod diff;

#[path = "btrfs/nested.rs"]
mod nested;

#[path = "btrfs/quota.rs"]
mod quota;

#[path = "btrfs/docker.rs"]
mod docker;

#[path = "btrfs/killed.rs"]
mod killed;

#[path = "btrfs/home.rs"]
mod home;
