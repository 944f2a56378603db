//! `cargo xtask demo`: the whole life of an image and two containers, checked with tools that are not ours.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};

use crate::process;
use crate::setup::{self, Part};
use crate::workspace::{self, Metadata};

mod compare;
mod debian;
mod digests;
mod engine;
mod journal;
mod life;
mod small;
mod workplace;

use engine::Engine;
use journal::Journal;
use workplace::Workplace;

/// Make a real Debian image with tools that are not ours, and take it through its whole life.
///
/// Loads it, creates two containers, changes files, shows the diff, commits, saves, checks digests with a foreign
/// tool, shows the tree, and removes everything again. Needs root, for mounting.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An image of your own instead: an OCI layout (folder or archive) or a docker archive.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    /// The storage driver; by default the best that works here.
    #[arg(long, value_name = "NAME")]
    driver: Option<String>,

    /// A small image from the host's files, as where Debian's tools cannot be had.
    #[arg(long, conflicts_with = "image")]
    small: bool,

    /// Leave the images, the archives and the store where they are.
    #[arg(long)]
    keep: bool,
}

/// An image in a file or folder, in a form that skopeo names so: `oci-archive:…`, `oci:…`, `docker-archive:…`.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    form: Form,
}

/// The forms of an image on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    OciFolder,
    OciArchive,
    DockerArchive,
}

/// Runs the demo; whatever happens, removes what it made.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        process::is_root(),
        "mounting needs root; run: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask demo"
    );
    let journal = Journal::new()?;
    let missing = if args.small { Vec::new() } else { setup::provide(Part::Demo) };
    for missing in &missing {
        println!("{missing}");
    }
    let program = journal.step("build the engine", build)?;
    let workplace = Workplace::new(args.keep)?;
    let done = (|| {
        let source = source(args, missing.is_empty(), &workplace, &journal)?;
        let engine = Engine::new(program, workplace.path().join("root"), args.driver.as_deref());
        life::live(&engine, &source, workplace.path(), &journal)
    })();
    let removed = journal.step("remove everything", || workplace.remove());
    done?;
    removed?;
    journal.summary();
    Ok(ExitCode::SUCCESS)
}

fn build() -> Result<PathBuf> {
    process::run(workspace::cargo().args(["build", "--quiet", "--release", "--package", "layerstack-cli"]))?;
    Ok(Metadata::load()?.target_directory.join("release/layerstack"))
}

fn source(args: &Args, have_tools: bool, workplace: &Workplace, journal: &Journal) -> Result<Source> {
    if let Some(path) = &args.image {
        let path = path.canonicalize().with_context(|| format!("failed to find {}", path.display()))?;
        let form = form(&path)?;
        return Ok(Source { path, form });
    }
    if !args.small && have_tools {
        return debian::make(workplace.path(), journal);
    }
    println!(
        "making a small image from this host's files, because Debian's tools are not wanted or not to be had"
    );
    journal.step("make a small image from the host's files", || small::make(workplace.path()))
}

fn form(path: &Path) -> Result<Form> {
    if path.is_dir() {
        ensure!(path.join("oci-layout").exists(), "{} is a folder, but no OCI layout", path.display());
        return Ok(Form::OciFolder);
    }
    let names = process::output(std::process::Command::new("tar").arg("-tf").arg(path))?;
    let has = |wanted: &str| names.lines().any(|name| name.trim_start_matches("./") == wanted);
    ensure!(
        has("oci-layout") || has("manifest.json"),
        "{} holds neither an OCI layout nor a docker archive",
        path.display()
    );
    // docker save of 25 and later writes both; it is an OCI layout first.
    Ok(if has("oci-layout") { Form::OciArchive } else { Form::DockerArchive })
}
