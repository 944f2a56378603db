use super::*;
use crate::driver::{Candidate, Candidates, CtimeWindow, Scope};
use crate::mount::{Access, MountPlan};
use crate::tree::Tree;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A base, and a layer that started as its copy.
struct Pair {
    scratch: tempfile::TempDir,
}

impl Pair {
    fn new(base: impl FnOnce(&Path)) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let pair = Self { scratch };
        std::fs::create_dir(pair.base()).unwrap();
        base(&pair.base());
        run(Command::new("cp").arg("-a").args([pair.base(), pair.layer()]));
        pair
    }

    fn base(&self) -> PathBuf {
        self.scratch.path().join("base")
    }

    fn layer(&self) -> PathBuf {
        self.scratch.path().join("layer")
    }

    fn changes(&self, candidates: Candidates) -> Vec<String> {
        let changes = changes(&tree(&self.layer()), Some(&tree(&self.base())), candidates).unwrap();
        changes.iter().map(ToString::to_string).collect()
    }

    fn export(&self, candidates: Candidates) -> Vec<u8> {
        let mut tar = Vec::new();
        export(&tree(&self.layer()), Some(&tree(&self.base())), candidates, &mut tar).unwrap();
        tar
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn tree(path: &Path) -> Tree {
    Tree::open(&MountPlan::bind(path, Access::ReadOnly, "/none")).unwrap()
}

fn everywhere() -> Candidates {
    Candidates::All { untouched: Some(CtimeWindow::NEVER) }
}

fn at(paths: &[(&str, Scope)]) -> Candidates {
    let mut paths: Vec<Candidate> =
        paths.iter().map(|(path, scope)| Candidate { path: path.into(), scope: *scope }).collect();
    paths.sort_by(|a, b| a.path.components().cmp(b.path.components()));
    Candidates::Paths(Box::new(paths.into_iter().map(Ok)))
}

/// The names in a tar, as GNU tar lists them.
fn listed(tar: &[u8]) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("tar");
    std::fs::write(&file, tar).unwrap();
    run(Command::new("tar").args(["--quoting-style=literal", "-tf"]).arg(&file))
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_change_of_every_sort_in_order() {
    let pair = Pair::new(|base| {
        for directory in ["a", "b/deep/er", "gone/below", "tofile", "same"] {
            std::fs::create_dir_all(base.join(directory)).unwrap();
        }
        for file in
            ["a/f", "b/deep/er/x", "b/deep/er/y", "gone/below/z", "tofile/in", "todir", "same/s", "mode"]
        {
            std::fs::write(base.join(file), "old").unwrap();
        }
        symlink("x", base.join("link")).unwrap();
    });
    let layer = pair.layer();
    std::fs::write(layer.join("a/f"), "new content").unwrap();
    std::fs::remove_file(layer.join("b/deep/er/x")).unwrap();
    std::fs::write(layer.join("b/deep/er/n"), "").unwrap();
    std::fs::remove_dir_all(layer.join("gone")).unwrap();
    std::fs::remove_dir_all(layer.join("tofile")).unwrap();
    std::fs::write(layer.join("tofile"), "").unwrap();
    std::fs::remove_file(layer.join("todir")).unwrap();
    std::fs::create_dir(layer.join("todir")).unwrap();
    std::fs::write(layer.join("todir/new"), "").unwrap();
    std::fs::set_permissions(layer.join("mode"), PermissionsExt::from_mode(0o4711)).unwrap();
    std::fs::remove_file(layer.join("link")).unwrap();
    symlink("y", layer.join("link")).unwrap();
    let expected = [
        "C /a",
        "C /a/f",
        "C /b",
        "C /b/deep",
        "C /b/deep/er",
        "A /b/deep/er/n",
        "D /b/deep/er/x",
        "D /gone",
        "C /link",
        "C /mode",
        "C /todir",
        "A /todir/new",
        "C /tofile",
    ];
    assert_eq!(pair.changes(everywhere()), expected);
    assert_eq!(pair.changes(Candidates::All { untouched: None }), expected);
    assert_eq!(
        listed(&pair.export(everywhere())),
        [
            "./",
            "a/",
            "a/f",
            "b/",
            "b/deep/",
            "b/deep/er/",
            "b/deep/er/n",
            "b/deep/er/.wh.x",
            ".wh.gone",
            "link",
            "mode",
            "todir/",
            "todir/new",
            "tofile"
        ]
    );
    let narrowed = || {
        at(&[
            ("a/f", Scope::Entry),
            ("b/deep/er", Scope::Subtree),
            ("gone", Scope::Entry),
            ("link", Scope::Entry),
            ("mode", Scope::Entry),
            ("same/s", Scope::Entry),
            ("todir", Scope::Entry),
            ("tofile", Scope::Entry),
            ("tofile/in", Scope::Entry),
            ("none/at/all", Scope::Entry),
        ])
    };
    assert_eq!(pair.changes(narrowed()), expected);
    assert_eq!(pair.export(narrowed()), pair.export(everywhere()));
}
