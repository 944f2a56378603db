use super::*;
use crate::mount::Access;
use std::os::unix::fs::symlink;

fn tree(directory: &Path) -> Tree {
    Tree::open(&MountPlan::bind(directory, Access::ReadOnly, "/none")).unwrap()
}

#[test]
fn paths_are_found_inside_and_lead_nowhere_else() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    std::fs::create_dir_all(root.join("d/e")).unwrap();
    std::fs::write(scratch.path().join("outside"), "secret").unwrap();
    std::fs::write(root.join("d/e/f"), "content").unwrap();
    symlink("d", root.join("s")).unwrap();
    symlink("../outside", root.join("out")).unwrap();
    let tree = tree(&root);
    let read =
        |path: &str| tree.open_file(Path::new(path)).map(|file| std::io::read_to_string(file).unwrap());
    assert_eq!(read("d/e/f").unwrap(), "content");
    assert_eq!(read("/d/./e/f").unwrap(), "content");
    for (path, kind) in [
        ("d/none", ErrorKind::NotFound),
        ("d/e/f/g", ErrorKind::NotFound),
        ("d/../../outside", ErrorKind::InvalidInput),
        ("d", ErrorKind::InvalidInput),
        ("s/e/f", ErrorKind::Other),
        ("out", ErrorKind::Other),
    ] {
        assert_eq!(read(path).unwrap_err().kind(), kind, "{path}");
    }
    assert_eq!(tree.metadata(Path::new("s")).unwrap().unwrap().kind, FileKind::Symlink);
    assert_eq!(tree.metadata(Path::new("")).unwrap().unwrap().kind, FileKind::Directory);
    assert_eq!(tree.metadata(Path::new("none/x")).unwrap(), None);
}

#[test]
fn a_path_longer_than_path_max_is_opened() {
    let scratch = tempfile::tempdir().unwrap();
    let name = "n".repeat(200);
    let mut at = OwnedFd::from(File::open(scratch.path()).unwrap());
    let mut path = std::path::PathBuf::new();
    for _ in 0..50 {
        rustix::fs::mkdirat(&at, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, name.as_str(), OFlags::RDONLY, Mode::empty()).unwrap();
        path.push(&name);
    }
    rustix::fs::openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).unwrap();
    path.push("f");
    assert!(tree(scratch.path()).open_file(&path).is_ok());
    crate::fs::remove_tree(File::open(scratch.path()).unwrap(), name.as_ref(), scratch.path()).unwrap();
}

#[test]
fn names_are_sorted_by_bytes_however_many() {
    let scratch = tempfile::tempdir().unwrap();
    let mut expected: Vec<String> = (0..3000).map(|number| format!("{}-{number}", "x".repeat(30))).collect();
    for name in &expected {
        std::fs::write(scratch.path().join(name), "").unwrap();
    }
    expected.sort();
    let directory = File::open(scratch.path()).unwrap();
    let mut buffer = Vec::with_capacity(16384);
    for _ in 0..2 {
        let names = Names::of(&directory, &mut buffer).unwrap();
        let names: Vec<_> = names.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn a_dump_shows_every_difference_and_nothing_else() {
    let make = |directory: &Path| {
        std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::create_dir(directory.join("d")).unwrap();
        std::fs::write(directory.join("d/a b"), "abc").unwrap();
        std::fs::hard_link(directory.join("d/a b"), directory.join("d/c")).unwrap();
        symlink("../y", directory.join("s")).unwrap();
        for name in ["d/a b", "s", "d", ""] {
            let times = rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
                last_modification: rustix::fs::Timespec { tv_sec: -1, tv_nsec: 5 },
            };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, directory.join(name), &times, flags).unwrap();
        }
    };
    let scratch = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(scratch.0.path());
    make(scratch.1.path());
    let text = dump(&tree(scratch.0.path())).unwrap();
    let owner = format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    assert_eq!(
        text,
        format!(
            "/ dir 700 {owner} -1.000000005\n\
             /d dir 755 {owner} -1.000000005\n\
             /d/a\\x20b file 644 {owner} -1.000000005 3 \
             sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n\
             /d/c link /d/a\\x20b\n\
             /s symlink 777 {owner} -1.000000005 -> ../y\n"
        )
    );
    assert_eq!(text, dump(&tree(scratch.1.path())).unwrap());
    crate::fs::xattr::set(File::open(scratch.1.path()).unwrap(), c"d", c"user.x", b"\x00y").unwrap();
    let other = dump(&tree(scratch.1.path())).unwrap();
    assert!(other.contains(&format!("/d dir 755 {owner} -1.000000005 user.x=\\x00y\n")), "{other}");
}
