//! The program that emulates a machine: the host's, or Debian's with all that it needs, fetched once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::packages::Packages;
use crate::process;

/// A qemu.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) enum Emulator {
    /// A program of the host.
    Installed(PathBuf),
    /// A tree of unpacked packages, with every library down to the C library.
    Unpacked(PathBuf),
}

/// The host's, or Debian's.
pub(crate) fn emulator() -> Result<Emulator> {
    match process::find("qemu-system-x86_64") {
        Some(program) => Ok(Emulator::Installed(program)),
        None => Packages::open()?.unpacked_with_all("qemu-system-x86").map(Emulator::Unpacked),
    }
}

impl Emulator {
    /// The program, without what it is to do.
    pub(crate) fn command(&self) -> Command {
        let tree = match self {
            Self::Installed(program) => return Command::new(program),
            Self::Unpacked(tree) => tree,
        };
        // With the tree's own loader and libraries; those of the host may be of other versions.
        let mut command = Command::new(tree.join("lib64/ld-linux-x86-64.so.2"));
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|folder| tree.join(folder));
        let libraries: Vec<String> = libraries.iter().map(|folder| folder.display().to_string()).collect();
        command.args(["--library-path", &libraries.join(":")]).arg(tree.join("usr/bin/qemu-system-x86_64"));
        for folder in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(tree.join(folder));
        }
        command.env("QEMU_MODULE_DIR", modules(tree));
        command
    }
}

fn modules(tree: &Path) -> PathBuf {
    tree.join("usr/lib/x86_64-linux-gnu/qemu")
}
