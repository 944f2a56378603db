//! The kernel's modules: found by the kernel itself and by `modprobe`, as on a machine that has them installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::mount_bind;

use super::super::task::Task;
use super::text;

/// What drivers of storage ask the kernel for before they use it, so that nothing loads it by itself.
const ASKED_FOR: [&str; 1] = ["dm-thin-pool"];

/// Puts the modules where they are looked for, and makes the device nodes on whose opening the kernel loads some.
pub(super) fn provide(task: &Task) -> Result<()> {
    let Some(modules) = &task.modules else { return Ok(()) };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    ensure!(
        modules.file_name().is_some_and(|name| name == release.as_str()),
        "{} has the modules of another kernel: this is {release}",
        modules.display()
    );
    let target = Path::new("/lib/modules").join(&release);
    fs::create_dir_all(&target).with_context(|| format!("failed to make {}", target.display()))?;
    mount_bind(modules, &target).context("failed to show the modules")?;
    // Where the kernel looks for it (/proc/sys/kernel/modprobe). That of kmod takes no lists but its own depmod's.
    let loader = Path::new("/sbin/modprobe");
    if let Some(busybox) = &task.busybox
        && !(loader.exists() && modules.join("modules.dep.bin").exists())
    {
        match fs::remove_file(loader) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("failed to replace modprobe");
            }
            _ => symlink(busybox, loader).context("failed to provide modprobe")?,
        }
    }
    for node in text(modules.join("modules.devname")).lines().filter_map(Node::parse) {
        node.make().with_context(|| format!("failed to make /dev/{}", node.name))?;
    }
    for module in ASKED_FOR {
        // A kernel may lack it; then a driver says so.
        crate::process::succeeds(Command::new(loader).arg(module));
    }
    Ok(())
}

/// A device node that stands for a module which is not loaded yet.
#[derive(Debug, PartialEq, Eq)]
struct Node<'a> {
    name: &'a str,
    kind: FileType,
    major: u32,
    minor: u32,
}

impl<'a> Node<'a> {
    /// A line of `modules.devname`: `MODULE NAME TYPE MAJOR:MINOR`, with no space before the numbers.
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (_, name, numbers) = (words.next().filter(|word| *word != "#")?, words.next()?, words.next()?);
        let kind = match numbers.chars().next()? {
            'c' => FileType::CharacterDevice,
            'b' => FileType::BlockDevice,
            _ => return None,
        };
        let (major, minor) = numbers[1..].split_once(':')?;
        Some(Self { name, kind, major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    fn make(&self) -> Result<()> {
        let path = Path::new("/dev").join(self.name);
        if path.exists() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(mknodat(CWD, &path, self.kind, Mode::RUSR | Mode::WUSR, makedev(self.major, self.minor))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_of_modules_are_understood() {
        let node = Node::parse("dm_mod mapper/control c10:236").unwrap();
        let wanted = Node { name: "mapper/control", kind: FileType::CharacterDevice, major: 10, minor: 236 };
        assert_eq!(node, wanted);
        assert_eq!(Node::parse("# Device nodes to trigger on-demand module loading."), None);
        assert_eq!(Node::parse("ppp_generic ppp x108:0"), None);
        assert_eq!(Node::parse(""), None);
    }
}
