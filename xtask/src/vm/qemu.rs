//! The command line of an emulated machine.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::emulator::Emulator;
use super::initramfs;
use super::kernel::Kernel;
use super::task::Share;
use crate::workspace;

/// The guest's terminal for a shell: its second serial line.
pub(crate) const TERMINAL: &str = "/dev/ttyS1";

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The processor itself.
    Kvm,
    /// Translation, which is slow and works everywhere.
    Tcg,
}

/// Whether KVM can be tried; that its device can be opened does not mean that it works.
pub(crate) fn may_use_kvm() -> bool {
    let refuted = || Some(fs::read_to_string(verdict()?).ok()? == fs::read_to_string(BOOT).ok()?);
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok() && refuted() != Some(true)
}

/// Notes that no guest came to life with KVM, until the host boots anew.
pub(crate) fn note_no_kvm() {
    // Without the note the next run finds out again.
    let _ = verdict().map(|file| fs::copy(BOOT, file));
}

/// Another at each boot (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

fn verdict() -> Option<PathBuf> {
    workspace::cache().ok().map(|cache| cache.join("vm/boot-without-kvm"))
}

/// The guest. Its console goes to the standard output of the command.
pub(crate) fn command(
    kernel: &Kernel,
    emulator: &Emulator,
    accelerator: Accelerator,
    program: &Path,
    share: &Share,
    memory: u32,
    shell: bool,
) -> Result<Command> {
    let initial = share.file("initramfs");
    fs::write(&initial, initramfs::archive(kernel, program, share.path())?)
        .context("failed to write the initial file system")?;
    let mut command = emulator.command();
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    command.args(match accelerator {
        Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
        Accelerator::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
    });
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4);
    command.args(["-smp", &processors.to_string(), "-m", &format!("{memory}M")]);
    command.arg("-kernel").arg(&kernel.file).arg("-initrd").arg(&initial);
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    command.args(["-chardev", "file,id=console,path=/dev/fd/1", "-serial", "chardev:console"]);
    if shell {
        command.args(["-chardev", "serial,id=terminal,path=/dev/tty", "-serial", "chardev:terminal"]);
    }
    for (tag, path, extra) in [("root", Path::new("/"), ",readonly=on"), ("share", share.path(), "")] {
        // A comma in a value is written twice.
        let path = path.display().to_string().replace(',', ",,");
        let options = format!("local,id={tag},path={path},security_model=none,multidevs=remap{extra}");
        command.args(["-fsdev", &options]);
        command.args(["-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]);
    }
    command.args(["-device", "virtio-rng-pci"]);
    Ok(command)
}
