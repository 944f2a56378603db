//! The one public error type.
//!
//! ```text
//! Error ── kind: ErrorKind                   to match on; stable
//!       ├─ message                           what went wrong, a lowercase fragment
//!       ├─ reason                            why, and what to do about it, where somebody knows
//!       ├─ driver, operation, layer, path    where; each may be absent
//!       └─ source                            the cause, never repeated by Display
//! ```
//!
//! A system call's errno becomes a kind beside the call, through [`Error::from_errno`]; code further up adds
//! context with the `with_…` methods and never changes the kind.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustix::io::Errno;

use crate::id::LayerId;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was. Engines match on this; the set grows, the meaning of a kind does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The host lacks what the driver needs; the message says what, and how to get it.
    Unavailable,
    /// The driver does not offer this; the message says why.
    Unsupported,
    /// The caller's argument, option or archive is wrong; the message names it and what would be right.
    InvalidInput,
    /// No such layer, parent, image or mount.
    NotFound,
    /// The name is taken; what has it is untouched.
    AlreadyExists,
    /// The parent is still writable.
    NotSealed,
    /// Other layers stand on this one.
    HasChildren,
    /// Mounted, locked, or being worked on by another process.
    InUse,
    /// The backing store is full.
    NoSpace,
    /// The layer's own limit is reached.
    QuotaExceeded,
    /// The process lacks a privilege; the message names it.
    PermissionDenied,
    /// What is on disk contradicts itself or what was promised of it.
    Corrupt,
    /// Anything else; see the message and the source.
    Other,
}

impl ErrorKind {
    /// The kind that `errno` stands for where nothing more is known of the call.
    #[must_use]
    pub fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::NOSPC => Self::NoSpace,
            Errno::DQUOT => Self::QuotaExceeded,
            Errno::PERM | Errno::ACCESS => Self::PermissionDenied,
            Errno::BUSY | Errno::TXTBSY => Self::InUse,
            Errno::OPNOTSUPP | Errno::NOSYS => Self::Unsupported,
            _ => Self::Other,
        }
    }

    /// The kind's name in words, as messages and machine-readable output have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Unsupported => "unsupported",
            Self::InvalidInput => "invalid input",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::NotSealed => "not sealed",
            Self::HasChildren => "has children",
            Self::InUse => "in use",
            Self::NoSpace => "no space",
            Self::QuotaExceeded => "quota exceeded",
            Self::PermissionDenied => "permission denied",
            Self::Corrupt => "corrupt",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure: a stable kind to match on, a message, where it happened (driver, operation, layer, path; each may be
/// absent), and the cause, which `Display` never repeats.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    reason: Option<String>,
    driver: Option<String>,
    operation: Option<&'static str>,
    layer: Option<LayerId>,
    path: Option<PathBuf>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `kind`. `message` is a lowercase fragment that fits after "failed to …: ".
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            reason: None,
            driver: None,
            operation: None,
            layer: None,
            path: None,
            source: None,
        }))
    }

    /// A failed system call; `what` says what was tried ("open", "mount overlay", …). The errno is the source
    /// and gives the kind.
    pub fn from_errno(errno: Errno, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::from_errno(errno), what).with_source(io::Error::from(errno))
    }

    /// As [`Error::from_errno`], for an [`io::Error`]. One that carries an [`Error`] keeps that error's kind.
    pub fn from_io(error: io::Error, what: impl Into<String>) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()).map(Self::kind);
        let kind = match (inner, Errno::from_io_error(&error)) {
            (Some(kind), _) => kind,
            (None, Some(errno)) => ErrorKind::from_errno(errno),
            (None, None) if error.kind() == io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            (None, None) if error.kind() == io::ErrorKind::StorageFull => ErrorKind::NoSpace,
            (None, None) => ErrorKind::Other,
        };
        Self::new(kind, what).with_source(error)
    }

    /// The kind, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, without the context that `Display` puts before it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The layer that the failed operation was about.
    #[must_use]
    pub fn layer(&self) -> Option<&LayerId> {
        self.0.layer.as_ref()
    }

    /// The path that the failed operation was about, on the host or in an archive.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The driver that failed, by name.
    #[must_use]
    pub fn driver(&self) -> Option<&str> {
        self.0.driver.as_deref()
    }

    /// The operation that failed: `create`, `mount`, …
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says why, after the message, unless code nearer to the failure already did. `reason` gives None where nobody
    /// knows.
    #[must_use]
    pub fn with_reason(mut self, reason: impl FnOnce() -> Option<String>) -> Self {
        if self.0.reason.is_none() {
            self.0.reason = reason();
        }
        self
    }

    /// Names the driver, unless code nearer to the failure already did.
    #[must_use]
    pub fn with_driver(mut self, driver: &str) -> Self {
        self.0.driver.get_or_insert_with(|| driver.to_owned());
        self
    }

    /// Names the operation, unless code nearer to the failure already did.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the layer, unless code nearer to the failure already did.
    #[must_use]
    pub fn with_layer(mut self, layer: &LayerId) -> Self {
        self.0.layer.get_or_insert_with(|| layer.clone());
        self
    }

    /// Names the path, unless code nearer to the failure already did.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path.get_or_insert_with(|| path.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { message, reason, driver, operation, layer, path, .. } = &*self.0;
        if let Some(driver) = driver {
            write!(f, "{driver}: ")?;
        }
        match (operation, layer) {
            (Some(operation), Some(layer)) => write!(f, "{operation} layer {layer}: ")?,
            (Some(operation), None) => write!(f, "{operation}: ")?,
            (None, Some(layer)) => write!(f, "layer {layer}: ")?,
            (None, None) => {}
        }
        if let Some(path) = path {
            write!(f, "{}: ", path.as_os_str().as_encoded_bytes().escape_ascii())?;
        }
        f.write_str(message)?;
        match reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::QuotaExceeded => io::ErrorKind::QuotaExceeded,
            ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_has_the_context_and_never_the_source() {
        let error = Error::from_errno(Errno::NOSPC, "make directory")
            .with_path("/x/diff")
            .with_layer(&LayerId::new("a").unwrap())
            .with_operation("create")
            .with_driver("vfs");
        assert_eq!(error.to_string(), "vfs: create layer a: /x/diff: make directory");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.source().unwrap().to_string().contains("No space left"));
    }

    #[test]
    fn the_innermost_context_stays() {
        let error = Error::new(ErrorKind::Other, "x").with_operation("seal").with_operation("create");
        assert_eq!(error.operation(), Some("seal"));
    }

    #[test]
    fn the_kind_survives_a_trip_through_io_error() {
        let error = Error::new(ErrorKind::Corrupt, "digest differs");
        let back = Error::from_io(io::Error::from(error), "read the layer");
        assert_eq!(back.kind(), ErrorKind::Corrupt);
    }
}
