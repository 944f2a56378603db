//! Tars that were made to do harm. Each is applied as OCI says, or refused with an error naming the entry, and the
//! layer is then absent; nothing outside the layer is touched either way.

use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use layerstack_core::{Error, ErrorKind};

use crate::case::{Stop, Verdict, cases, check, check_eq};
use crate::files::{self, write};
use crate::kernel;
use crate::scene::{Scene, id, must_be_clean, sealed, snapshot};
use crate::snapshot::{Kind, Snapshot, hash_of};
use crate::subject::Subject;
use crate::tarball::{Item, Tarball};

cases!("hostile.rs":
    names_with_dot_dot,
    an_absolute_symlink_out_of_the_layer,
    a_relative_symlink_out_of_the_layer,
    a_symlink_of_the_parent_out_of_the_layer,
    a_directory_replaced_by_a_symlink_between_entries,
    a_symlink_replaced_by_others_while_the_tar_is_read,
    symlinks_in_a_circle,
    a_symlink_without_a_target,
    a_hardlink_to_a_file_outside,
    a_hardlink_by_way_of_a_symlink_outside,
    a_hardlink_to_a_symlink_outside,
    a_hardlink_to_a_directory,
    a_hardlink_to_nothing,
    an_entry_below_a_file,
    an_entry_below_a_file_of_the_parent,
    the_root_as_a_file,
    the_whiteout_device,
    attributes_of_the_overlay_file_system,
    whiteout_names_in_every_form,
    a_file_over_a_pipe_or_a_device,
    names_longer_than_a_name_may_be,
    paths_longer_than_a_path_may_be,
    names_that_are_not_text,
    a_name_with_a_nul,
    an_entry_without_a_name,
    a_size_beyond_everything,
    a_sparse_file_beyond_everything,
    a_header_of_endless_length,
    a_global_header_that_renames,
    a_header_with_a_wrong_sum,
    an_archive_that_ends_too_early,
    data_after_the_end,
    what_is_no_archive,
    random_damage,
);

/// A base layer to stand on, and a directory outside the root that must stay as it is.
struct Target {
    layers: Box<dyn Subject>,
    outside: std::path::PathBuf,
    names: Vec<String>,
    seen: Snapshot,
    base: Snapshot,
}

impl Target {
    fn new(scene: &Scene) -> Verdict<Self> {
        let outside = scene.work().join("outside");
        fs::create_dir_all(&outside)?;
        write(&outside.join("secret"), "secret")?;
        files::mode(&outside.join("secret"), 0o600)?;
        let layers = scene.open()?;
        sealed(&*layers, "base", None, |root| {
            files::sample(root)?;
            Ok(std::os::unix::fs::symlink(&outside, root.join("out"))?)
        })?;
        let base = snapshot(&*layers, "base")?;
        let (names, seen) = (scene.names()?, Snapshot::read(&outside)?);
        Ok(Self { layers, outside, names, seen, base })
    }

    fn outside(&self) -> &str {
        self.outside.to_str().unwrap_or_default()
    }

    /// Imports a tar from a reader. Says what it became: the tree, or the error; after an error nothing is left.
    fn import(&self, scene: &Scene, tar: &mut dyn Read) -> Verdict<Result<Snapshot, Error>> {
        let layer = id("layer");
        let imported = self.layers.import(&layer, Some(&id("base")), tar, &mut |_| Ok(()));
        Snapshot::read(&self.outside)?.must_equal(&self.seen, "what lies outside the layer")?;
        snapshot(&*self.layers, "base")?.must_equal(&self.base, "the parent")?;
        match imported {
            Ok(_) => {
                let tree = snapshot(&*self.layers, "layer")?;
                self.layers.remove(&layer)?;
                Ok(Ok(tree))
            }
            Err(error) => {
                check!(!self.layers.contains(&layer)?, "the layer is there after: {error:?}");
                scene.must_have(&self.names)?;
                must_be_clean(&*self.layers)?;
                Ok(Err(error))
            }
        }
    }

