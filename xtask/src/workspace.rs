//! The workspace that this program belongs to.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The facade's package; its features are the drivers.
pub(crate) const FACADE: &str = "layerstack";

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    // The manifest's folder is known at run time through cargo, and at build time where the program is run alone.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// The folder for what is worth keeping between runs and between checkouts: `layerstack` in the user's cache
/// (XDG Base Directory Specification). Not made yet.
pub(crate) fn cache() -> Result<PathBuf> {
    match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => Ok(PathBuf::from(cache).join("layerstack")),
        (_, Some(home)) => Ok(PathBuf::from(home).join(".cache/layerstack")),
        _ => bail!("neither XDG_CACHE_HOME nor HOME is set: there is no place to keep downloads"),
    }
}

/// A cargo command in the workspace's folder.
pub(crate) fn cargo() -> Command {
    let mut command = process::cargo();
    command.current_dir(root());
    command
}

/// What `cargo metadata` says of the workspace and its dependencies.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Metadata {
    /// Every package: the workspace's and those it depends on.
    pub(crate) packages: Vec<Package>,
    /// Ids of the workspace's own packages.
    pub(crate) workspace_members: Vec<String>,
    /// Where cargo puts what it builds.
    pub(crate) target_directory: PathBuf,
}

/// One package.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Package {
    /// Unique among all packages.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Its licence as an SPDX expression, where it states one.
    pub(crate) license: Option<String>,
    /// The oldest Rust that it builds with, where it states one.
    pub(crate) rust_version: Option<String>,
    /// Its `Cargo.toml`.
    pub(crate) manifest_path: PathBuf,
    /// Its features by name, and what each turns on.
    pub(crate) features: std::collections::BTreeMap<String, Vec<String>>,
    /// What it depends on.
    pub(crate) dependencies: Vec<Dependency>,
}

/// One dependency of a package, as its `Cargo.toml` has it.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Dependency {
    /// The package's name.
    pub(crate) name: String,
    /// `dev`, `build`, or none for an ordinary one.
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        let text = process::output(cargo().args([
            "metadata",
            "--format-version=1",
            "--all-features",
            "--filter-platform=x86_64-unknown-linux-gnu",
        ]))?;
        serde_json::from_str(&text).context("cargo metadata printed what this program cannot read")
    }

    /// The workspace's own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// The drivers that the facade has, sorted by name: its features without `default`.
    pub(crate) fn drivers(&self) -> Vec<String> {
        let features = self.facade().into_iter().flat_map(|facade| facade.features.keys());
        features.filter(|name| *name != "default").cloned().collect()
    }

    /// The drivers that the facade has unless told otherwise, sorted by name.
    pub(crate) fn default_drivers(&self) -> Vec<String> {
        let mut names =
            self.facade().and_then(|facade| facade.features.get("default")).cloned().unwrap_or_default();
        names.sort();
        names
    }

    fn facade(&self) -> Option<&Package> {
        self.members().find(|package| package.name == FACADE)
    }
}

#[cfg(test)]
impl Package {
    /// A package of which only the name and the place matter.
    pub(crate) fn test(name: &str, manifest: &str) -> Self {
        Self {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: Some("MIT".to_owned()),
            rust_version: None,
            manifest_path: manifest.into(),
            features: std::collections::BTreeMap::new(),
            dependencies: Vec::new(),
        }
    }
}
