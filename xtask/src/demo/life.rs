//! The life of an image and two containers.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::compare;
use super::digests::Digests;
use super::engine::{Engine, foreign};
use super::journal::Journal;
use super::{Form, Source};
use crate::process;

/// The image as it is called once it is loaded.
const IMAGE: &str = "demo/image:loaded";
/// The image made from a changed container.
const CHANGED: &str = "demo/image:changed";

/// From loading to removing, with what must hold after each step.
pub(super) fn live(engine: &Engine, source: &Source, workplace: &Path, journal: &Journal) -> Result<()> {
    journal.step("look at what this host offers", || {
        engine.run(&["drivers"])?;
        engine.run(&["info"])
    })?;
    journal.step("load the image", || {
        engine.run(&["load", "--name", IMAGE, "--input", &text(&source.path)])?;
        engine.run(&["images"])?;
        engine.run(&["history", IMAGE])
    })?;
    journal.go_on()?;
    let original = journal.step("ask a foreign tool for its digests", || Digests::of(source))?;
    let changes = journal.step("change files in one of two containers", || change(engine))?;
    journal.step("show what the container changed", || {
        let diff = engine.run(&["diff", "one"])?;
        for change in &changes {
            ensure!(diff.lines().any(|line| line == change), "the diff does not show: {change}");
        }
        Ok(())
    })?;
    journal.go_on()?;
    journal.step("commit the container as an image", || {
        engine.run(&["umount", "one"])?;
        engine.run(&["umount", "two"])?;
        engine.run(&["commit", "--message", "changed by the demo", "one", CHANGED])?;
        engine.run(&["history", CHANGED])
    })?;
    journal.go_on()?;
    let saved = journal.step("save the loaded image, and compare it with the original", || {
        save_and_compare(engine, source.form, workplace, &original)
    })?;
    fs::remove_file(&saved).with_context(|| format!("failed to remove {}", saved.display()))?;
    journal.step("save the committed image, and unpack it with a foreign tool", || {
        check_committed(engine, workplace, &changes)
    })?;
    journal.go_on()?;
    journal.step("show the layers, and who uses them", || {
        engine.run(&["ps"])?;
        engine.run(&["tree"])?;
        engine.run(&["df"])
    })?;
    journal.step("remove the containers, and see that the image is as it was", || {
        engine.run(&["rm", "one", "two"])?;
        engine.run(&["rmi", CHANGED])?;
        save_and_compare(engine, source.form, workplace, &original)
    })?;
    journal.step("remove the image, and see that nothing is left", || {
        engine.run(&["rmi", IMAGE])?;
        engine.run(&["prune", "--all", "--force"])?;
        engine.run(&["check"])?;
        for listing in ["images", "ps", "tree"] {
            let left = engine.quietly(&[listing, "--format", "json"])?;
            ensure!(left.trim() == "[]", "{listing} still lists: {left}");
        }
        Ok(())
    })
}

/// Changes files in the container `one`, and gives the lines in which its diff must say so.
fn change(engine: &Engine) -> Result<Vec<String>> {
    let mut mounted = Vec::new();
    for name in ["one", "two"] {
        engine.run(&["create", "--name", name, IMAGE])?;
        mounted.push(PathBuf::from(engine.run(&["mount", name])?.trim_end_matches('\n')));
    }
    let [one, two] = mounted.as_slice() else { anyhow::bail!("there are two containers") };
    let mut changes = vec!["A /layerstack-demo".to_owned(), "A /layerstack-demo/hello".to_owned()];
    fs::create_dir(one.join("layerstack-demo"))?;
    fs::write(one.join("layerstack-demo/hello"), "hello from a container\n")?;
    let files = plain_files(one, 2)?;
    if let [appended, deleted] = files.as_slice() {
        fs::OpenOptions::new().append(true).open(one.join(appended))?.write_all(b"# changed\n")?;
        changes.push(format!("C /{}", appended.display()));
        fs::remove_file(one.join(deleted))?;
        changes.push(format!("D /{}", deleted.display()));
        println!("    appended to /{}, deleted /{}", appended.display(), deleted.display());
        ensure!(two.join(deleted).exists(), "what one container deleted is gone in the other");
    }
    ensure!(!two.join("layerstack-demo").exists(), "what one container made is in the other");
    Ok(changes)
}

