//! A library for User Mode Linux on processors that have more registers than it knows; `registers.c` says what it does.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{process, workspace};

const SOURCE: &str = include_str!("registers.c");

/// The library, compiled if it is not there yet; none where the processor needs none.
pub(crate) fn library() -> Result<Option<PathBuf>> {
    if !has_tiles(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()) {
        return Ok(None);
    }
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let home = workspace::cache()?.join("vm");
    let library = home.join(format!("registers-{:016x}.so", hasher.finish()));
    if !library.exists() {
        ensure!(
            process::find("cc").is_some(),
            "User Mode Linux does not know this processor's AMX, and what helps has to be compiled: apt-get install \
             gcc libc6-dev"
        );
        fs::create_dir_all(&home).with_context(|| format!("failed to make {}", home.display()))?;
        let scratch = tempfile::Builder::new().prefix("half-").tempdir_in(&home)?;
        let (source, made) = (scratch.path().join("registers.c"), scratch.path().join("registers.so"));
        fs::write(&source, SOURCE)?;
        process::output(Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&made).arg(&source))?;
        fs::rename(&made, &library).with_context(|| format!("failed to make {}", library.display()))?;
    }
    Ok(Some(library.canonicalize()?))
}

/// Whether the processor has AMX, whose registers ("tiles") come after those that User Mode Linux knows.
fn has_tiles(processors: &str) -> bool {
    let flags = processors.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "amx_tile")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_seen() {
        assert!(has_tiles("processor\t: 0\nflags\t\t: fpu avx512f amx_tile\nbugs\t: x\n"));
        assert!(!has_tiles("flags\t\t: fpu avx512f amx_tiles\n"));
        assert!(!has_tiles(""));
    }
}
