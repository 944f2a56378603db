//! Which kernel runs: one that was given, or Debian's, fetched once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::Machine;
use super::packages::Packages;
use super::{modules, registers};

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
    let file = whole(file)?;
    let head = head(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let found = machine_of(&head).with_context(|| format!("{} is no kernel", file.display()))?;
    if let Some(machine) = machine.filter(|machine| *machine != found) {
        bail!("{} is a kernel for {}, not for {}", file.display(), found.name(), machine.name());
    }
    let modules = modules.map(whole).transpose()?;
    // An emulated machine begins with it, and without modules there is nothing else to load.
    let busybox = (found == Machine::Qemu || modules.is_some()).then(busybox).transpose()?;
    Ok(Kernel { machine: found, file, modules, busybox, preload: preload(found)? })
}

/// Debian's.
pub(crate) fn fetched(machine: Machine) -> Result<Kernel> {
    let packages = Packages::open()?;
    let busybox = busybox()?;
    let (file, modules) = match machine {
        Machine::Uml => {
            let package = packages.unpacked("user-mode-linux")?;
            (package.join("usr/bin/linux.uml"), only_entry(&package.join("usr/lib/uml/modules"))?)
        }
        Machine::Qemu => {
            let name = packages.first_dependency(NEWEST)?;
            let package = packages.unpacked_and(&name, |tree| modules::decompress(tree, &busybox))?;
            let release = name.trim_start_matches("linux-image-");
            (
                package.join("boot").join(format!("vmlinuz-{release}")),
                package.join("lib/modules").join(release),
            )
        }
    };
    modules::index(&modules, &busybox)?;
    Ok(Kernel { machine, file, modules: Some(modules), busybox: Some(busybox), preload: preload(machine)? })
}

/// The package that names the newest kernel.
const NEWEST: &str = "linux-image-amd64";

fn preload(machine: Machine) -> Result<Option<PathBuf>> {
    match machine {
        Machine::Uml => registers::library(),
        Machine::Qemu => Ok(None),
    }
}

fn busybox() -> Result<PathBuf> {
    Ok(Packages::open()?.unpacked("busybox-static")?.join("bin/busybox"))
}

/// The one thing that is in a directory.
fn only_entry(directory: &Path) -> Result<PathBuf> {
    let failed = || format!("failed to read {}", directory.display());
    let mut entries = fs::read_dir(directory).with_context(failed)?;
    let entry = entries.next().with_context(|| format!("{} is empty", directory.display()))?;
    Ok(entry.with_context(failed)?.path())
}

fn head(file: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut head = Vec::new();
    fs::File::open(file)?.take(4096).read_to_end(&mut head)?;
    Ok(head)
}

/// What kind of guest a kernel is for, from how its file begins: User Mode Linux is a program; a kernel for machines is
/// compressed behind a boot sector (`HdrS` at 0x202, `Documentation/arch/x86/boot.rst`), or a program to be loaded
/// into the upper half of the addresses (elf(5): the first segment's virtual address).
fn machine_of(head: &[u8]) -> Option<Machine> {
    if head.get(0x202..0x206) == Some(b"HdrS") {
        return Some(Machine::Qemu);
    }
    let number = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    // e_phoff, then p_vaddr of the first entry.
    let segments = usize::try_from(number(0x20)?).ok()?;
    let address = number(segments.checked_add(0x10)?)?;
    Some(if address >> 63 == 1 { Machine::Qemu } else { Machine::Uml })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_its_beginning() {
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(machine_of(&image), Some(Machine::Qemu));
        let mut program = vec![0; 0x100];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        program[0x20] = 0x40;
        program[0x50..0x58].copy_from_slice(&0x6000_0000_u64.to_le_bytes());
        assert_eq!(machine_of(&program), Some(Machine::Uml));
        program[0x50..0x58].copy_from_slice(&0xffff_ffff_8100_0000_u64.to_le_bytes());
        assert_eq!(machine_of(&program), Some(Machine::Qemu));
        assert_eq!(machine_of(b"#!/bin/sh\n"), None);
        assert_eq!(machine_of(b"\x7fELF\x02\x01"), None);
    }
}
