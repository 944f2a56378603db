use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::*;
use crate::fs::xattr;

fn copy(from: &Path, to: &Path) {
    copy_tree(File::open(from).unwrap(), File::open(to).unwrap(), from, Reflink::Auto).unwrap();
}

/// A minimal ACL: user::rwx, user:1234:r, group::r, mask::r, other::-, as linux/posix_acl_xattr.h has it.
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 4, 1234), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

fn set_times(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything that a copy keeps, a line for each path, sorted. Multiply linked files show the first of their names.
fn dump(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![root.to_owned()];
    let mut inodes = std::collections::HashMap::new();
    while let Some(path) = pending.pop() {
        let relative = path.strip_prefix(root).unwrap().to_owned();
        let meta = path.symlink_metadata().unwrap();
        let parent = File::open(path.parent().unwrap()).unwrap();
        let name = CString::new(path.file_name().unwrap().as_bytes()).unwrap();
        let content = if meta.is_file() {
            format!("{:?}", rustix::fs::statat(&parent, &name, AtFlags::empty()).unwrap().st_size)
                + &String::from_utf8_lossy(&fs::read(&path).unwrap()[..]).replace('\0', "")
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            String::new()
        };
        let first = if meta.is_dir() {
            relative.clone()
        } else {
            inodes.entry(meta.ino()).or_insert_with(|| relative.clone()).clone()
        };
        lines.push(format!(
            "{relative:?} {first:?} {:o} {}:{} {} {}.{} {:?} {content:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev(),
            meta.mtime(),
            meta.mtime_nsec(),
            xattr::list(&parent, &name).unwrap(),
        ));
        if meta.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            pending.extend(below.into_iter().rev());
        }
    }
    lines
}

