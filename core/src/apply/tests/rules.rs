//! What an entry does to what is there.

use super::*;

fn check(cases: &[(&str, &[Item], &[Item], &str)]) {
    for (what, parent, layer, expected) in cases {
        let bench = Bench::new(parent);
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.words(layer)))
            .unwrap_or_else(|_| panic!("{what}"));
        assert_eq!(found, *expected, "{what}");
    }
}

#[test]
fn entries_replace_and_merge() {
    let tree = [dir("d"), file("d/x", "1"), dir("d/s"), file("d/s/y", "2"), file("f", "3")];
    check(&[
        ("nothing changes", &tree, &[], "d/ d/s/ d/s/y=2 d/x=1 f=3"),
        ("a file over a file", &tree, &[file("f", "new")], "d/ d/s/ d/s/y=2 d/x=1 f=new"),
        ("a file over a directory", &tree, &[file("d", "new")], "d=new f=3"),
        ("a symlink over a directory", &tree, &[symlink("d", "f")], "d->f f=3"),
        (
            "a directory over a directory",
            &tree,
            &[dir("d"), file("d/z", "4")],
            "d/ d/s/ d/s/y=2 d/x=1 d/z=4 f=3",
        ),
        ("a directory over a file", &tree, &[dir("f"), file("f/z", "4")], "d/ d/s/ d/s/y=2 d/x=1 f/ f/z=4"),
        (
            "a directory over a symlink to one",
            &[dir("d"), file("d/x", "1"), symlink("l", "d")],
            &[dir("l"), file("l/z", "4")],
            "d/ d/x=1 l/ l/z=4",
        ),
        (
            "a file over a symlink is not written through it",
            &[file("f", "1"), symlink("l", "f")],
            &[file("l", "2")],
            "f=1 l=2",
        ),
        (
            "a file over a hard link leaves the other name",
            &[file("f", "1"), hardlink("l", "f")],
            &[file("l", "2")],
            "f=1 l=2",
        ),
        (
            "the last of several of one name counts",
            &[],
            &[file("f", "1"), file("f", "22"), file("f", "3")],
            "f=3",
        ),
        (
            "a directory after a file that replaced the parent's directory",
            &tree,
            &[file("d", "1"), dir("d"), file("d/z", "4")],
            "d/ d/z=4 f=3",
        ),
        (
            "a file after a directory of the same layer",
            &[],
            &[dir("d"), file("d/x", "1"), file("d", "2")],
            "d=2",
        ),
        (
            "names are cleaned",
            &[],
            &[dir("/abs/"), file("./abs/./a", "1"), file("//abs//b", "2")],
            "abs/ abs/a=1 abs/b=2",
        ),
        (
            "devices and fifos",
            &[],
            &[
                special("c", EntryKind::CharDevice { major: 1, minor: 3 }),
                special("b", EntryKind::BlockDevice { major: 7, minor: 300 }),
                special("p", EntryKind::Fifo),
            ],
            "b! c! p!",
        ),
        (
            "aufs' own files are passed over",
            &tree,
            &[
                file(".wh..wh.aufs", ""),
                dir(".wh..wh.plnk"),
                file(".wh..wh.plnk/1.2", "x"),
                dir(".wh..wh.orph/"),
            ],
            "d/ d/s/ d/s/y=2 d/x=1 f=3",
        ),
    ]);
}