    /// Imports a tar that must be refused with an error that names the entry.
    fn refuses(&self, scene: &Scene, tar: &[u8], named: &str) -> Verdict {
        match self.import(scene, &mut &tar[..])? {
            Ok(_) => Err(Stop::failed(format_args!("a tar with {named:?} was applied"))),
            Err(error) => {
                check_eq!(error.kind(), ErrorKind::InvalidInput, "the kind of the error: {error:?}");
                check!(format!("{error:?}").contains(named), "the error does not name {named:?}: {error:?}");
                Ok(())
            }
        }
    }

    /// Imports a tar that must be applied.
    fn applies(&self, scene: &Scene, tar: &[u8]) -> Verdict<Snapshot> {
        self.import(scene, &mut &tar[..])?.map_err(|error| Stop::failed(format_args!("refused: {error:?}")))
    }

    /// Imports a tar that may be applied or refused, as long as no harm is done.
    fn harmless(&self, scene: &Scene, tar: &[u8]) -> Verdict<Option<Snapshot>> {
        match self.import(scene, &mut &tar[..])? {
            Ok(tree) => Ok(Some(tree)),
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(Stop::failed(format_args!("refused, but not as invalid: {error:?}"))),
        }
    }
}

/// Names with `..` are refused, wherever they would lead.
fn names_with_dot_dot(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    for name in ["../escaped", "a/../../escaped", "etc/../escaped", "..", "/../escaped", "etc/.."] {
        target.refuses(scene, &Tarball::of([Item::file("good", "x"), Item::file(name, "x")]), name)?;
    }
    Ok(())
}

/// A symbolic link leads nowhere outside the layer, also when it is absolute.
fn an_absolute_symlink_out_of_the_layer(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let tar = Tarball::of([
        Item::symlink("evil", target.outside()),
        Item::file("evil/secret", "overwritten"),
        Item::file("evil/new", "x"),
    ]);
    target.harmless(scene, &tar).map(drop)
}

/// A symbolic link leads nowhere outside the layer, however often it goes up.
fn a_relative_symlink_out_of_the_layer(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let up = format!("{}{}", "../".repeat(40), target.outside().trim_start_matches('/'));
    for link in [up.as_str(), "..", "../../..", "../../../work/outside"] {
        let tar = Tarball::of([
            Item::symlink("etc/evil", link),
            Item::file("etc/evil/secret", "overwritten"),
            Item::file("etc/evil/outside/secret", "overwritten"),
        ]);
        target.harmless(scene, &tar)?;
    }
    Ok(())
}

/// A symbolic link that an earlier layer has leads nowhere outside either.
fn a_symlink_of_the_parent_out_of_the_layer(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    for item in [
        Item::file("out/secret", "overwritten"),
        Item::file("out/.wh.secret", ""),
        Item::file("out/.wh..wh..opq", ""),
        Item::symlink("out/secret", "x"),
        Item::directory("out/secret"),
        Item::hardlink("taken", "out/secret"),
        Item::hardlink("out/linked", "empty"),
    ] {
        target.harmless(scene, &Tarball::of([item]))?;
    }
    Ok(())
}

/// A directory that was written to and is then replaced by a symbolic link does not keep its place.
fn a_directory_replaced_by_a_symlink_between_entries(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let tar = Tarball::of([
        Item::directory("d"),
        Item::directory("d/e"),
        Item::file("d/e/first", "x"),
        Item::symlink("d/e", target.outside()),
        Item::file("d/e/secret", "overwritten"),
        Item::file("d/e/new", "x"),
        Item::symlink("d", target.outside()),
        Item::file("d/secret", "overwritten"),
    ]);
    if let Some(tree) = target.harmless(scene, &tar)? {
        check!(tree.get("d/e/first").is_none(), "the directory that was replaced is still there");
    }
    Ok(())
}

