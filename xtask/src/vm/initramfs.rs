//! The first file system of an emulated machine: loads what it takes to see the host's files, and goes on in those.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::kernel::Kernel;

/// What the kernel needs to see the host's files, unless it is built in.
const MODULES: [&str; 3] = ["virtio_pci", "9pnet_virtio", "9p"];

/// The archive, in the form that kernels take (`Documentation/driver-api/early-userspace/buffer-format.rst`).
pub(crate) fn archive(kernel: &Kernel, program: &Path, stage: &Path) -> Result<Vec<u8>> {
    let busybox = kernel.busybox.as_deref().context("an emulated machine needs a busybox")?;
    let mut archive = Archive::default();
    for folder in ["bin", "modules", "host"] {
        archive.folder(folder);
    }
    // What the kernel's own first steps write to.
    archive.folder("dev");
    archive.console("dev/console");
    archive.program("bin/busybox", &fs::read(busybox).context("failed to read busybox")?);
    let mut names = Vec::new();
    if let Some(modules) = &kernel.modules {
        let list = fs::read_to_string(modules.join("modules.dep")).context("failed to read modules.dep")?;
        for file in load_order(&list, &MODULES) {
            let name = file.rsplit('/').next().unwrap_or(file);
            archive.program(&format!("modules/{name}"), &fs::read(modules.join(file))?);
            names.push(name.to_owned());
        }
    }
    archive.program("init", script(&names, program, stage).as_bytes());
    Ok(archive.finish())
}

/// What the first process does. The host's files are read through a cache, as nobody changes them for the guest's sake.
fn script(modules: &[String], program: &Path, stage: &Path) -> String {
    let modules: Vec<String> =
        modules.iter().map(|name| format!("/bin/busybox insmod /modules/{name}\n")).collect();
    format!(
        "#!/bin/busybox sh\nset -e\n{}/bin/busybox mount -t 9p -o \
         ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose root /host\n\
         exec /bin/busybox switch_root /host {} vm-guest 9p share {}\n",
        modules.concat(),
        quoted(program),
        quoted(stage)
    )
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// The files of modules and all that they need, each after what it needs, from a `modules.dep`: lines of the form
/// `FILE: NEEDED NEEDED`, what is needed by others last.
fn load_order<'a>(list: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let mut order: Vec<&str> = Vec::new();
    for name in wanted {
        let line =
            list.lines().filter_map(|line| line.split_once(':')).find(|(file, _)| module_name(file) == *name);
        let Some((file, needed)) = line else { continue };
        for file in needed.split_whitespace().rev().chain([file]) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    order
}

/// The name of the module in a file: kernels take `-` and `_` as one.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

/// An archive being written.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), b"");
    }

    fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, 0o100_755, (0, 0), content);
    }

    /// Character device 5:1 (`Documentation/admin-guide/devices.txt`).
    fn console(&mut self, name: &str) {
        self.entry(name, 0o020_600, (5, 1), b"");
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.count += 1;
        let (size, name_size) = (content.len() as u64, name.len() as u64 + 1);
        let fields: [u64; 13] = [
            u64::from(self.count), // inode
            u64::from(mode),
            0, // user
            0, // group
            1, // links
            0, // time
            size,
            0, // device, major
            0, // and minor
            u64::from(major),
            u64::from(minor),
            name_size,
            0, // checksum, not used by this form
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let list = "kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/drivers/virtio/virtio.ko.xz\n\
                    kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
                    kernel/drivers/virtio/virtio-pci.ko.xz:\n";
        let names: Vec<String> = load_order(list, &MODULES).iter().map(|file| module_name(file)).collect();
        assert_eq!(names, ["virtio_pci", "virtio", "9pnet", "9pnet_virtio", "netfs", "9p"]);
        assert!(load_order("", &MODULES).is_empty());
    }

    #[test]
    fn an_archive_is_as_kernels_want_it() {
        let mut archive = Archive::default();
        archive.folder("a");
        archive.program("a/bc", b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ED"), "{text}");
        // The header has 110 bytes; name and content begin at multiples of four.
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..118], b"070701");
        assert_eq!(&bytes[112 + 110..112 + 115], b"a/bc\0");
        assert_eq!(&bytes[228..233], b"12345");
        assert!(text.contains("TRAILER!!!"));
    }

    #[test]
    fn the_first_process_hands_over() {
        let text = script(&["9p.ko".to_owned()], Path::new("/it's/xtask"), Path::new("/share"));
        assert!(
            text.starts_with("#!/bin/busybox sh\nset -e\n/bin/busybox insmod /modules/9p.ko\n"),
            "{text}"
        );
        assert!(text.ends_with("switch_root /host '/it'\\''s/xtask' vm-guest 9p share '/share'\n"), "{text}");
    }
}
