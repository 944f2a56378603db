//! A Debian image, made by mmdebstrap and umoci.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::engine::foreign;
use super::journal::Journal;
use super::{Form, Source};

/// Makes an image of several layers, with deletions and an opaque directory, as an OCI archive.
pub(super) fn make(workplace: &Path, journal: &Journal) -> Result<Source> {
    let suite = suite();
    let root = workplace.join("debian.tar");
    journal.step(&format!("make the root file system of Debian {suite} with mmdebstrap"), || {
        // Without the documentation it is smaller by a third, and nobody reads it here.
        foreign(Command::new("mmdebstrap").args(["--quiet", "--variant=minbase", &suite]).arg(&root))
    })?;
    journal.go_on()?;
    let layout = workplace.join("debian");
    journal.step("make an image of it with umoci, and three layers on top", || {
        layers(workplace, &layout, &root)
    })?;
    let archive = workplace.join("debian.oci.tar");
    journal.step("pack it as an OCI archive with skopeo", || {
        let from = format!("oci:{}:demo", layout.display());
        foreign(Command::new("skopeo").args([
            "copy",
            "--quiet",
            &from,
            &format!("oci-archive:{}:demo", archive.display()),
        ]))
    })?;
    Ok(Source { path: archive, form: Form::OciArchive })
}

fn layers(workplace: &Path, layout: &Path, root: &Path) -> Result<()> {
    let image = format!("{}:demo", layout.display());
    let umoci = || Command::new("umoci");
    foreign(umoci().args(["init", "--layout"]).arg(layout))?;
    foreign(umoci().args(["new", "--image", &image]))?;
    foreign(umoci().args(["raw", "add-layer", "--image", &image]).arg(root))?;
    let files = workplace.join("files");
    fs::create_dir_all(files.join("bin"))?;
    fs::write(files.join("bin/serve"), "#!/bin/sh\nexec cat /srv/demo/page\n")?;
    fs::write(files.join("page"), "<h1>It works</h1>\n")?;
    foreign(umoci().args(["insert", "--image", &image]).arg(&files).arg("/srv/demo"))?;
    foreign(umoci().args(["insert", "--image", &image, "--opaque"]).arg(&files).arg("/etc/apt"))?;
    foreign(umoci().args(["insert", "--image", &image, "--whiteout", "/usr/share/zoneinfo"]))?;
    foreign(umoci().args(["config", "--image", &image, "--config.cmd", "/srv/demo/bin/serve"]))?;
    fs::remove_file(root).context("failed to remove the root file system's archive")
}

/// The host's own release where it is Debian: its keys are on the host. Else the one that this demo was made for.
fn suite() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    codename(&release).unwrap_or("bookworm").to_owned()
}

fn codename(release: &str) -> Option<&str> {
    let value = |key| {
        release.lines().find_map(|line: &str| line.strip_prefix(key)).map(|value| value.trim_matches('"'))
    };
    value("VERSION_CODENAME=").filter(|_| value("ID=") == Some("debian"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_has_debians_releases() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=trixie\n"), Some("trixie"));
        assert_eq!(codename("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(codename("ID=debian\n"), None);
    }
}