/// A symlink swapped in between two entries by somebody else leads nowhere outside
/// (CVE-2018-15664, <https://github.com/moby/moby/issues/39292>; CVE-2025-47290).
fn a_symlink_replaced_by_others_while_the_tar_is_read(scene: &Scene) -> Verdict {
    struct Swapping<'a> {
        tar: &'a [u8],
        swap: &'a dyn Fn(),
    }
    impl Read for Swapping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            (self.swap)();
            let length = buffer.len().min(512);
            self.tar.read(&mut buffer[..length])
        }
    }
    let target = Target::new(scene)?;
    let mut tar = Tarball::new().item(Item::directory("swapped"));
    for count in 0..20 {
        tar = tar.item(Item::file(format!("swapped/f{count}"), vec![b'x'; 700]));
    }
    let tar = tar.item(Item::file("swapped/secret", "overwritten")).end();
    let swaps = Cell::new(0);
    let home = target.layers.home().to_owned();
    let swap = || {
        for directory in find(&home, "swapped") {
            let aside = directory.with_extension(format!("aside{}", swaps.get()));
            if !directory.is_symlink()
                && fs::rename(&directory, aside).is_ok()
                && std::os::unix::fs::symlink(&target.outside, &directory).is_ok()
            {
                swaps.set(swaps.get() + 1);
            }
        }
    };
    // What becomes of the layer is whoever swapped's doing; what lies outside is not theirs to have changed.
    let _ = target.import(scene, &mut Swapping { tar: &tar, swap: &swap })?;
    if swaps.get() == 0 {
        return Err(Stop::not_offered("the driver fills its layers where nobody else can reach them"));
    }
    Ok(())
}

/// Directories and links of this name below a directory.
fn find(directory: &Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name() == name {
            found.push(entry.path());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(find(&entry.path(), name));
        }
    }
    found
}

/// Symbolic links that lead to each other lead nowhere: an error naming the entry, and no endless loop.
fn symlinks_in_a_circle(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let tar = Tarball::of([Item::symlink("a", "b"), Item::symlink("b", "a"), Item::file("a/file", "x")]);
    target.refuses(scene, &tar, "a/file")?;
    let tar = Tarball::of([Item::symlink("self", "self"), Item::file("self/file", "x")]);
    target.refuses(scene, &tar, "self/file")
}

/// A symbolic link to nothing at all cannot be made: an error naming the entry.
fn a_symlink_without_a_target(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    target.refuses(scene, &Tarball::of([Item::symlink("pointless", "")]), "pointless")
}

/// A hardlink names a file of the layer, whatever it is written like.
fn a_hardlink_to_a_file_outside(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let absolute = format!("{}/secret", target.outside());
    let up = format!("{}{absolute}", "../".repeat(40));
    for link in [absolute.as_str(), &up, "../work/outside/secret", "../../work/outside/secret"] {
        let tar = Tarball::of([Item::hardlink("taken", link), Item::file("taken", "overwritten")]);
        target.refuses(scene, &tar, "taken")?;
    }
    Ok(())
}

/// A hardlink's target is looked up inside the layer, through links that the same tar made too.
fn a_hardlink_by_way_of_a_symlink_outside(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let tar = Tarball::of([
        Item::symlink("evil", target.outside()),
        Item::hardlink("taken", "evil/secret").mode(0o777),
        Item::file("taken", "overwritten"),
    ]);
    target.refuses(scene, &tar, "taken")
}

/// A hardlink to a symbolic link is the link itself: nothing of what it points to changes.
fn a_hardlink_to_a_symlink_outside(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let secret = format!("{}/secret", target.outside());
    let tar = Tarball::of([
        Item::symlink("link", &secret),
        Item::hardlink("same", "link").mode(0o6777).owner(5, 5).xattr("user.x", "x"),
    ]);
    if let Some(tree) = target.harmless(scene, &tar)? {
        let kind = tree.get("same").map(|node| node.kind.clone());
        check_eq!(kind, Some(Kind::Symlink(secret.into_bytes())), "the second name");
    }
    let mode = fs::metadata(target.outside.join("secret"))?.permissions().mode() & 0o7777;
    check_eq!(mode, 0o600, "the mode of the file outside");
    Ok(())
}

