//! Data set A: what a real image is like. Five layers of unpacked Debian packages; the fifth also deletes files of the
//! others (whiteouts) and replaces a directory (an opaque one).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::data::files;
use crate::process;

/// The packages of each layer: a base system, Python, a compiler, libraries for development, tools. All of Debian 12.
const LAYERS: [&[&str]; 5] = [
    &[
        "bash",
        "coreutils",
        "libc6",
        "perl",
        "perl-base",
        "perl-modules-5.36",
        "libperl5.36",
        "dpkg",
        "apt",
        "tzdata",
    ],
    &[
        "libpython3.11-minimal",
        "libpython3.11-stdlib",
        "libpython3.11-dev",
        "python3.11",
        "python3.11-minimal",
    ],
    &[
        "gcc-12",
        "g++-12",
        "cpp-12",
        "libgcc-12-dev",
        "libstdc++-12-dev",
        "binutils-x86-64-linux-gnu",
        "linux-libc-dev",
    ],
    &["libboost1.74-dev", "libicu-dev", "libicu72", "llvm-14", "llvm-14-dev", "llvm-14-runtime", "libllvm14"],
    &[
        "git",
        "git-man",
        "vim-runtime",
        "manpages",
        "manpages-dev",
        "libssl-dev",
        "cmake-data",
        "golang-1.19-src",
    ],
];

/// Paths of lower layers that the fifth one deletes, as whiteouts.
const DELETED: [&str; 3] = ["usr/share/zoneinfo", "usr/lib/python3.11/unittest", "usr/include/boost/spirit"];

/// A directory of a lower layer that the fifth one replaces.
const REPLACED: &str = "usr/share/perl/5.36.0";

/// The layer tars, made if they are not there yet.
pub(crate) fn layers(cache: &Path) -> Result<Vec<PathBuf>> {
    let directory = cache.join("A");
    if !directory.exists() {
        let scratch = tempfile::Builder::new().prefix("A.half-").tempdir_in(cache)?;
        make(scratch.path())?;
        fs::rename(scratch.path().join("layers"), &directory)
            .with_context(|| format!("failed to make {}", directory.display()))?;
    }
    files(&directory)
}

fn make(scratch: &Path) -> Result<()> {
    fs::create_dir(scratch.join("layers"))?;
    for (packages, number) in LAYERS.iter().zip(1..) {
        let (downloads, tree) = (scratch.join("packages"), scratch.join("tree"));
        fs::create_dir(&downloads)?;
        fs::create_dir(&tree)?;
        let mut download = Command::new("apt-get");
        download.args(["-q", "download", "-o", "APT::Sandbox::User=root"]).args(packages.iter());
        process::output(download.current_dir(&downloads))
            .context("data set A is made of Debian's packages; apt-get update may help")?;
        for package in files(&downloads)? {
            process::output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&tree))?;
        }
        if number == LAYERS.len() {
            delete(&tree)?;
        }
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sort=name", "--numeric-owner", "--format=pax"]);
        tar.args(["--pax-option=delete=atime,delete=ctime", "--transform=flags=r;s,^\\./,,"]);
        tar.arg("--file")
            .arg(scratch.join(format!("layers/{number}.tar")))
            .arg("--directory")
            .arg(&tree)
            .arg(".");
        process::output(&mut tar)?;
        fs::remove_dir_all(downloads)?;
        fs::remove_dir_all(tree)?;
    }
    Ok(())
}

/// Adds whiteouts as the OCI image specification has them.
fn delete(tree: &Path) -> Result<()> {
    for path in DELETED.map(Path::new) {
        let directory = tree.join(path.parent().unwrap_or(Path::new("")));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        fs::create_dir_all(&directory)?;
        File::create(directory.join(format!(".wh.{name}")))?;
    }
    let replaced = tree.join(REPLACED);
    fs::create_dir_all(&replaced)?;
    File::create(replaced.join(".wh..wh..opq"))?;
    fs::write(replaced.join("README"), "replaced\n")?;
    Ok(())
}
