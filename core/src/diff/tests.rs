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

/// Puts an edit into a layer, and says what the changes and the names in the tar are, the root left out.
fn edited(
    base: impl FnOnce(&Path),
    edit: impl FnOnce(&Path),
    candidates: impl Fn() -> Candidates,
) -> (Vec<String>, Vec<String>) {
    let pair = Pair::new(base);
    edit(&pair.layer());
    let mut names = listed(&pair.export(candidates()));
    names.retain(|name| name != "./");
    (pair.changes(candidates()), names)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Changes a byte and puts the mtime back.
fn edit_unseen(file: &Path) {
    let modified = std::fs::metadata(file).unwrap().modified().unwrap();
    let mut content = std::fs::read(file).unwrap();
    content[0] ^= 1;
    std::fs::write(file, content).unwrap();
    std::fs::File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
}

#[test]
fn a_directory_of_which_only_the_mtime_differs_is_in_the_tar_alone() {
    let (changes, names) = edited(
        |base| std::fs::create_dir_all(base.join("d/e")).unwrap(),
        |layer| {
            std::fs::write(layer.join("d/e/x"), "").unwrap();
            std::fs::remove_file(layer.join("d/e/x")).unwrap();
        },
        everywhere,
    );
    assert_eq!((changes, names), (vec![], words(&["d/", "d/e/"])));
}

#[test]
fn an_edit_that_only_the_content_tells_of_is_seen_where_the_ctime_is_outside_the_window() {
    let write = |base: &Path| std::fs::write(base.join("f"), "1234").unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let long_ago = CtimeWindow { from_ns: 0, to_ns: i128::from(now - 1) * 1_000_000_000 };
    let always = CtimeWindow { from_ns: i128::MIN, to_ns: i128::MAX };
    for (candidates, seen) in [
        (Candidates::All { untouched: Some(CtimeWindow::NEVER) }, true),
        (Candidates::All { untouched: Some(long_ago) }, true),
        (Candidates::All { untouched: Some(always) }, false),
        (Candidates::All { untouched: None }, false),
        (at(&[("f", Scope::Entry)]), true),
        (at(&[("", Scope::Subtree)]), true),
        (at(&[("", Scope::Entry)]), false),
    ] {
        let pair = Pair::new(write);
        edit_unseen(&pair.layer().join("f"));
        let shown = format!("{candidates:?}");
        assert_eq!(pair.changes(candidates), words(if seen { &["C /f"] } else { &[] }), "{shown}");
    }
}

#[test]
fn attributes_and_access_lists_alone_are_a_change() {
    for key in [c"user.note", c"trusted.note", c"security.capability", c"system.posix_acl_access"] {
        let value: &[u8] = match key.to_bytes() {
            // struct vfs_cap_data, revision 2, cap_net_raw permitted: linux/capability.h.
            b"security.capability" => &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            // struct posix_acl_xattr_header and entries u::rw-, u:1:r--, g::r--, m::r--, o::r--, so mode 0644.
            b"system.posix_acl_access" => &[
                2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 1, 0, 0, 0, 4, 0, 4, 0, 255, 255,
                255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
            ],
            _ => b"x",
        };
        let (changes, names) = edited(
            |base| {
                std::fs::write(base.join("f"), "1234").unwrap();
                std::fs::set_permissions(base.join("f"), PermissionsExt::from_mode(0o644)).unwrap();
            },
            |layer| crate::fs::xattr::set(std::fs::File::open(layer).unwrap(), c"f", key, value).unwrap(),
            || Candidates::All { untouched: None },
        );
        assert_eq!((changes, names), (words(&["C /f"]), words(&["f"])), "{key:?}");
    }
}

#[test]
fn a_socket_is_a_change_that_the_tar_cannot_hold() {
    let socket = |path: PathBuf| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    let (changes, names) = edited(
        |base| {
            std::fs::create_dir(base.join("d")).unwrap();
            std::fs::write(base.join("d/taken"), "").unwrap();
            socket(base.join("d/there"));
            socket(base.join("d/gone"));
        },
        |layer| {
            std::fs::remove_file(layer.join("d/taken")).unwrap();
            std::fs::remove_file(layer.join("d/gone")).unwrap();
            std::fs::set_permissions(layer.join("d/there"), PermissionsExt::from_mode(0o600)).unwrap();
            socket(layer.join("d/taken"));
            socket(layer.join("d/new"));
        },
        everywhere,
    );
    assert_eq!(changes, ["C /d", "D /d/gone", "A /d/new", "C /d/taken", "C /d/there"]);
    assert_eq!(names, ["d/", "d/.wh.gone", "d/.wh.taken"]);
}

#[test]
fn links_are_kept_and_only_what_changed_is_listed() {
    let base = |base: &Path| {
        std::fs::write(base.join("a"), "content").unwrap();
        std::fs::hard_link(base.join("a"), base.join("b")).unwrap();
        std::fs::write(base.join("lower"), "content").unwrap();
    };
    // Another name for a file that did not change brings the file itself along.
    let linked = |layer: &Path| std::fs::hard_link(layer.join("lower"), layer.join("new")).unwrap();
    assert_eq!(edited(base, linked, everywhere), (words(&["A /new"]), words(&["lower", "new"])));
    let before = |layer: &Path| std::fs::hard_link(layer.join("lower"), layer.join("0")).unwrap();
    assert_eq!(edited(base, before, everywhere), (words(&["A /0"]), words(&["0", "lower"])));
    // One name less leaves the other alone.
    let fewer = |layer: &Path| std::fs::remove_file(layer.join("a")).unwrap();
    assert_eq!(edited(base, fewer, everywhere), (words(&["D /a"]), words(&[".wh.a"])));
    // As does one that became a file of its own.
    let own = |layer: &Path| {
        std::fs::remove_file(layer.join("a")).unwrap();
        std::fs::write(layer.join("a"), "other").unwrap();
    };
    assert_eq!(edited(base, own, everywhere), (words(&["C /a"]), words(&["a"])));
    // Broken apart with all else equal: no change, but in the tar.
    let apart = |layer: &Path| {
        let output = Command::new("cp").arg("-p").arg(layer.join("a")).arg(layer.join("c")).output().unwrap();
        assert!(output.status.success());
        std::fs::rename(layer.join("c"), layer.join("a")).unwrap();
    };
    assert_eq!(edited(base, apart, everywhere), (vec![], words(&["a"])));
    // Links among what is new: the content once.
    let pair = Pair::new(base);
    std::fs::write(pair.layer().join("x"), vec![7; 100_000]).unwrap();
    std::fs::hard_link(pair.layer().join("x"), pair.layer().join("y")).unwrap();
    let mut tar = Vec::new();
    let summary = export(&tree(&pair.layer()), Some(&tree(&pair.base())), everywhere(), &mut tar).unwrap();
    assert_eq!(summary, DiffSummary { entries: 3, bytes: 100_000 });
}

#[test]
fn a_name_that_looks_like_a_whiteout_cannot_be_exported_and_is_named() {
    for name in [".wh.x", ".wh.", ".wh..wh..opq"] {
        let pair = Pair::new(|base| std::fs::create_dir(base.join("d")).unwrap());
        std::fs::write(pair.layer().join("d").join(name), "").unwrap();
        assert_eq!(pair.changes(everywhere()), ["C /d".to_owned(), format!("A /d/{name}")]);
        let (layer, base) = (tree(&pair.layer()), tree(&pair.base()));
        let error = export(&layer, Some(&base), everywhere(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        assert_eq!(error.path(), Some(Path::new("d").join(name).as_path()));
        // Where it does not change it does no harm.
        export(&layer, Some(&layer), everywhere(), &mut Vec::new()).unwrap();
    }
}

#[test]
fn candidates_must_be_in_order_and_inside() {
    let pair = Pair::new(|base| {
        std::fs::create_dir(base.join("a")).unwrap();
        symlink("/etc", base.join("link")).unwrap();
    });
    let given = |paths: &[&str]| {
        let paths: Vec<Candidate> =
            paths.iter().map(|path| Candidate { path: path.into(), scope: Scope::Entry }).collect();
        let candidates = Candidates::Paths(Box::new(paths.into_iter().map(Ok)));
        changes(&tree(&pair.layer()), Some(&tree(&pair.base())), candidates)
    };
    assert_eq!(given(&["", "a", "a/b", "a.b", "link/passwd", "none/x", "none/x"]).unwrap(), []);
    for wrong in [&["a.b", "a/b"][..], &["b", "a"], &["../x"], &["/etc/passwd"], &["a", ""]] {
        assert!(given(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_big_file_with_holes_is_exported_whole() {
    let pair = Pair::new(|_| {});
    let file = std::fs::File::create(pair.layer().join("f")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 3_000_000).unwrap();
    file.set_len(4_000_000).unwrap();
    let tar = pair.export(everywhere());
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("tar"), &tar).unwrap();
    run(Command::new("tar").arg("-xf").arg(scratch.path().join("tar")).arg("-C").arg(scratch.path()));
    let content = std::fs::read(scratch.path().join("f")).unwrap();
    assert_eq!(content, std::fs::read(pair.layer().join("f")).unwrap());
}