/// A directory has one name: an error naming the entry.
fn a_hardlink_to_a_directory(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    for link in ["etc", "usr/bin", "."] {
        target.refuses(scene, &Tarball::of([Item::hardlink("second", link)]), "second")?;
    }
    target.refuses(scene, &Tarball::of([Item::directory("own"), Item::hardlink("second", "own")]), "second")
}

/// A hardlink to what is not there: an error naming the entry.
fn a_hardlink_to_nothing(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    for link in ["missing", "second", "etc/missing", ""] {
        target.refuses(scene, &Tarball::of([Item::hardlink("second", link)]), "second")?;
    }
    let tar = Tarball::of([Item::file("etc/.wh.passwd", ""), Item::hardlink("second", "etc/passwd")]);
    // Whiteouts are of lower layers only, so that this one may still be found; made up it must not be.
    target.harmless(scene, &tar).map(drop)
}

/// An entry below what is a file cannot be applied: an error naming the entry.
fn an_entry_below_a_file(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    for above in [Item::file("above", "x"), Item::fifo("above"), Item::device("above", 1, 3)] {
        target.refuses(scene, &Tarball::of([above, Item::file("above/below", "x")]), "above/below")?;
    }
    Ok(())
}

/// An entry below what is a file in a lower layer cannot be applied either, on any driver.
fn an_entry_below_a_file_of_the_parent(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    target.refuses(scene, &Tarball::of([Item::file("empty/below", "x")]), "empty/below")?;
    target.refuses(scene, &Tarball::of([Item::file("etc/passwd/below/it", "x")]), "etc/passwd/below")
}

/// The root of a layer is a directory: an error for anything else of its name.
fn the_root_as_a_file(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    for item in [
        Item::file("./", "x"),
        Item::symlink(".", target.outside()),
        Item::fifo("./."),
        Item::device("/", 1, 3),
    ] {
        let imported = target.import(scene, &mut &Tarball::of([item.clone()])[..])?;
        let kind = imported.err().map(|error| error.kind());
        check_eq!(kind, Some(ErrorKind::InvalidInput), "the error for {item:?}");
    }
    Ok(())
}

/// A character device 0:0 is overlayfs' whiteout and no file: an error naming the entry.
fn the_whiteout_device(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    target.refuses(scene, &Tarball::of([Item::device("etc/passwd", 0, 0)]), "etc/passwd")?;
    target.refuses(scene, &Tarball::of([Item::device("fresh", 0, 0)]), "fresh")
}

/// Attributes with which overlayfs notes where a directory comes from are no business of a tar: an error naming
/// the entry.
fn attributes_of_the_overlay_file_system(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    for key in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.whiteout",
        "user.overlay.opaque",
        "user.overlay.redirect",
    ] {
        let tar = Tarball::of([Item::directory("marked").xattr(key, "/etc")]);
        target.refuses(scene, &tar, "marked")?;
    }
    Ok(())
}

/// `.wh.` names in every form do what OCI says or are refused; they show nowhere and remove nothing else.
fn whiteout_names_in_every_form(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let names = [
        ".wh.",
        ".wh..",
        ".wh...",
        "etc/.wh.",
        "etc/.wh..",
        "etc/.wh...",
        ".wh./",
        ".wh.etc/passwd",
        ".wh..wh.",
        ".wh..wh..",
        ".wh..wh.plnk",
        ".wh..wh.plnk/1.2",
        ".wh..wh.aufs",
        ".wh..wh.orph",
        ".wh..wh..opq/x",
        ".wh..wh..wh.x",
        "etc/.wh..wh.aufs",
        "./.wh..",
    ];
    for name in names {
        for item in [Item::file(name, ""), Item::file(name, "content"), Item::directory(name)] {
            let Some(tree) = target.harmless(scene, &Tarball::of([item, Item::file("new", "n")]))? else {
                continue;
            };
            let shows = tree.paths().iter().any(|path| path.to_string_lossy().contains(".wh."));
            check!(!shows, "{name:?} shows in the layer");
            for path in ["etc/init/one", "usr/bin/tool", "empty"] {
                check!(tree.get(path).is_some(), "{name:?} has removed {path}");
            }
        }
    }
    Ok(())
}