#[test]
fn directories_on_the_way() {
    let tree = [
        dir("usr/"),
        dir("usr/lib"),
        symlink("lib", "usr/lib"),
        symlink("abs", "/usr/./lib/"),
        symlink("up", "../../../usr/lib"),
        symlink("chain", "lib"),
        symlink("dangling", "none"),
    ];
    let with = |more: &str| {
        format!(
            "abs->/usr/./lib/ chain->lib dangling->none lib->usr/lib up->../../../usr/lib usr/ usr/lib/ usr/lib/{more}"
        )
    };
    check(&[
        ("missing ones are made", &[], &[file("a/b/c", "1")], "a/ a/b/ a/b/c=1"),
        ("the parent's are merged into", &tree, &[file("usr/lib/x", "1")], &with("x=1")),
        ("a relative link of the parent", &tree, &[file("lib/x", "1")], &with("x=1")),
        ("an absolute one starts at the layer's root", &tree, &[file("abs/x", "1")], &with("x=1")),
        ("one that goes up stops at the layer's root", &tree, &[file("up/x", "1")], &with("x=1")),
        ("one to another one", &tree, &[file("chain/x", "1")], &with("x=1")),
        (
            "by turns, so that nothing remembered is wrong",
            &tree,
            &[
                file("lib/a", "1"),
                file("usr/lib/b", "2"),
                file("lib/c", "3"),
                file("usr/lib/d", "4"),
                file("up/e", "5"),
            ],
            &with("a=1 usr/lib/b=2 usr/lib/c=3 usr/lib/d=4 usr/lib/e=5"),
        ),
        (
            "one that leads nowhere yet",
            &tree,
            &[file("dangling/x", "1")],
            "abs->/usr/./lib/ chain->lib dangling->none lib->usr/lib none/ none/x=1 up->../../../usr/lib usr/ usr/lib/",
        ),
        ("a link of the same layer", &[dir("d")], &[symlink("l", "d"), file("l/x", "1")], "d/ d/x=1 l->d"),
        (
            "a link that the layer replaces by a directory",
            &[dir("d"), symlink("l", "d")],
            &[file("l/x", "1"), dir("l"), file("l/y", "2")],
            "d/ d/x=1 l/ l/y=2",
        ),
        (
            "a link that the layer replaces by another",
            &[dir("d"), dir("e"), symlink("l", "d")],
            &[file("l/x", "1"), symlink("l", "e"), file("l/y", "2")],
            "d/ d/x=1 e/ e/y=2 l->e",
        ),
        (
            "a link through another directory",
            &[dir("a/b"), dir("c"), symlink("a/b/l", "../../c")],
            &[file("a/b/l/x", "1")],
            "a/ a/b/ a/b/l->../../c c/ c/x=1",
        ),
        (
            "a directory replaced by a link while in it",
            &[dir("e")],
            &[file("d/s/x", "1"), symlink("d", "e"), file("d/s/y", "2")],
            "d->e e/ e/s/ e/s/y=2",
        ),
        (
            "the way through a deleted link is new",
            &[dir("d"), symlink("l", "d")],
            &[gone(".wh.l"), file("l/x", "1")],
            "d/ l/ l/x=1",
        ),
    ]);
}

