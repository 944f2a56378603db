//! Project quota: a limit for all that lies below a directory, on ext4, xfs and f2fs.
//!
//! A *project* is a number that the file system keeps with each inode; what is made in a directory takes its number
//! over. The file system counts the blocks and inodes of each project, and enforces its limits. Beyond the limit a
//! write gives `EDQUOT` on ext4 and f2fs, and `ENOSPC` on xfs. On ext4 and f2fs a process with `CAP_SYS_RESOURCE` is not
//! held to it; through a mount of overlayfs everybody is, since overlayfs gives that capability up. Core's own writes are
//! held to it by [`within_limit`].
//!
//! The numbers have no owner: a tool takes one and hopes. Ours are from 2^30 to 2^31, far from the small ones of people
//! (`/etc/projid`) and of other engines. Where to look first follows from the layer's id; a number that has an inode
//! anywhere on the file system is passed over, whoever uses it, and a lock on the home keeps two processes from
//! taking one at once.

mod project;

mod hold;

mod sys;

pub use hold::within_limit;
pub use project::{Limits, ProjectId, ProjectQuota, ProjectUsage};