/// A file that goes where a pipe or a device is replaces it: nothing is written to, and nothing waits.
fn a_file_over_a_pipe_or_a_device(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let tar = Tarball::of([
        Item::fifo("pipe"),
        Item::file("pipe", "a file"),
        Item::device("device", 1, 5),
        Item::file("device", "a file"),
    ]);
    let tree = target.applies(scene, &tar)?;
    for path in ["pipe", "device"] {
        let kind = tree.get(path).map(|node| node.kind.clone());
        check_eq!(kind, Some(Kind::File { size: 6, hash: hash_of(b"a file") }), "what was a {path}");
    }
    Ok(())
}

/// A name longer than the driver's longest cannot be made: an error naming the entry.
fn names_longer_than_a_name_may_be(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let longest = target.layers.capabilities().max_name as usize;
    let tree = target.applies(scene, &Tarball::of([Item::file("n".repeat(longest), "x")]))?;
    check!(tree.get("n".repeat(longest)).is_some(), "the longest name is missing");
    for length in [longest + 1, 4095, 5000] {
        for name in ["n".repeat(length), format!("{}/in", "n".repeat(length))] {
            target.refuses(scene, &Tarball::of([Item::file(&name, "x")]), &"n".repeat(100))?;
        }
    }
    Ok(())
}

/// A path longer than the kernel takes in one call can be applied, if each of its names can.
fn paths_longer_than_a_path_may_be(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let part = "p".repeat(150);
    let path = format!("{part}/").repeat(60);
    let tar = Tarball::of([
        Item::file(format!("{path}file"), "deep").mode(0o600),
        Item::hardlink(format!("{path}second"), format!("{path}file")),
        Item::symlink(format!("{path}link"), "file"),
    ]);
    let tree = target.applies(scene, &tar)?;
    let file = tree.get(format!("{path}file")).map(|node| (node.kind.clone(), node.mode));
    check_eq!(file, Some((Kind::File { size: 4, hash: hash_of(b"deep") }, 0o600)), "the file at the end");
    check!(tree.get(format!("{path}second")).is_some_and(|node| node.same_as.is_some()), "its second name");
    Ok(())
}

/// Names that are not UTF-8 are names.
fn names_that_are_not_text(scene: &Scene) -> Verdict {
    use std::os::unix::ffi::OsStrExt;
    let target = Target::new(scene)?;
    let long = b"long-\xe4/".repeat(20);
    for name in [&b"\xff\xfe\x80"[..], b"line\nbreak", b"\x1b[31mred", &long] {
        let name = [name, &b"end\xff"[..]].concat();
        let tree = target.applies(scene, &Tarball::of([Item::file(&name, "x")]))?;
        check!(tree.get(std::ffi::OsStr::from_bytes(&name)).is_some(), "{name:?} is missing");
    }
    Ok(())
}

/// A name with a NUL in it is no name, and not the one before the NUL.
fn a_name_with_a_nul(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    for (key, item) in [("path", Item::file("x", "")), ("linkpath", Item::symlink("x", "y"))] {
        let records = [(key.to_owned(), b"etc/passwd\0.txt".to_vec())];
        let tar = Tarball::new().pax(b'x', &records).item(item).end();
        let imported = target.import(scene, &mut &tar[..])?;
        let kind = imported.err().map(|error| error.kind());
        check_eq!(kind, Some(ErrorKind::InvalidInput), "the error for a NUL in {key}");
    }
    Ok(())
}

/// An entry without a name is none.
fn an_entry_without_a_name(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let imported = target.import(scene, &mut &Tarball::of([Item::file("", "content")])[..])?;
    check_eq!(imported.err().map(|error| error.kind()), Some(ErrorKind::InvalidInput), "the error");
    Ok(())
}

