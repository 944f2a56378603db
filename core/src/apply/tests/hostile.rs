//! Archives that mean harm.

use super::*;

#[test]
fn what_is_refused_is_named() {
    let tree = [dir("d"), file("d/x", "1"), file("f", "2"), symlink("loop", "loop"), symlink("tofile", "f")];
    let long = "n".repeat(256);
    let with_xattr = |path: &str, name: &str| {
        let mut item = file(path, "");
        item.0.xattrs.push((name.as_bytes().to_vec(), b"y".to_vec()));
        item
    };
    let cases: &[(Item, &str)] = &[
        (file("../x", ""), "\"..\""),
        (file("d/../x", ""), "\"..\""),
        (dir(".."), "\"..\""),
        (file("/../../x", ""), "\"..\""),
        (symlink("./", "d"), "root"),
        (file("/", "x"), "root"),
        (hardlink(".", "f"), "root"),
        (special("/", EntryKind::Fifo), "root"),
        (file("f/x", ""), "under something that is no directory"),
        (dir("f/x/y"), "under something that is no directory"),
        (file("tofile/x", ""), "under something that is no directory"),
        (file("loop/x", ""), "too many symbolic links"),
        (file(&long, ""), "longer than 255"),
        (file(&format!("{long}/x"), ""), "longer than 255"),
        (gone(".wh."), "whiteout"),
        (gone("d/.wh.."), "whiteout"),
        (gone("d/.wh..."), "whiteout"),
        (gone(".wh..wh.x"), ".wh."),
        (file("d/.wh.x/y", ""), ".wh."),
        (special("c", EntryKind::CharDevice { major: 0, minor: 0 }), "whiteout"),
        (with_xattr("x", "trusted.overlay.opaque"), "trusted.overlay.opaque"),
        (with_xattr("x", "user.overlay.whiteout"), "user.overlay.whiteout"),
        (hardlink("h", "none"), "missing"),
        (hardlink("h", "d"), "directory"),
        (hardlink("h", "/"), "link to"),
        (hardlink("h", "../f"), "\"..\""),
        (hardlink("h", "d/.wh.x"), "link to"),
        (symlink("s", &"t".repeat(5000)), "create"),
    ];
    for (item, expected) in cases {
        let bench = Bench::new(&tree);
        let (message, path) = bench.refused(&tar(std::slice::from_ref(item)));
        assert!(message.contains(expected), "{}: {message}", item.0.path.escape_ascii());
        assert_eq!(path.as_bytes(), item.0.path);
    }
}

#[test]
fn what_a_whiteout_has_deleted_is_no_target_of_a_link() {
    let bench = Bench::new(&[dir("d"), file("d/x", "1")]);
    for layer in [
        [gone("d/.wh.x"), hardlink("h", "d/x")],
        [gone(".wh.d"), hardlink("h", "d/x")],
        [gone("d/.wh..wh..opq"), hardlink("h", "d/x")],
    ] {
        let (message, path) = bench.refused(&tar(&layer));
        assert!(message.contains("missing"), "{message}");
        assert_eq!(path, "h");
    }
}

/// Everything that follows a link to the outside ends inside.
#[test]
fn nothing_leads_out_of_the_layer() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("kept"), "kept").unwrap();
    let absolute = outside.path().to_str().unwrap();
    let up = format!("{}{}", "../".repeat(30), &absolute[1..]);
    for target in [absolute, &up] {
        let bench = Bench::new(&[symlink("old", target)]);
        let layer = [
            symlink("new", target),
            file("new/created", "1"),
            file("old/created too", "1"),
            file("old/kept", "2"),
            gone("new/.wh.kept"),
            gone("old/.wh..wh..opq"),
            dir("new/sub"),
            special("old/p", EntryKind::Fifo),
            hardlink("h", "new/created"),
        ];
        bench.tree(&layer);
        assert!(bench.path("whole").join(&absolute[1..]).join("created").exists());
        assert_eq!(words(outside.path()), "kept=kept");
        // The link itself is linked to, not the file that it leads to.
        let bench = Bench::new(&[symlink("s", &format!("{target}/kept"))]);
        bench.tree(&[hardlink("h", "s"), file("h2", ""), hardlink("h2", "s"), file("s", "over")]);
        let error = bench.refused(&tar(&[symlink("q", target), hardlink("h3", "q/kept")]));
        assert!(error.0.contains("missing"));
        assert_eq!(words(outside.path()), "kept=kept");
    }
}

/// A directory of the target that somebody replaces by a link to the outside while the archive is unpacked.
#[test]
fn a_link_swapped_in_between_entries_is_not_followed_outside() {
    struct Swap<'a> {
        tar: &'a [u8],
        at: usize,
        swap: Option<Box<dyn FnOnce() + 'a>>,
    }
    impl Read for Swap<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.at == 0
                && let Some(swap) = self.swap.take()
            {
                swap();
            }
            // One block at a time, so that the swap happens between two entries.
            let length = buffer.len().min(512).min(self.tar.len());
            buffer[..length].copy_from_slice(&self.tar[..length]);
            self.tar = &self.tar[length..];
            self.at = self.at.saturating_sub(length);
            Ok(length)
        }
    }
    let outside = tempfile::tempdir().unwrap();
    let bench = Bench::new(&[]);
    let items = [file("d/a", ""), file("e/b", ""), file("d/c", ""), gone("d/.wh.x"), hardlink("d/l", "d/c")];
    let bytes = tar(&items);
    let target = bench.path("whole");
    let swap = || {
        std::fs::rename(target.join("d"), target.join("moved")).unwrap();
        std::os::unix::fs::symlink(outside.path(), target.join("d")).unwrap();
    };
    let mut source = Swap { tar: &bytes, at: 2 * 512, swap: Some(Box::new(swap)) };
    let mut none = || Ok(None);
    apply(open(&target), LayerForm::Whole, &mut none, &mut source, ApplyRequest::new()).unwrap();
    assert_eq!(words(outside.path()), "");
    assert!(target.join(&outside.path().to_str().unwrap()[1..]).join("l").exists());
}

