//! What the workspace needs from the host, what for, and which Debian package brings it.

use std::path::Path;

use crate::process;

/// One thing that the host must have.
#[derive(Debug)]
pub(crate) struct Need {
    /// The Debian package.
    pub(crate) package: &'static str,
    /// How one sees that it is there.
    pub(crate) sign: Sign,
    /// What it is needed for.
    pub(crate) purpose: &'static str,
    /// The part of the work that needs it.
    pub(crate) part: Part,
}

/// How one sees that a package, or something as good, is there.
#[derive(Debug)]
pub(crate) enum Sign {
    /// A program.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

/// The parts of the work that have needs of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Building anything, and `cargo xtask test`.
    Test,
    /// `cargo xtask demo`.
    Demo,
}

impl Need {
    /// Whether the host has it.
    pub(crate) fn is_met(&self) -> bool {
        match self.sign {
            Sign::Program(program) => process::find(program).is_some(),
            Sign::File(file) => Path::new(file).exists(),
        }
    }
}

const fn program(package: &'static str, program: &'static str, part: Part, purpose: &'static str) -> Need {
    Need { package, sign: Sign::Program(program), purpose, part }
}

const fn file(package: &'static str, file: &'static str, purpose: &'static str) -> Need {
    Need { package, sign: Sign::File(file), purpose, part: Part::Test }
}

/// Everything, in the order in which it is shown.
pub(crate) const NEEDS: [Need; 17] = [
    program("gcc", "cc", Part::Test, "links every Rust program, and the C program of the link check"),
    file(
        "libc6-dev",
        "/usr/include/stdio.h",
        "headers for SQLite, which the image store compiles in, and for the link check",
    ),
    file("libdevmapper-dev", "/usr/include/libdevmapper.h", "headers for the driver devicemapper"),
    file("libudev-dev", "/usr/include/libudev.h", "headers for the driver devicemapper"),
    file("libselinux1-dev", "/usr/include/selinux/selinux.h", "headers for the driver devicemapper"),
    program("mount", "losetup", Part::Test, "loop devices for the scratch stores of the conformance suite"),
    program(
        "util-linux",
        "unshare",
        Part::Test,
        "private mounts, so that a killed run leaves nothing mounted",
    ),
    program("e2fsprogs", "mkfs.ext4", Part::Test, "scratch stores on ext4"),
    program("xfsprogs", "mkfs.xfs", Part::Test, "scratch stores on xfs"),
    program("btrfs-progs", "mkfs.btrfs", Part::Test, "scratch stores on btrfs"),
    file(
        "libclang-14-dev",
        "/usr/lib/llvm-14/lib/libclang.so.1",
        "reads the headers of the C libraries that drivers are linked with",
    ),
    file("libbtrfsutil-dev", "/usr/include/btrfsutil.h", "the library of the driver btrfs"),
    program("acl", "setfacl", Part::Test, "an independent look at access control lists"),
    program("attr", "getfattr", Part::Test, "an independent look at extended attributes"),
    program("mmdebstrap", "mmdebstrap", Part::Demo, "makes the Debian root file system of the demo's image"),
    program("umoci", "umoci", Part::Demo, "makes the image, and unpacks what layerstack saved"),
    program("skopeo", "skopeo", Part::Demo, "converts images and computes their digests on its own"),
];