/// A size that no file can have, or that the archive does not have: an error naming the entry.
fn a_size_beyond_everything(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    for size in [1 << 20, 1 << 40, i64::MAX.unsigned_abs(), u64::MAX] {
        let tar = Tarball::new().item(Item::file("huge", "little").claiming(size)).end();
        target.refuses(scene, &tar, "huge")?;
    }
    for size in ["-1", "99999999999999999999999", "0x10", ""] {
        let records = [("size".to_owned(), size.as_bytes().to_vec())];
        let tar = Tarball::new().pax(b'x', &records).item(Item::file("odd", "")).end();
        target.harmless(scene, &tar)?;
    }
    Ok(())
}

/// A sparse file whose holes reach beyond what the file system takes: an error naming the entry.
fn a_sparse_file_beyond_everything(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    // 2^63 is beyond every file system; the largest that is not, 2^63 - 1, is beyond most.
    let mut sizes = vec![1 << 63];
    if fs::File::create(scene.work().join("probe"))?.set_len(i64::MAX.unsigned_abs()).is_err() {
        sizes.push(i64::MAX.unsigned_abs());
    }
    for size in sizes {
        let records = [
            ("GNU.sparse.major", "1".to_owned()),
            ("GNU.sparse.minor", "0".to_owned()),
            ("GNU.sparse.name", "vast".to_owned()),
            ("GNU.sparse.realsize", size.to_string()),
        ];
        let records = records.map(|(key, value)| (key.to_owned(), value.into_bytes()));
        // The map of GNU's format 1.0 stands before the data: the number of pieces, then where each is.
        let mut map = format!("1\n{}\n512\n", size - 512).into_bytes();
        map.resize(512, 0);
        map.extend_from_slice(&[b'x'; 512]);
        let tar = Tarball::new().pax(b'x', &records).item(Item::file("GNUSparseFile.0/vast", &map)).end();
        target.refuses(scene, &tar, "vast")?;
    }
    Ok(())
}

/// A header that claims to be of endless length ends the import soon, with an error, and is not kept in memory.
fn a_header_of_endless_length(scene: &Scene) -> Verdict {
    struct Counting<'a, R>(R, &'a Cell<u64>);
    impl<R: Read> Read for Counting<'_, R> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let length = self.0.read(buffer)?;
            self.1.set(self.1.get() + length as u64);
            Ok(length)
        }
    }
    let target = Target::new(scene)?;
    let before = kernel::watch_memory()?;
    for kind in [b'x', b'g', b'L', b'K'] {
        let start = Tarball::new().item(Item::file("first", "x")).unfinished();
        let header = Tarball::new().item(Item::file("long", "").claiming(1 << 40)).unfinished();
        let header = with_kind(header, kind);
        let read = Cell::new(0);
        let endless = start.as_slice().chain(header.as_slice()).chain(std::io::repeat(b'x').take(1 << 32));
        let imported = target.import(scene, &mut Counting(endless, &read))?;
        check_eq!(imported.err().map(|error| error.kind()), Some(ErrorKind::InvalidInput), "the error");
        // A global header may be passed over without being understood, and then is read to its end.
        check!(kind == b'g' || read.get() < 64 << 20, "{} bytes of the header were read", read.get());
        kernel::memory_stayed_below(before, 64)?;
    }
    Ok(())
}