#[test]
fn paths_beyond_path_max_and_any_depth() {
    // 40 directories of 250 bytes are more than PATH_MAX, 300 levels more than are kept open.
    for (component, depth) in [("c".repeat(250), 40), ("d".to_owned(), 300)] {
        let way = vec![component; depth].join("/");
        let parent = [file(&format!("{way}/f"), "1"), dir("z")];
        let bench = Bench::new(&parent);
        let half = &way[..way.len() / 2];
        let half = &half[..half.rfind('/').unwrap()];
        let mut times = dir(half);
        times.0.mtime.seconds = 77;
        let layer = [
            file(&format!("{way}/g"), "2"),
            file(&format!("{half}/x"), "3"),
            file(&format!("{way}/h"), "4"),
            times,
            hardlink("z/link", &format!("{way}/f")),
            gone(&format!("{way}/.wh.f")),
            file(&format!("{half}/y"), "5"),
        ];
        let text = bench.tree(&layer);
        assert_eq!(text.lines().count(), 1 + depth + 6, "{text}");
        assert!(text.contains(&format!("/{half} dir 755 0:0 77.000000000\n")));
        // All of it goes again, from the deepest point on.
        let text = bench.tree(&[gone(&format!(".wh.{}", &way[..way.find('/').unwrap()]))]);
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}

#[test]
fn a_whiteout_prunes_a_deep_tree_that_is_partly_new() {
    let way = vec!["d"; 300].join("/");
    let bench = Bench::new(&[file(&format!("{way}/old"), "1"), file("d/old", "2")]);
    let text = bench.tree(&[file(&format!("{way}/new"), "3"), gone(".wh.d")]);
    assert_eq!(text.lines().count(), 302);
    assert!(!text.contains("old"));
}

#[test]
fn huge_sparse_files_cost_nothing_or_are_refused() {
    // GNU's old sparse format: one byte of data, the file's size in base 256.
    let sparse = |size: u64| {
        let mut bytes = tar(&[file("huge", "a")]);
        bytes[156] = b'S';
        bytes[257..265].copy_from_slice(b"ustar  \0");
        bytes[345..512].fill(0);
        bytes[386..397].copy_from_slice(b"00000000000");
        bytes[398..409].copy_from_slice(b"00000000001");
        bytes[483] = 0x80;
        bytes[487..495].copy_from_slice(&size.to_be_bytes());
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes
    };
    let bench = Bench::new(&[]);
    let applied = bench.whole(&sparse(1 << 40)).unwrap();
    assert_eq!(applied.bytes, 1);
    let stat = std::fs::metadata(bench.path("whole").join("huge")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::size(&stat), 1 << 40);
    assert!(std::os::unix::fs::MetadataExt::blocks(&stat) <= 16);
    // ext4 has files of up to 16 TiB.
    let (_, path) = Bench::new(&[]).refused(&sparse(i64::MAX as u64));
    assert_eq!(path, "huge");
    let (_, path) = Bench::new(&[]).refused(&sparse(u64::MAX));
    assert_eq!(path, "huge");
}

#[test]
fn damaged_archives_are_refused_by_name() {
    let whole = tar(&[file("a", "1"), file("b", &"2".repeat(5000))]);
    for (length, name) in [(512, "a"), (1024 + 100, "a"), (3 * 512 + 4000, "b")] {
        let (_, path) = Bench::new(&[]).refused(&whole[..length]);
        assert_eq!(path, name);
    }
    // Only padding is missing: `umoci insert` writes such layers.
    assert_eq!(Bench::new(&[]).whole(&whole[..512 + 1]).unwrap().bytes, 1);
}

#[test]
fn a_full_file_system_is_told() {
    // A tmpfs of its own, so that nothing else gets full; attached nowhere.
    let mut plan = MountPlan::bind("tmpfs", Access::ReadWrite, "/nowhere");
    plan.fstype = "tmpfs".to_owned();
    plan.options = vec![
        MountOption::Value("size".to_owned(), "64k".to_owned()),
        MountOption::Value("nr_inodes".to_owned(), "8".to_owned()),
    ];
    for (items, name) in [
        (vec![file("big", &"x".repeat(100_000))], "big"),
        ((0..9).map(|at| file(&format!("f{at}"), "")).collect(), "f7"),
    ] {
        let target = crate::mount::attach_detached(&plan).unwrap();
        let mut none = || Ok(None);
        let error = apply(&target, LayerForm::Whole, &mut none, &mut &tar(&items)[..], ApplyRequest::new())
            .unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::NoSpace, Some(Path::new(name))), "{error:?}");
    }
}
