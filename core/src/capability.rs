//! What a driver can do on this host, with limits, and with the reason where it cannot.

use std::fmt;

/// Whether something is offered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "offered", rename_all = "kebab-case")]
pub enum Feature {
    /// It is; the conformance suite proves it.
    Yes,
    /// It is not.
    No {
        /// Why, and what to do about it: a fragment that fits after "unsupported: ".
        reason: String,
    },
}

impl Feature {
    /// Not offered, for `reason`.
    pub fn no(reason: impl Into<String>) -> Self {
        Self::No { reason: reason.into() }
    }

    /// Whether it is offered.
    #[must_use]
    pub fn offered(&self) -> bool {
        matches!(self, Self::Yes)
    }

    /// The reason, where it is not.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Yes => None,
            Self::No { reason } => Some(reason),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::No { reason } => write!(f, "no: {reason}"),
        }
    }
}

/// What a layer's `size` limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum QuotaKind {
    /// What the layer adds to its parent.
    Added,
    /// The whole tree, what is shared with the parent included.
    Whole,
    /// The size of the file system that the layer is.
    FileSystem,
}

/// The structured capabilities of one opened driver.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// [`Driver::candidates`](crate::driver::Driver::candidates) is narrower than the whole tree.
    pub native_diff: Feature,
    /// A layer can be created on a parent that is still writable.
    pub fork_live: Feature,
    /// A layer can be filled before its parent is: the layers of an image can be applied in parallel.
    pub independent_layers: Feature,
    /// Files that a layer shares with its parent take no space of their own.
    pub shares_blocks: Feature,
    /// The layer option `size` is taken.
    pub quota: Feature,
    /// What `size` counts, where it is taken.
    pub quota_kind: Option<QuotaKind>,
    /// [`Usage::exclusive`](crate::driver::Usage::exclusive) is known without a walk.
    pub usage_without_walk: Feature,
    /// The longest chain of layers that can be mounted, the topmost one counted. None: no limit of the driver's.
    pub max_depth: Option<u32>,
    /// The longest file name in a layer, in bytes.
    pub max_name: u32,
    /// Name spaces of extended attributes that a layer keeps: `user.`, `trusted.`, `security.`, `system.posix_acl`.
    pub xattrs: Vec<&'static str>,
}

impl Capabilities {
    /// Everything off for the reason given, no limits, names up to 255 bytes and every name space of extended
    /// attributes: the start for a driver, which then says what it has.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        Self {
            native_diff: Feature::no(reason),
            fork_live: Feature::no(reason),
            independent_layers: Feature::no(reason),
            shares_blocks: Feature::no(reason),
            quota: Feature::no(reason),
            quota_kind: None,
            usage_without_walk: Feature::no(reason),
            max_depth: None,
            max_name: 255,
            xattrs: vec!["user.", "trusted.", "security.", "system.posix_acl"],
        }
    }

    /// The features by name, for status output and for the suite.
    #[must_use]
    pub fn features(&self) -> [(&'static str, &Feature); 6] {
        [
            ("native-diff", &self.native_diff),
            ("fork-live", &self.fork_live),
            ("independent-layers", &self.independent_layers),
            ("shares-blocks", &self.shares_blocks),
            ("quota", &self.quota),
            ("usage-without-walk", &self.usage_without_walk),
        ]
    }
}
