//! The guest's tree of files: the host's as the lowest layer, memory above it, and fresh directories where those of the
//! host mean nothing here.

use std::ffi::{CStr, CString};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_move, unmount};

use super::super::task::{Share, Task};

/// Where the share is in the end.
pub(super) const SHARE: &str = "/run/layerstack-vm";

/// What the guest has of its own: where, the type, the options.
const FRESH: [(&str, &str, &str); 7] = [
    ("proc", "proc", ""),
    ("sys", "sysfs", ""),
    ("dev", "devtmpfs", ""),
    ("dev/pts", "devpts", "mode=0620,ptmxmode=0666"),
    ("dev/shm", "tmpfs", "mode=1777"),
    ("run", "tmpfs", "mode=0755"),
    // Most of the memory is for this: file systems to test on are made here.
    ("tmp", "tmpfs", "mode=1777,size=80%"),
];

/// Makes the share visible, first of all, so that every failure can be told. What is mounted on the stage is out of sight
/// in the end.
pub(super) fn share(file_system: &str, source: &str, stage: &Path) -> Result<Share> {
    attach(stage, "tmpfs", "layerstack", "")?;
    let share = Share::at(stage.join("share"));
    fs::create_dir(share.path())?;
    let options = match file_system {
        // hostfs takes the host's directory as its options.
        "hostfs" => source,
        _ => "trans=virtio,version=9p2000.L,msize=524288,cache=none",
    };
    attach(share.path(), file_system, source, options)?;
    Ok(share)
}

/// Makes the tree and becomes a process in it; the share moves along.
pub(super) fn enter(task: &Task, share: &Share, stage: &Path) -> Result<()> {
    let [upper, work, root, plain] = ["upper", "work", "root", "plain"].map(|name| stage.join(name));
    for folder in [&upper, &work, &root, &plain] {
        fs::create_dir(folder)?;
    }
    fs::set_permissions(&upper, Permissions::from_mode(0o755))?;
    // By names that need no escapes.
    std::env::set_current_dir(stage)?;
    overlay(task, c"lowerdir=/,upperdir=upper,workdir=work", &root)?;
    // The same without what is mounted on it next.
    mount_bind(&root, &plain).context("failed to bind the tree")?;
    for (place, kind, options) in FRESH {
        let target = root.join(place);
        fs::create_dir_all(&target).with_context(|| format!("failed to make /{place}"))?;
        attach(&target, kind, kind, options)?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        // Some kernels make some of them.
        if !root.join("dev").join(link).exists() {
            symlink(target, root.join("dev").join(link))
                .with_context(|| format!("failed to make /dev/{link}"))?;
        }
    }
    for path in hidden(&task.keep) {
        let path = path.strip_prefix("/")?;
        fs::create_dir_all(root.join(path))?;
        mount_bind(plain.join(path), root.join(path))
            .with_context(|| format!("failed to show /{}", path.display()))?;
    }
    let target = root.join(SHARE.trim_start_matches('/'));
    fs::create_dir(&target)?;
    mount_move(share.path(), &target).context("failed to move the share")?;
    // Both names are one directory: the old tree comes to lie on the new one, and is taken away (pivot_root(2)).
    std::env::set_current_dir(&root)?;
    rustix::process::pivot_root(".", ".").context("failed to enter the tree")?;
    unmount(".", UnmountFlags::DETACH).context("failed to leave the host's tree")?;
    Ok(std::env::set_current_dir("/")?)
}

/// The directories in whose place the guest has one of its own, without those that lie in another of them.
fn hidden(directories: &[PathBuf]) -> Vec<&Path> {
    let mut found: Vec<&Path> =
        directories.iter().map(PathBuf::as_path).filter(|path| is_hidden(path)).collect();
    // A directory comes right before what lies in it.
    found.sort();
    found.dedup_by(|inner, outer| inner.starts_with(outer));
    found
}

/// Whether the guest has a directory of its own where the path lies.
fn is_hidden(path: &Path) -> bool {
    FRESH.iter().any(|(place, ..)| path.strip_prefix("/").is_ok_and(|path| path.starts_with(place)))
}

/// Mounts the overlay, with the module for it if the kernel has not built it in.
fn overlay(task: &Task, options: &CStr, target: &Path) -> Result<()> {
    // In a namespace of an ordinary user's the host's root is nobody, and its setuid programs (mount, su) would run as
    // that, without the rights of the guest's root.
    let is_roots = fs::metadata("/").context("failed to inspect the host's tree")?.uid() == 0;
    let flags = if is_roots { MountFlags::empty() } else { MountFlags::NOSUID };
    let attempt = || mount("overlay", target, "overlay", flags, options);
    let mounted = match (attempt(), &task.busybox, &task.modules) {
        (Err(Errno::NODEV), Some(busybox), Some(modules)) => {
            let module = ["overlay.ko", "overlay.ko.xz"]
                .map(|name| modules.join("kernel/fs/overlayfs").join(name))
                .into_iter()
                .find(|file| file.exists());
            let module = module.with_context(|| format!("{} has no overlay", modules.display()))?;
            crate::process::run(Command::new(busybox).arg("insmod").arg(module))?;
            attempt()
        }
        (done, ..) => done,
    };
    let hint = match (&mounted, &task.modules) {
        (Err(Errno::NODEV), None) => {
            "; the kernel has none built in, so give its modules with: --modules DIRECTORY"
        }
        _ => "",
    };
    mounted.with_context(|| format!("failed to mount an overlay over the host's files{hint}"))
}

fn attach(target: impl AsRef<Path>, kind: &str, source: &str, options: &str) -> Result<()> {
    let target = target.as_ref();
    let options = CString::new(options)?;
    mount(source, target, kind, MountFlags::empty(), Some(options.as_c_str()))
        .with_context(|| format!("failed to mount {kind} on {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_under_a_fresh_directory_is_hidden() {
        for path in ["/tmp", "/tmp/a", "/run/user/0", "/dev/shm/x"] {
            assert!(is_hidden(Path::new(path)), "{path}");
        }
        for path in ["/tmpx", "/home/run", "/", "/var/tmp/a"] {
            assert!(!is_hidden(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn what_lies_in_a_directory_that_is_shown_is_shown_with_it() {
        let keep = ["/tmp/a/target/deps", "/work", "/tmp/a", "/tmp/ab", "/tmp/a/target", "/run/x"]
            .map(PathBuf::from);
        assert_eq!(hidden(&keep), [Path::new("/run/x"), Path::new("/tmp/a"), Path::new("/tmp/ab")]);
    }
}
