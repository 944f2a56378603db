//! Which kernel runs: one that was given, or Debian's, fetched once.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Machine;
use super::packages::Packages;
use super::registers;

/// A kernel and what belongs to it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Kernel {
    /// The kind of guest that it is for.
    pub(crate) machine: Machine,
    /// The kernel itself.
    pub(crate) file: PathBuf,
    /// Its modules: a directory named by its release.
    pub(crate) modules: Option<PathBuf>,
    /// A busybox, which loads them.
    pub(crate) busybox: Option<PathBuf>,
    /// A library that it needs on this host's processor.
    pub(crate) preload: Option<PathBuf>,
}

/// A kernel that the caller has.
pub(crate) fn given(machine: Option<Machine>, file: &Path, modules: Option<&Path>) -> Result<Kernel> {
    let whole =
        |path: &Path| path.canonicalize().with_context(|| format!("failed to find {}", path.display()));
    let modules = modules.map(whole).transpose()?;
    // Without modules there is nothing to load.
    let busybox = modules.is_some().then(busybox).transpose()?;
    let machine = machine.unwrap_or(Machine::Uml);
    Ok(Kernel { machine, file: whole(file)?, modules, busybox, preload: preload(machine)? })
}

/// Debian's.
pub(crate) fn fetched(machine: Machine) -> Result<Kernel> {
    match machine {
        Machine::Uml => {
            let package = Packages::open()?.unpacked("user-mode-linux")?;
            let modules = only_entry(&package.join("usr/lib/uml/modules"))?;
            let file = package.join("usr/bin/linux.uml");
            Ok(Kernel {
                machine,
                file,
                modules: Some(modules),
                busybox: Some(busybox()?),
                preload: preload(machine)?,
            })
        }
    }
}

fn preload(machine: Machine) -> Result<Option<PathBuf>> {
    match machine {
        Machine::Uml => registers::library(),
    }
}

fn busybox() -> Result<PathBuf> {
    Ok(Packages::open()?.unpacked("busybox-static")?.join("bin/busybox"))
}

/// The one thing that is in a directory.
fn only_entry(directory: &Path) -> Result<PathBuf> {
    let failed = || format!("failed to read {}", directory.display());
    let mut entries = std::fs::read_dir(directory).with_context(failed)?;
    let entry = entries.next().with_context(|| format!("{} is empty", directory.display()))?;
    Ok(entry.with_context(failed)?.path())
}
