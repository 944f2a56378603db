//! What an entry says is what the file has.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::*;
use crate::archive::{Recorder, Timestamp, reassemble};

/// The binary form of `user::rw-,user:1234:rw-,group::r--,mask::rw-,other::r--`.
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 6, 1234), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)];
    let mut binary = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        binary.extend_from_slice(&tag.to_le_bytes());
        binary.extend_from_slice(&permissions.to_le_bytes());
        binary.extend_from_slice(&id.to_le_bytes());
    }
    binary
}

/// `cap_net_raw=ep`, version 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn with(mut item: Item, change: impl FnOnce(&mut Entry)) -> Item {
    change(&mut item.0);
    item.0.xattrs.sort();
    item
}

fn xattr(name: &str, value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (name.into(), value.into())
}

#[test]
fn all_metadata_of_every_kind() {
    let rich = |entry: &mut Entry| {
        (entry.uid, entry.gid) = (1000, 4_000_000);
        entry.mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 123_456_789 };
    };
    let attributes = |entry: &mut Entry| {
        entry.xattrs = vec![
            xattr("user.a", b"\0binary\n"),
            xattr("trusted.b", &[7; 100]),
            xattr("system.posix_acl_access", &acl()),
        ];
    };
    let layer = [
        with(dir("./"), |entry| {
            rich(entry);
            entry.mode = 0o1750;
        }),
        with(file("suid", "x"), |entry| {
            rich(entry);
            entry.mode = 0o6755;
            entry.xattrs = vec![xattr("security.capability", &CAPABILITY)];
        }),
        with(file("none", ""), |entry| entry.mode = 0),
        with(file("all", "x"), |entry| {
            entry.mode = 0o666;
            attributes(entry);
        }),
        with(file("early", ""), |entry| entry.mtime = Timestamp { seconds: -2, nanoseconds: 1 }),
        with(dir("d"), |entry| {
            rich(entry);
            attributes(entry);
            entry.mode = 0o3775;
            entry.xattrs.push(xattr("system.posix_acl_default", &acl()));
        }),
        // Neither the group, nor the access list, nor the bit of the directory are inherited.
        file("d/plain", "x"),
        dir("d/sub"),
        special("d/fifo", EntryKind::Fifo),
        with(symlink("d/link", "t"), |entry| {
            rich(entry);
            entry.xattrs = vec![xattr("trusted.b", b"1")];
        }),
        with(special("c", EntryKind::CharDevice { major: 1, minor: 3 }), |entry| {
            rich(entry);
            entry.mode = 0o4666;
            entry.xattrs = vec![xattr("trusted.b", b"1")];
        }),
    ];
    let text = Bench::new(&[]).tree(&layer);
    let escaped = |bytes: &[u8]| bytes.escape_ascii().to_string().replace(' ', "\\x20");
    let (acl, big) = (escaped(&acl()), "\\x07".repeat(100));
    let sum = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let rich = "1000:4000000 1700000000.123456789";
    let attributes = format!("trusted.b={big} user.a=\\x00binary\\n");
    let expected = [
        format!("/ dir 1750 {rich}"),
        format!("/all file 664 0:0 0.000000000 system.posix_acl_access={acl} {attributes} 1 {sum}"),
        format!("/c char 4666 {rich} trusted.b=1 1:3"),
        format!(
            "/d dir 3664 {rich} system.posix_acl_access={acl} system.posix_acl_default={acl} {attributes}"
        ),
        "/d/fifo fifo 600 0:0 0.000000000".to_owned(),
        format!("/d/link symlink 777 {rich} trusted.b=1 -> t"),
        format!("/d/plain file 644 0:0 0.000000000 1 {sum}"),
        "/d/sub dir 755 0:0 0.000000000".to_owned(),
        format!("/early file 644 0:0 -2.000000001 0 {nothing}"),
        format!("/none file 0 0:0 0.000000000 0 {nothing}"),
        format!("/suid file 6755 {rich} security.capability={} 1 {sum}", escaped(&CAPABILITY)),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_directory_gets_the_metadata_of_its_last_entry_and_no_other_attributes() {
    let parent = [
        with(dir("d"), |entry| {
            (entry.mode, entry.uid) = (0o2711, 5);
            entry.xattrs = vec![
                xattr("user.old", b"1"),
                xattr("user.both", b"1"),
                xattr("system.posix_acl_default", &acl()),
            ];
        }),
        with(file("d/f", "1"), |entry| entry.mode = 0o600),
    ];
    let again = with(dir("d"), |entry| {
        entry.mode = 0o700;
        entry.xattrs = vec![xattr("user.both", b"2")];
    });
    let text = Bench::new(&parent).tree(&[again, file("d/g", "2")]);
    assert!(text.contains("\n/d dir 700 0:0 0.000000000 user.both=2\n"), "{text}");
    assert!(text.contains("\n/d/g file 644 0:0 0.000000000 1 "), "{text}");
    // Without an entry of its own it stays what it was in the parent, and passes nothing on.
    let text = Bench::new(&parent).tree(&[file("d/g", "2"), gone("d/.wh.f")]);
    assert!(text.contains("\n/d dir 2711 5:0 0.000000000 system.posix_acl_default="), "{text}");
    assert!(text.contains("user.both=1 user.old=1\n/d/g file 644 0:0 0.000000000 1 "), "{text}");
}

#[test]
fn directories_keep_their_times() {
    let at = |path, seconds| with(dir(path), |entry| entry.mtime = Timestamp { seconds, nanoseconds: 5 });
    let parent = [at("./", 1), at("a", 2), at("a/b", 3), file("a/b/f", ""), at("c", 4)];
    let line = |path: &str, seconds: i64| format!("{path} dir 755 0:0 {seconds}.000000005\n");
    let bench = Bench::new(&parent);
    let root = tar(&[at("./", 1)]);
    bench.overlay(&root).unwrap();
    let layer = [
        file("x", ""),
        file("a/b/g", ""),
        file("c/y", ""),
        at("c", 6),
        file("c/z", ""),
        gone("a/b/.wh.f"),
        hardlink("a/h", "c/y"),
        at("n", 7),
        symlink("n/s", "t"),
        file("c/y", "other"),
        file("new/f", ""),
    ];
    let text = bench.tree(&layer);
    for expected in [line("/", 1), line("/a", 2), line("/a/b", 3), line("/c", 6), line("/n", 7)] {
        assert!(text.contains(&expected), "{expected}{text}");
    }
    assert!(text.contains("/new dir 755 0:0 0.000000000\n"), "{text}");
}

#[test]
fn what_is_copied_from_the_parent_keeps_everything() {
    let parent = [
        with(dir("d"), |entry| {
            (entry.mode, entry.uid) = (0o1711, 5);
            entry.xattrs = vec![xattr("user.k", b"1"), xattr("system.posix_acl_default", &acl())];
        }),
        with(file("d/f", &"x".repeat(300_000)), |entry| {
            (entry.mode, entry.gid) = (0o4640, 6);
            entry.mtime = Timestamp { seconds: 9, nanoseconds: 9 };
            entry.xattrs = vec![xattr("security.capability", &CAPABILITY), xattr("user.k", b"2")];
        }),
        with(symlink("d/s", "target"), |entry| entry.uid = 7),
        with(special("d/c", EntryKind::CharDevice { major: 5, minor: 1 }), |entry| entry.mode = 0o622),
    ];
    // The same tree either way: the comparison is what this tests.
    let text = Bench::new(&parent).tree(&[
        hardlink("d/f2", "d/f"),
        hardlink("s2", "d/s"),
        hardlink("d/c2", "d/c"),
        file("d/new", ""),
    ]);
    assert!(text.contains("/d/f2 link /d/f\n") && text.contains("/s2 link /d/s\n"), "{text}");
}

#[test]
fn zeros_become_holes() {
    let mut content = vec![0; 4 << 20];
    content[3 << 20] = 1;
    let item = (Entry::new("f", EntryKind::File { size: content.len() as u64 }, 0o644), content.clone());
    let bench = Bench::new(&[]);
    bench.whole(&tar(&[item])).unwrap();
    let path = bench.path("whole").join("f");
    assert!(std::fs::read(&path).unwrap() == content);
    assert!(std::fs::metadata(&path).unwrap().blocks() <= 16);
}

#[test]
fn a_restrictive_umask_changes_nothing() {
    // The umask belongs to the process, so this is tried in one of its own: this test binary, this test alone.
    if std::env::var_os("LAYERSTACK_TEST_UMASK").is_none() {
        let program = std::env::current_exe().unwrap();
        let test = "apply::tests::fidelity::a_restrictive_umask_changes_nothing";
        let output = Command::new("sh")
            .args(["-c", "umask 0777; exec \"$@\"", "sh"])
            .arg(program)
            .args(["--exact", test])
            .env("LAYERSTACK_TEST_UMASK", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let text =
        Bench::new(&[]).tree(&[file("f", ""), dir("d"), file("e/f", ""), special("p", EntryKind::Fifo)]);
    for line in ["/d dir 755 ", "/e dir 755 ", "/e/f file 644 ", "/f file 644 ", "/p fifo 600 "] {
        assert!(text.contains(line), "{text}");
    }
}

/// GNU tar packs a tree, we unpack it; we must get what was packed.
#[test]
fn trees_packed_by_gnu_tar() {
    let scratch = tempfile::tempdir().unwrap();
    let from = scratch.path().join("from");
    let script = "set -e
        mkdir -p a/b; echo text > a/f; ln a/f a/b/l; ln -s ../f a/b/s; mkfifo p; mknod c c 1 3
        chmod 4711 a/f; chown 12:34 a/f; chmod 2775 a/b; setfattr -n user.k -v v a/f
        setfacl -m u:77:r a/f; setfacl -d -m g:88:rw a; setcap cap_net_raw+ep a/f 2>/dev/null || true
        truncate -s 3M sparse; echo x >> sparse; touch -d '1969-07-20T20:17:40.5Z' a/b; touch -hd @99.25 a/b/s";
    std::fs::create_dir(&from).unwrap();
    let run = |command: &mut Command| {
        let output = command.current_dir(&from).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(Command::new("sh").args(["-c", script]));
    let expected = dump(&Tree::from_fd(open(&from))).unwrap();
    for options in [&["--sparse"][..], &[]] {
        let mut pack = Command::new("tar");
        pack.args([
            "--format=pax",
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--numeric-owner",
            "-cf",
            "-",
        ]);
        let packed = run(pack.args(options).arg("."));
        let bench = Bench::new(&[]);
        bench.whole(&packed).unwrap();
        assert_eq!(dump(&bench.whole_tree()).unwrap(), expected);
    }
}

#[test]
fn a_tar_is_put_together_again_from_its_split_and_the_layer() {
    let parent = [dir("usr/lib"), symlink("lib", "usr/lib"), file("old", "1")];
    let layer = [
        dir("d"),
        file("d/a", &"a".repeat(70_000)),
        file("lib/through a link", "b"),
        gone(".wh.old"),
        file(".wh..wh.aufs", "content of what is passed over"),
        hardlink("h", "d/a"),
        file("empty", ""),
    ];
    let mut bytes = tar(&layer);
    bytes.extend_from_slice(&[0; 5000]);
    bytes.extend_from_slice(b"trailing");
    let bench = Bench::new(&parent);
    for (form, name) in [(LayerForm::Whole, "whole"), (OVERLAY, "upper"), (LayerForm::Aufs, "aufs")] {
        let mut recorder = Recorder::new(Vec::new());
        let request = ApplyRequest::new().with_observer(&mut recorder);
        let mut view = || Ok(Some(Tree::from_fd(open(&bench.path("parent")))));
        let applied = apply(open(&bench.path(name)), form, &mut view, &mut &bytes[..], request).unwrap();
        assert!(!applied.overwritten);
        let split = recorder.finish().unwrap();
        assert!(split.len() < bytes.len() - 60_000, "the content of files is not in the split");
        let tree = Tree::from_fd(open(&bench.path(name)));
        let mut again = Vec::new();
        let mut find = |path: &[u8]| tree.open_file(Path::new(OsStr::from_bytes(path)));
        reassemble(&mut &split[..], &mut find, &mut again).unwrap();
        assert!(again == bytes, "{name}");
    }
}
