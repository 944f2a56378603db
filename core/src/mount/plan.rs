//! What is to be mounted.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// How a layer is to be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Writes give `EROFS`.
    ReadOnly,
    /// Writes go to the layer, which must not be sealed.
    ReadWrite,
}

/// What to mount for a layer: a value that core attaches, engines print or pass on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MountPlan {
    /// The file system type, or `bind` where `source` is a directory that is the layer's tree.
    pub fstype: String,
    /// A directory (`bind`), a block device, a dataset, or a name that only shows in the mount table.
    pub source: PathBuf,
    /// Whether writes are refused.
    pub access: Access,
    /// Options of the file system, in order.
    pub options: Vec<MountOption>,
    /// Where relative paths in `options` start.
    pub base: Option<PathBuf>,
    /// Where in the file system the layer's tree is, relative to its root; None where it is the root itself. Not for
    /// `bind`, whose `source` says it.
    pub subdirectory: Option<PathBuf>,
    /// Files of the kernel (sysfs) that are written once the file system is mounted, and what to each.
    pub settings: Vec<(PathBuf, String)>,
    /// Where the layer is mounted if the caller names no place: where Docker's layout has it. Core makes this
    /// directory, in one that is there, and removes it after the mount.
    pub target: PathBuf,
    /// What keeps the source there for as long as the plan is held; a mount keeps it itself. No part of the value.
    #[serde(skip)]
    pub hold: Hold,
}

/// Keeps what a plan names from going away before it is mounted: a device that exists only while it is in use.
#[derive(Debug, Clone, Default)]
pub struct Hold(Option<Arc<OwnedFd>>);

impl Hold {
    /// Holds an open file.
    #[must_use]
    pub fn new(file: OwnedFd) -> Self {
        Self(Some(Arc::new(file)))
    }

    /// The file; None where nothing need be held.
    #[must_use]
    pub fn file(&self) -> Option<&OwnedFd> {
        self.0.as_deref()
    }
}

impl PartialEq for Hold {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Hold {}

/// One option of a file system.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountOption {
    /// `key`
    Flag(String),
    /// `key=value`
    Value(String, String),
    /// `key=path`, the path relative to the plan's `base` or absolute.
    Path(String, PathBuf),
    /// A stack of directories, the topmost first: `key=a:b:c` in an option string (`:` in a path escaped as `\:`),
    /// one `key+` each through the new mount API (overlayfs' `lowerdir+`, kernel 6.7).
    Layers(String, Vec<PathBuf>),
}

impl MountPlan {
    /// A plan that binds the directory `source`.
    #[must_use]
    pub fn bind(source: impl Into<PathBuf>, access: Access, target: impl Into<PathBuf>) -> Self {
        Self {
            fstype: "bind".to_owned(),
            source: source.into(),
            access,
            options: Vec::new(),
            base: None,
            subdirectory: None,
            settings: Vec::new(),
            target: target.into(),
            hold: Hold::default(),
        }
    }

    /// Whether the layer's tree is simply the directory `source`.
    #[must_use]
    pub fn is_bind(&self) -> bool {
        self.fstype == "bind"
    }

    /// Whether the layer is a file system of its own on a block device, which nobody else flushes.
    #[must_use]
    pub fn is_on_device(&self) -> bool {
        !self.is_bind() && self.source.is_absolute()
    }

    /// Writes the settings, once the file system is mounted.
    pub(super) fn apply_settings(&self) -> Result<()> {
        for (file, value) in &self.settings {
            std::fs::write(file, value)
                .map_err(|error| Error::from_io(error, format!("set it to {value}")).with_path(file))?;
        }
        Ok(())
    }

    /// The plan as `mount(8)`'s words, paths absolute: what containerd calls a mount (type, source, options).
    #[must_use]
    pub fn to_spec(&self) -> MountSpec {
        let shown = |path: &Path| {
            let path = match &self.base {
                Some(base) => base.join(path),
                None => path.to_owned(),
            };
            String::from_utf8_lossy(&escaped(&path)).into_owned()
        };
        let mut options = Vec::new();
        if self.is_bind() {
            options.push("bind".to_owned());
        }
        options.push(match self.access {
            Access::ReadOnly => "ro".to_owned(),
            Access::ReadWrite => "rw".to_owned(),
        });
        for option in &self.options {
            options.push(match option {
                MountOption::Flag(key) => key.clone(),
                MountOption::Value(key, value) => format!("{key}={value}"),
                MountOption::Path(key, path) => format!("{key}={}", shown(path)),
                MountOption::Layers(key, paths) => {
                    let paths: Vec<_> = paths.iter().map(|path| shown(path)).collect();
                    format!("{key}={}", paths.join(":"))
                }
            });
        }
        MountSpec {
            fstype: self.fstype.clone(),
            source: self.source.clone(),
            options,
            subdirectory: self.subdirectory.clone(),
        }
    }
}

impl fmt::Display for MountPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = self.to_spec();
        if self.is_bind() {
            write!(f, "mount")?;
        } else {
            write!(f, "mount -t {}", spec.fstype)?;
        }
        write!(f, " -o {} {} {}", spec.options.join(","), spec.source.display(), self.target.display())?;
        match &spec.subdirectory {
            None => Ok(()),
            Some(tree) => write!(f, " (the tree: {} in it)", tree.display()),
        }
    }
}

/// A path as overlayfs reads it in an option string: a backslash before `\`, before `:`, which parts layers, and
/// before `,`, which parts options.
pub(super) fn escaped(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text
}

/// A mount in the words of `mount(8)`: see [`MountPlan::to_spec`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MountSpec {
    /// The file system type; `bind` for a bind mount.
    pub fstype: String,
    /// The device, directory or name.
    pub source: PathBuf,
    /// The options, paths in them absolute.
    pub options: Vec<String>,
    /// Where in what is mounted the layer's tree is; None where it is the root. `mount(8)` has no word for it: mount,
    /// then bind this directory.
    pub subdirectory: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_prints_as_the_command_that_would_do_the_same() {
        let plan = MountPlan {
            fstype: "overlay".into(),
            source: "overlay".into(),
            access: Access::ReadWrite,
            options: vec![
                MountOption::Layers("lowerdir".into(), vec!["l/AB".into(), "/x:y".into()]),
                MountOption::Path("upperdir".into(), "id/diff".into()),
                MountOption::Value("index".into(), "off".into()),
                MountOption::Flag("volatile".into()),
            ],
            base: Some("/root".into()),
            subdirectory: None,
            settings: Vec::new(),
            target: "/root/id/merged".into(),
            hold: Hold::default(),
        };
        assert_eq!(
            plan.to_string(),
            "mount -t overlay -o rw,lowerdir=/root/l/AB:/x\\:y,upperdir=/root/id/diff,index=off,volatile \
             overlay /root/id/merged"
        );
    }
}