#[test]
fn whiteouts() {
    let tree =
        [dir("d"), file("d/x", "1"), dir("d/s"), file("d/s/y", "2"), file("f", "3"), symlink("l", "d")];
    let all = "d/ d/s/ d/s/y=2 d/x=1 f=3 l->d";
    check(&[
        ("of a file", &tree, &[gone(".wh.f")], "d/ d/s/ d/s/y=2 d/x=1 l->d"),
        ("of a file below", &tree, &[gone("./d/.wh.x")], "d/ d/s/ d/s/y=2 f=3 l->d"),
        ("of a directory", &tree, &[gone(".wh.d")], "f=3 l->d"),
        ("of a symlink", &tree, &[gone(".wh.l")], "d/ d/s/ d/s/y=2 d/x=1 f=3"),
        ("through a symlink", &tree, &[gone("l/.wh.x")], "d/ d/s/ d/s/y=2 f=3 l->d"),
        (
            "of nothing",
            &tree,
            &[gone(".wh.none"), gone("none/.wh.x"), gone("d/.wh.none"), gone("f/.wh.x")],
            all,
        ),
        ("of nothing makes no directories", &[], &[gone("a/b/.wh.c"), gone("a/.wh..wh..opq")], ""),
        ("then new", &tree, &[gone(".wh.d"), dir("d"), file("d/z", "4")], "d/ d/z=4 f=3 l->d"),
        ("new, then", &tree, &[dir("d"), file("d/z", "4"), gone(".wh.d")], "d/ d/z=4 f=3 l->d"),
        ("new below, then", &tree, &[file("d/s/z", "4"), gone(".wh.d")], "d/ d/s/ d/s/z=4 f=3 l->d"),
        (
            "of a directory on the way, then new below",
            &tree,
            &[gone(".wh.d"), file("d/s/z", "4")],
            "d/ d/s/ d/s/z=4 f=3 l->d",
        ),
        (
            "of a file that is new",
            &tree,
            &[file("f", "new"), gone(".wh.f")],
            "d/ d/s/ d/s/y=2 d/x=1 f=new l->d",
        ),
        (
            "twice",
            &tree,
            &[gone(".wh.f"), gone(".wh.f"), file("f", "4"), gone(".wh.f")],
            "d/ d/s/ d/s/y=2 d/x=1 f=4 l->d",
        ),
        ("below, then of the directory itself", &tree, &[gone("d/s/.wh.y"), gone(".wh.d")], "f=3 l->d"),
        ("then a file in its place", &tree, &[gone(".wh.d"), file("d", "4")], "d=4 f=3 l->d"),
        (
            "then a directory in the place of a file",
            &tree,
            &[gone(".wh.f"), file("f/x", "4")],
            "d/ d/s/ d/s/y=2 d/x=1 f/ f/x=4 l->d",
        ),
        ("opaque", &tree, &[dir("d"), gone("d/.wh..wh..opq"), file("d/z", "4")], "d/ d/z=4 f=3 l->d"),
        ("opaque, last", &tree, &[dir("d"), file("d/z", "4"), gone("d/.wh..wh..opq")], "d/ d/z=4 f=3 l->d"),
        ("opaque, alone", &tree, &[gone("d/.wh..wh..opq")], "d/ f=3 l->d"),
        ("opaque, through a symlink", &tree, &[gone("l/.wh..wh..opq")], "d/ f=3 l->d"),
        (
            "opaque of the root",
            &tree,
            &[file("d/s/z", "4"), gone(".wh..wh..opq"), file("n", "5")],
            "d/ d/s/ d/s/z=4 n=5",
        ),
        (
            "opaque above, new below",
            &tree,
            &[gone("d/.wh..wh..opq"), file("d/s/z", "4")],
            "d/ d/s/ d/s/z=4 f=3 l->d",
        ),
        ("opaque of what lies under a file", &tree, &[gone("f/.wh..wh..opq")], all),
    ]);
}

#[test]
fn hard_links() {
    let tree =
        [dir("d"), file("d/x", "1"), symlink("s", "d/x"), symlink("l", "d"), special("p", EntryKind::Fifo)];
    check(&[
        (
            "within the layer",
            &[],
            &[file("a", "1"), hardlink("b", "a"), dir("d"), hardlink("d/c", "./b")],
            "a=1 b=1 d/ d/c=1",
        ),
        ("to a file of the parent", &tree, &[hardlink("b", "d/x")], "b=1 d/ d/x=1 l->d p! s->d/x"),
        (
            "to a file of the parent, with a leading slash",
            &tree,
            &[hardlink("d/b", "/d/x")],
            "d/ d/b=1 d/x=1 l->d p! s->d/x",
        ),
        (
            "to a symlink, which is not followed",
            &tree,
            &[hardlink("b", "s")],
            "b->d/x d/ d/x=1 l->d p! s->d/x",
        ),
        ("to a fifo of the parent", &tree, &[hardlink("b", "p")], "b! d/ d/x=1 l->d p! s->d/x"),
        ("through a symlink", &tree, &[hardlink("b", "l/x")], "b=1 d/ d/x=1 l->d p! s->d/x"),
        ("to itself", &tree, &[hardlink("d/x", "d/x")], "d/ d/x=1 l->d p! s->d/x"),
        ("twice", &tree, &[hardlink("b", "d/x"), hardlink("b", "d/x")], "b=1 d/ d/x=1 l->d p! s->d/x"),
        ("over another file", &tree, &[file("b", "2"), hardlink("b", "d/x")], "b=1 d/ d/x=1 l->d p! s->d/x"),
        ("over a directory", &tree, &[hardlink("d", "s")], "d->d/x l->d p! s->d/x"),
        ("and its target deleted", &tree, &[hardlink("b", "d/x"), gone("d/.wh.x")], "b=1 d/ l->d p! s->d/x"),
        (
            "and its target deleted, in the same directory",
            &tree,
            &[hardlink("d/b", "d/x"), gone("d/.wh.x")],
            "d/ d/b=1 l->d p! s->d/x",
        ),
    ]);
}