/// The first files of a tree by name, folders in it included, relative to it. Only those that have one name, so that a
/// change of one shows as one change.
fn plain_files(root: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let mut entries = fs::read_dir(root.join(&folder))?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = folder.join(entry.file_name());
            let data = entry.metadata()?;
            if data.is_dir() {
                folders.push(path);
            } else if data.is_file() && std::os::unix::fs::MetadataExt::nlink(&data) == 1 {
                found.push(path);
                if found.len() == count {
                    return Ok(found);
                }
            }
        }
    }
    Ok(found)
}

/// Saves the loaded image in the form in which it came, as an archive; a foreign tool must find the same digests.
fn save_and_compare(engine: &Engine, form: Form, workplace: &Path, original: &Digests) -> Result<PathBuf> {
    let form = if form == Form::DockerArchive { form } else { Form::OciArchive };
    let path = workplace.join("saved.tar");
    let kind = if form == Form::DockerArchive { "docker" } else { "oci" };
    engine.run(&["save", "--output", &text(&path), "--type", kind, IMAGE])?;
    let saved = Digests::of(&Source { path: path.clone(), form })?;
    ensure!(saved == *original, "the saved image differs: {saved:?} is not {original:?}");
    println!("    config {} is the same", saved.config);
    for layer in &saved.layers {
        println!("    layer  {layer} is the same");
    }
    Ok(path)
}

/// Saves the committed image and unpacks it with umoci: its tree must be that of a container of the image.
fn check_committed(engine: &Engine, workplace: &Path, changes: &[String]) -> Result<()> {
    let archive = workplace.join("changed.oci.tar");
    engine.run(&["save", "--output", &text(&archive), "--type", "oci", CHANGED])?;
    let digests = Digests::of(&Source { path: archive.clone(), form: Form::OciArchive })?;
    println!(
        "    {} layers, the topmost is {}",
        digests.layers.len(),
        digests.layers.last().map_or("none", |l| l)
    );
    if process::find("skopeo").is_none() || process::find("umoci").is_none() {
        println!("    not unpacked: skopeo and umoci are missing");
        return Ok(());
    }
    let layout = workplace.join("changed");
    let unpacked = workplace.join("unpacked");
    let from = format!("oci-archive:{}", archive.display());
    foreign(Command::new("skopeo").args([
        "copy",
        "--quiet",
        &from,
        &format!("oci:{}:demo", layout.display()),
    ]))?;
    foreign(
        Command::new("umoci")
            .args(["raw", "unpack", "--image", &format!("{}:demo", layout.display())])
            .arg(&unpacked),
    )?;
    engine.run(&["create", "--name", "three", CHANGED])?;
    let three = PathBuf::from(engine.run(&["mount", "three"])?.trim_end_matches('\n'));
    for (tree, whose) in [(&unpacked, "umoci"), (&three, "layerstack")] {
        for change in changes {
            let (kind, path) = change.split_at(3);
            ensure!(
                tree.join(path).exists() != kind.starts_with('D'),
                "{change} does not hold in the tree of {whose}"
            );
        }
    }
    compare::must_be_equal(&unpacked, &three)?;
    println!("    umoci's tree and ours are equal");
    engine.run(&["umount", "three"])?;
    engine.run(&["rm", "three"])?;
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_several_names_and_links_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("d")).unwrap();
        for name in ["b", "d/a", "c"] {
            fs::write(path(name), "").unwrap();
        }
        fs::hard_link(path("b"), path("b2")).unwrap();
        std::os::unix::fs::symlink("c", path("a")).unwrap();
        assert_eq!(plain_files(root.path(), 2).unwrap(), [Path::new("c"), Path::new("d/a")]);
        assert_eq!(plain_files(root.path(), 9).unwrap().len(), 2);
    }
}
