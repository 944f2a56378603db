//! A kernel's modules as its package has them, made ready: decompressed where they are compressed, which busybox's tools do
//! not take, and with the lists that tell which one is needed when, which the package leaves to the installation
//! (depmod(8)).

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// The device nodes on whose opening the kernel loads a module.
const NODES: &str = "modules.devname";

/// Decompresses all modules below a directory.
pub(crate) fn decompress(tree: &Path, busybox: &Path) -> Result<()> {
    let mut find = Command::new(busybox);
    find.arg("find").arg(tree).args(["-name", "*.ko.xz", "-exec"]).arg(busybox).args(["unxz", "{}", "+"]);
    process::output(&mut find).map(drop)
}

/// Makes the lists in a directory of modules, unless they are there.
pub(crate) fn index(modules: &Path, busybox: &Path) -> Result<()> {
    if modules.join(NODES).exists() {
        return Ok(());
    }
    // It wants `BASE/lib/modules/RELEASE`.
    let base = tempfile::tempdir().context("failed to make a temporary folder")?;
    let release = modules.file_name().context("the directory of the modules has no name")?;
    fs::create_dir_all(base.path().join("lib/modules"))?;
    symlink(modules, base.path().join("lib/modules").join(release))?;
    process::output(Command::new(busybox).args(["depmod", "-b"]).arg(base.path()).arg(release))?;
    let aliases =
        fs::read_to_string(modules.join("modules.alias")).context("depmod wrote no modules.alias")?;
    // The last of the lists, so that it stands for all of them; two runs at once write the same.
    let half = modules.join(format!("{NODES}.{}", std::process::id()));
    fs::write(&half, nodes(&aliases)).and_then(|()| fs::rename(&half, modules.join(NODES)))?;
    Ok(())
}

/// The nodes as depmod(8) of kmod writes them, from the names that modules give themselves: `devname:NAME`, and
/// `char-major-MAJOR-MINOR` or `block-major-MAJOR-MINOR`.
fn nodes(aliases: &str) -> String {
    let pairs: Vec<(&str, &str)> =
        aliases.lines().filter_map(|line| line.strip_prefix("alias ")?.split_once(' ')).collect();
    let mut text = String::new();
    for (name, module) in
        pairs.iter().filter_map(|(alias, module)| Some((alias.strip_prefix("devname:")?, module)))
    {
        let device = pairs.iter().filter(|(_, other)| other == module).find_map(|(alias, _)| device(alias));
        if let Some(device) = device {
            let _ = writeln!(text, "{module} {name} {device}");
        }
    }
    text
}

fn device(alias: &str) -> Option<String> {
    let (kind, numbers) = alias.split_once("-major-")?;
    let kind = kind.chars().next().filter(|kind| "cb".contains(*kind))?;
    let (major, minor) = numbers.split_once('-')?;
    // A module for a whole range of devices names its node by another number.
    (minor != "*").then(|| format!("{kind}{major}:{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_follow_from_the_names_of_modules() {
        let aliases = "# Aliases\nalias char-major-10-236 dm_mod\nalias devname:mapper/control dm_mod\n\
                       alias devname:loop-control loop\nalias block-major-7-* loop\nalias char-major-10-237 loop\n\
                       alias fs-xfs xfs\nalias devname:lost gone\n";
        assert_eq!(nodes(aliases), "dm_mod mapper/control c10:236\nloop loop-control c10:237\n");
    }
}