#[test]
fn a_layer_that_was_written_to_before() {
    // What the first archive brought counts as the layer's past, of which the second one's whiteouts are true too.
    let bench = Bench::new(&[dir("d"), file("d/x", "1"), file("f", "2")]);
    bench.tree(&[file("d/y", "3"), gone(".wh.f"), dir("e"), file("e/z", "4")]);
    let text = bench.words(&[gone("d/.wh.y"), file("d/w", "5"), gone("e/.wh..wh..opq"), file("f/a", "6")]);
    assert_eq!(text, "d/ d/w=5 d/x=1 e/ f/ f/a=6");
    let text = bench.words(&[gone("d/.wh..wh..opq"), gone(".wh.f")]);
    assert_eq!(text, "d/ e/");
}

#[test]
fn the_form_of_aufs() {
    let tree = [dir("d"), file("d/x", "1"), dir("e"), file("f", "2"), dir("g"), file("g/y", "3")];
    let bench = Bench::new(&tree);
    let layer = [
        gone("d/.wh.x"),
        gone("e/.wh..wh..opq"),
        gone(".wh.f"),
        file("f", "new"),
        gone(".wh.g"),
        file("g/z", "4"),
        gone(".wh.none"),
    ];
    bench.aufs(&tar(&layer)).unwrap();
    assert_eq!(words(&bench.path("aufs")), "d/ d/.wh.x= e/ e/.wh..wh..opq= f=new g/ g/.wh..wh..opq= g/z=4");
}

#[test]
fn the_form_of_overlayfs_for_users() {
    let bench = Bench::new(&[dir("d"), file("d/x", "1")]);
    let tar = tar(&[gone(".wh.d"), file("d/y", "2")]);
    unpack(&bench.path("upper"), LayerForm::Overlay { userxattr: true }, Some(&bench.path("parent")), &tar)
        .unwrap();
    let value = crate::fs::xattr::get(open(&bench.path("upper")), c"d", c"user.overlay.opaque").unwrap();
    assert_eq!(value.as_deref(), Some(&b"y"[..]));
}

#[test]
fn overwriting_its_own_files_is_told() {
    for (layer, expected) in [
        (&[file("f", "1"), dir("d"), file("d/x", "2")][..], false),
        (&[file("p", "1"), dir("q"), dir("q")], false),
        (&[gone(".wh.p"), file("p", "1"), gone(".wh.p")], false),
        (&[hardlink("h", "p"), hardlink("h", "p")], false),
        (&[file("f", "1"), file("f", "2")], true),
        (&[file("f", "1"), dir("f")], true),
        (&[file("d/f", "1"), file("d", "1")], true),
        (&[file("f", "1"), hardlink("f", "p")], true),
    ] {
        let bench = Bench::new(&[file("p", "1"), file("q", "1")]);
        let tar = tar(layer);
        for applied in [bench.whole(&tar), bench.overlay(&tar), bench.aufs(&tar)] {
            assert_eq!(applied.unwrap().overwritten, expected, "{layer:?}");
        }
    }
}