/// The header of another type, its sum made right.
fn with_kind(mut header: Vec<u8>, kind: u8) -> Vec<u8> {
    header[156] = kind;
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// A global header names no file: what follows keeps its own names.
fn a_global_header_that_renames(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let records = [("path".to_owned(), b"../renamed".to_vec()), ("comment".to_owned(), b"x".to_vec())];
    let tar = Tarball::new().pax(b'g', &records).item(Item::file("own-name", "x")).end();
    if let Some(tree) = target.harmless(scene, &tar)? {
        check!(tree.get("own-name").is_some(), "the file has lost its name");
    }
    Ok(())
}

/// A header whose sum is wrong is none: an error, and no guess where the next one is.
fn a_header_with_a_wrong_sum(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let mut tar = Tarball::of([Item::file("first", "x"), Item::file("second", "y")]);
    tar[1024] ^= 1;
    let imported = target.import(scene, &mut &tar[..])?;
    check_eq!(imported.err().map(|error| error.kind()), Some(ErrorKind::InvalidInput), "the error");
    Ok(())
}

/// An archive that ends within a header or a file is refused, wherever it ends.
fn an_archive_that_ends_too_early(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let long = "n".repeat(150);
    let tar =
        Tarball::new().item(Item::file("first", vec![b'x'; 700])).item(Item::file(long, "y")).unfinished();
    for length in [1, 100, 511, 513, 800, 1211, 1600, 2000, 2048, 2300, 2561, tar.len() - 512] {
        let cut = tar.get(..length).unwrap_or(&tar);
        let imported = target.import(scene, &mut &cut[..])?;
        check!(imported.is_err(), "a tar of {} bytes cut after {length} was applied", tar.len());
    }
    Ok(())
}

/// What stands after the end of an archive is no part of it.
fn data_after_the_end(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let tar = Tarball::of([Item::file("first", "x")]);
    let zeros = [tar.clone(), vec![0; 100_000]].concat();
    check!(target.applies(scene, &zeros)?.get("first").is_some(), "the file before the zeros is missing");
    let second =
        [tar, Tarball::of([Item::file("second", "y"), Item::file("etc/passwd", "changed")])].concat();
    if let Some(tree) = target.harmless(scene, &second)? {
        check!(tree.get("second").is_none(), "what stands after the end was applied");
        check_eq!(tree.get("etc/passwd"), target.base.get("etc/passwd"), "a file of the parent");
    }
    Ok(())
}

/// What is no archive is refused, and soon.
fn what_is_no_archive(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(10_000).collect();
    let gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &noise].concat();
    for bytes in [noise, gzip, b"{\"json\": true}".to_vec(), vec![b'x'; 5000], vec![b'\n'; 512]] {
        let imported = target.import(scene, &mut &bytes[..])?;
        let kind = imported.err().map(|error| error.kind());
        check_eq!(kind, Some(ErrorKind::InvalidInput), "the error for {:?}…", &bytes[..10]);
    }
    Ok(())
}

/// Property: however a tar is damaged, it is applied or refused, and nothing outside the layer changes.
fn random_damage(scene: &Scene) -> Verdict {
    let target = Target::new(scene)?;
    let tar = Tarball::of([
        Item::directory("etc").mode(0o700),
        Item::file("etc/new", vec![b'x'; 600]).xattr("user.key", "value"),
        Item::symlink("link", target.outside()),
        Item::hardlink("hard", "etc/passwd"),
        Item::file("etc/.wh.init", ""),
        Item::file("n".repeat(200), "long"),
        Item::file("usr/.wh..wh..opq", ""),
    ]);
    crate::random::with_each_seed(150, |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut damaged = tar.clone();
        for _ in 0..random.usize(1..4) {
            match random.u8(..4) {
                0 => damaged.truncate(random.usize(..=damaged.len())),
                1 => {
                    let block = random.usize(..damaged.len() / 512 + 1) * 512;
                    let rest = damaged.split_off(block.min(damaged.len()));
                    damaged.extend_from_slice(&tar[..512]);
                    damaged.extend_from_slice(&rest);
                }
                _ if damaged.len() >= 512 => damage_a_header(&mut damaged, &mut random),
                _ => {}
            }
        }
        match target.import(scene, &mut &damaged[..])? {
            Err(error) if error.kind() == ErrorKind::Other => Err(Stop::failed(format_args!("{error:?}"))),
            _ => Ok(()),
        }
    })
}

/// Changes a byte of some header and makes its sum right again, so that it is not the sum that protects.
fn damage_a_header(tar: &mut [u8], random: &mut fastrand::Rng) {
    let block = random.usize(..tar.len() / 512) * 512;
    let header = &mut tar[block..block + 512];
    if &header[257..262] != b"ustar" {
        return;
    }
    let at = [random.usize(..100), random.usize(100..136), 156, random.usize(157..200)][random.usize(..4)];
    header[at] = if at == 156 { b"0123456xgLKSV"[random.usize(..13)] } else { random.u8(..) };
    let repaired = with_kind(header.to_vec(), header[156]);
    header.copy_from_slice(&repaired);
}