#[test]
fn a_copy_has_all_metadata_and_all_kinds_of_files() {
    let scratch = tempfile::tempdir().unwrap();
    let from = scratch.path().join("from");
    fs::create_dir_all(from.join("d/e")).unwrap();
    fs::create_dir(from.join("with-acl")).unwrap();
    for (name, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("char", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("block", FileType::BlockDevice, rustix::fs::makedev(259, 70_000)),
        ("whiteout", FileType::CharacterDevice, 0),
    ] {
        rustix::fs::mknodat(CWD, from.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    }
    std::os::unix::fs::chown(from.join("char"), Some(5), Some(6)).unwrap();
    symlink("nowhere", from.join("link")).unwrap();
    std::os::unix::fs::lchown(from.join("link"), Some(77), Some(88)).unwrap();
    fs::write(from.join("d/e/setuid"), "program").unwrap();
    std::os::unix::fs::chown(from.join("d/e/setuid"), Some(1000), Some(1001)).unwrap();
    let mode = |name: &str, mode| {
        rustix::fs::chmodat(CWD, from.join(name), Mode::from_raw_mode(mode), AtFlags::empty()).unwrap();
    };
    mode("d/e/setuid", 0o6755);
    fs::write(from.join("writable"), "by all").unwrap();
    mode("writable", 0o666);
    mode("d", 0o3777);
    fs::write(from.join("none"), "").unwrap();
    mode("none", 0);
    fs::hard_link(from.join("writable"), from.join("d/again")).unwrap();
    fs::hard_link(from.join("writable"), from.join("d/e/again")).unwrap();
    fs::hard_link(from.join("link"), from.join("d/link-again")).unwrap();
    fs::hard_link(from.join("fifo"), from.join("d/e/fifo-again")).unwrap();

    let root = File::open(&from).unwrap();
    // VFS_CAP_REVISION_2 with CAP_NET_RAW permitted: linux/capability.h.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(File::open(from.join("d/e")).unwrap(), c"setuid", c"security.capability", &capability)
        .unwrap();
    xattr::set(&root, c"writable", c"user.long", &vec![b'x'; 3000]).unwrap();
    xattr::set(&root, c"link", c"trusted.on-link", b"1").unwrap();
    xattr::set(&root, c"", c"user.on-root", b"1").unwrap();
    xattr::set(&root, c"writable", c"system.posix_acl_access", &acl()).unwrap();
    xattr::set(&root, c"with-acl", c"system.posix_acl_default", &acl()).unwrap();
    fs::write(from.join("with-acl/child"), "").unwrap();
    xattr::remove(&root, c"writable", c"nothing.of.this").ok();

    set_times(&from.join("link"), -5, 123_456_789);
    set_times(&from.join("d/e/setuid"), 5_000_000_000, 1);
    set_times(&from.join("d/e"), 1_000_000_000, 999_999_999);
    set_times(&from, 7, 8);

    let to = scratch.path().join("to");
    fs::create_dir(&to).unwrap();
    // What the copy is made in must not show in it.
    xattr::set(File::open(&to).unwrap(), c"", c"system.posix_acl_default", &acl()).unwrap();
    rustix::fs::chmodat(CWD, &to, Mode::from_raw_mode(0o2777), AtFlags::empty()).unwrap();
    let before = dump(&from);
    copy(&from, &to);
    assert_eq!(dump(&to), before);
    assert_eq!(dump(&from), before);
}

#[test]
fn holes_stay_holes_and_big_files_arrive() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    let sparse = File::create(from.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"middle", 1 << 30).unwrap();
    fs::write(from.join("big"), (0..3_000_001_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>()).unwrap();
    File::create(from.join("all-hole")).unwrap().set_len(5000).unwrap();
    copy(&from, &to);
    let copied = to.join("sparse").metadata().unwrap();
    assert_eq!(copied.len(), 1 << 40);
    assert!(copied.blocks() <= 64, "{} blocks", copied.blocks());
    let mut middle = [0; 6];
    File::open(to.join("sparse")).unwrap().read_exact_at(&mut middle, 1 << 30).unwrap();
    assert_eq!(&middle, b"middle");
    assert!(fs::read(to.join("big")).unwrap() == fs::read(from.join("big")).unwrap());
    assert_eq!(fs::read(to.join("all-hole")).unwrap(), vec![0; 5000]);
}

#[test]
fn any_depth_will_do_with_few_descriptors_and_a_small_stack() {
    const DEPTH: usize = 3000;
    let scratch = tempfile::tempdir().unwrap();
    let mut at = File::open(scratch.path()).unwrap();
    rustix::fs::mkdirat(&at, "from", Mode::RWXU).unwrap();
    rustix::fs::mkdirat(&at, "to", Mode::RWXU).unwrap();
    let directory = |at: &File, name: &str| {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        File::from(rustix::fs::openat(at, name, flags, Mode::empty()).unwrap())
    };
    at = directory(&at, "from");
    let root = at.try_clone().unwrap();
    for level in 0..DEPTH {
        // A second directory beside each, so that the way back up is walked too.
        rustix::fs::mkdirat(&at, "b", Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        if level + 1 == DEPTH {
            rustix::fs::mknodat(&at, "bottom", FileType::RegularFile, Mode::RUSR, 0).unwrap();
            rustix::fs::linkat(&at, "bottom", &root, "top", AtFlags::empty()).unwrap();
        }
        at = directory(&at, "d");
    }
    copy(&scratch.path().join("from"), &scratch.path().join("to"));
    at = File::open(scratch.path().join("to")).unwrap();
    let top = rustix::fs::statat(&at, "top", AtFlags::empty()).unwrap();
    for level in 0..DEPTH {
        rustix::fs::statat(&at, "b", AtFlags::empty()).unwrap();
        if level + 1 == DEPTH {
            let bottom = rustix::fs::statat(&at, "bottom", AtFlags::empty()).unwrap();
            assert_eq!((bottom.st_ino, bottom.st_nlink), (top.st_ino, 2));
        }
        at = directory(&at, "d");
    }
    let shown = scratch.path();
    let here = File::open(shown).unwrap();
    for name in ["from", "to"] {
        crate::fs::remove_tree(&here, name.as_ref(), shown).unwrap();
    }
}

#[test]
fn a_failure_names_the_path_and_ends_the_copy() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    fs::create_dir_all(from.join("d/e")).unwrap();
    fs::create_dir_all(to.join("d")).unwrap();
    let (open_from, open_to) = (File::open(&from).unwrap(), File::open(&to).unwrap());
    let error = copy_tree(open_from, open_to, &from, Reflink::Auto).unwrap_err();
    assert_eq!(error.path(), Some(from.join("d").as_path()));
}

#[test]
fn always_is_refused_where_the_file_system_cannot_clone() {
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    fs::create_dir_all(&from).unwrap();
    fs::create_dir_all(&to).unwrap();
    fs::write(from.join("f"), "x").unwrap();
    let (open_from, open_to) = (File::open(&from).unwrap(), File::open(&to).unwrap());
    let error = copy_tree(open_from, open_to, &from, Reflink::Always).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
}
