//! The driver against the kernel that runs the tests. They need root, overlayfs, and mkfs.xfs for one of them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstack_core::driver::{Candidates, LayerForm, NewLayer, Scope};
use layerstack_core::mount::{Access, Interface, attach, attach_through, detach};
use layerstack_core::options::Options;
use layerstack_core::registry::OpenRequest;
use layerstack_core::{Driver, ErrorKind, LayerId};
use layerstack_overlay2::Overlay2;

/// A scratch directory with a home in it. What is mounted in it goes with it.
struct Scratch(PathBuf);

impl Scratch {
    /// In the directory for temporary files.
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("layerstack-overlay2-").tempdir().unwrap().keep())
    }

    /// On a file system of its own.
    fn on(mkfs: &[&str], options: &str) -> Self {
        let scratch = Self::new();
        let image = scratch.0.join("image");
        fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg("-q").arg(&image));
        fs::create_dir(scratch.store()).unwrap();
        run(Command::new("mount").args(["-o", options]).arg(&image).arg(scratch.store()));
        scratch
    }

    fn on_xfs() -> Self {
        Self::on(&["mkfs.xfs"], "loop")
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    fn home(&self) -> PathBuf {
        if self.store().is_dir() { self.store().join("overlay2") } else { self.0.join("overlay2") }
    }

    fn open(&self, options: &[&str]) -> Overlay2 {
        let options = Options::parse(options).unwrap();
        Overlay2::open(&OpenRequest::new(&self.home(), &options)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.store(), rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn id(name: &str) -> LayerId {
    LayerId::new(name).unwrap()
}

fn create(driver: &Overlay2, name: &str, parent: Option<&str>) {
    let parent = parent.map(id);
    driver.create(&NewLayer::new(&id(name), parent.as_ref(), &Options::new())).unwrap();
}

/// Does something in the mounted layer.
fn mounted<T>(driver: &Overlay2, name: &str, access: Access, work: impl FnOnce(&Path) -> T) -> T {
    let plan = driver.mount_plan(&id(name), access).unwrap();
    fs::create_dir(&plan.target).unwrap();
    attach(&plan, &plan.target).unwrap();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&plan.target)));
    detach(&plan.target).unwrap();
    fs::remove_dir(&plan.target).unwrap();
    driver.unmounted(&id(name)).unwrap();
    done.unwrap()
}

fn candidates(driver: &Overlay2, name: &str) -> Vec<(String, Scope)> {
    let Candidates::Paths(paths) = driver.candidates(&id(name)).unwrap() else { panic!("not narrowed") };
    paths.map(|found| found.unwrap()).map(|found| (found.path.display().to_string(), found.scope)).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_layout_is_dockers_and_removal_leaves_nothing() {
    for scratch in [Scratch::new(), Scratch::on_xfs()] {
        let driver = scratch.open(&[]);
        let home = scratch.home();
        assert_eq!(fs::metadata(&home).unwrap().mode() & 0o7777, 0o710);
        create(&driver, "base", None);
        fs::write(home.join("base/diff/file"), "base").unwrap();
        driver.seal(&id("base"), true).unwrap();
        create(&driver, "middle", Some("base"));
        driver.seal(&id("middle"), false).unwrap();
        create(&driver, "top", Some("middle"));

        assert_eq!(names(&home), ["base", "l", "middle", "top"]);
        assert_eq!(names(&home.join("base")), ["committed", "diff", "link"]);
        assert_eq!(names(&home.join("top")), ["diff", "link", "lower", "work"]);
        let link = |name: &str| fs::read_to_string(home.join(name).join("link")).unwrap();
        assert_eq!(link("top").len(), 26);
        assert_eq!(
            fs::read_to_string(home.join("top/lower")).unwrap(),
            format!("l/{}:l/{}", link("middle"), link("base"))
        );
        assert_eq!(fs::read_link(home.join("l").join(link("top"))).unwrap(), Path::new("../top/diff"));
        assert_eq!(driver.list().unwrap(), [id("base"), id("middle"), id("top")]);

        mounted(&driver, "top", Access::ReadWrite, |root| {
            assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "base");
            fs::write(root.join("file"), "top").unwrap();
        });
        mounted(&driver, "top", Access::ReadOnly, |root| {
            assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "top");
            assert_eq!(
                fs::write(root.join("file"), "").unwrap_err().kind(),
                std::io::ErrorKind::ReadOnlyFilesystem
            );
        });
        mounted(&driver, "base", Access::ReadOnly, |root| {
            assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "base");
            assert_eq!(
                fs::write(root.join("file"), "").unwrap_err().kind(),
                std::io::ErrorKind::ReadOnlyFilesystem
            );
        });
        assert_eq!(
            candidates(&driver, "top"),
            [(String::new(), Scope::Entry), ("file".into(), Scope::Entry)]
        );
        let usage = driver.usage(&id("top")).unwrap();
        assert_eq!(usage.inodes, Some(2));
        let pieces = driver.inspect(&id("top")).unwrap();
        let path = |path: &str| home.join(path).display().to_string();
        assert_eq!(pieces["LowerDir"], format!("{}:{}", path("middle/diff"), path("base/diff")));
        assert_eq!(pieces["UpperDir"], path("top/diff"));
        assert_eq!(driver.apply_target(&id("base")).unwrap().form, LayerForm::Whole);
        assert_eq!(driver.apply_target(&id("top")).unwrap().form, LayerForm::Overlay { userxattr: false });

        for name in ["top", "middle", "base"] {
            driver.remove(&id(name)).unwrap();
            driver.remove(&id(name)).unwrap();
        }
        assert_eq!(names(&home), ["l"]);
        assert_eq!(names(&home.join("l")), [""; 0]);
    }
}

#[test]
fn the_root_of_a_layer_takes_after_its_parents_root() {
    let scratch = Scratch::new();
    let driver = scratch.open(&[]);
    create(&driver, "base", None);
    let root = scratch.home().join("base/diff");
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o755);
    run(Command::new("chown").arg("12:34").arg(&root));
    fs::set_permissions(&root, fs::Permissions::from_mode(0o1751)).unwrap();
    rustix::fs::setxattr(&root, c"trusted.mine", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(&root, c"trusted.overlay.impure", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    run(Command::new("touch").args(["-d", "1960-01-02 03:04:05.678901234"]).arg(&root));
    let expected = fs::metadata(&root).unwrap();
    create(&driver, "top", Some("base"));
    let root = scratch.home().join("top/diff");
    let found = fs::metadata(&root).unwrap();
    assert_eq!((found.mode(), found.uid(), found.gid()), (expected.mode(), 12, 34));
    assert_eq!((found.mtime(), found.mtime_nsec()), (expected.mtime(), 678_901_234));
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(&root, c"trusted.mine", &mut value[..]), Ok(1));
    assert!(rustix::fs::getxattr(&root, c"trusted.overlay.impure", &mut value[..]).is_err());
}

#[test]
fn what_changes_a_whole_tree_is_a_subtree() {
    let scratch = Scratch::new();
    let driver = scratch.open(&["overlay2.mountopt=redirect_dir=on"]);
    create(&driver, "base", None);
    let base = scratch.home().join("base/diff");
    for path in ["deep/er/est", "moved/in", "gone", "opaque/in"] {
        fs::create_dir_all(base.join(path)).unwrap();
        fs::write(base.join(path).join("file"), "x").unwrap();
    }
    driver.seal(&id("base"), false).unwrap();
    create(&driver, "top", Some("base"));
    mounted(&driver, "top", Access::ReadWrite, |root| {
        fs::write(root.join("deep/er/est/file"), "y").unwrap();
        fs::rename(root.join("moved"), root.join("there")).unwrap();
        fs::remove_dir_all(root.join("gone")).unwrap();
        fs::remove_dir_all(root.join("opaque")).unwrap();
        fs::create_dir(root.join("opaque")).unwrap();
        fs::write(root.join("opaque/new"), "z").unwrap();
        // Sorts before "deep/er" by bytes of the whole path, but after "deep" and all in it by components.
        fs::write(root.join("deep-"), "").unwrap();
    });
    let entry = |path: &str| (path.to_owned(), Scope::Entry);
    let subtree = |path: &str| (path.to_owned(), Scope::Subtree);
    assert_eq!(
        candidates(&driver, "top"),
        [
            entry(""),
            entry("deep"),
            entry("deep/er"),
            entry("deep/er/est"),
            entry("deep/er/est/file"),
            entry("deep-"),
            entry("gone"),
            entry("moved"),
            subtree("opaque"),
            subtree("there"),
        ]
    );
    // A driver without the option still follows what is there.
    let driver = scratch.open(&[]);
    mounted(&driver, "top", Access::ReadWrite, |root| {
        assert_eq!(fs::read_to_string(root.join("there/in/file")).unwrap(), "x");
        assert!(fs::rename(root.join("there/in"), root.join("elsewhere")).is_err());
    });
}

#[test]
fn a_tree_of_any_depth_is_walked() {
    let scratch = Scratch::new();
    let driver = scratch.open(&[]);
    create(&driver, "base", None);
    create(&driver, "top", Some("base"));
    let name = "d".repeat(200);
    let mut directory = fs::File::open(scratch.home().join("top/diff")).unwrap();
    for _ in 0..50 {
        rustix::fs::mkdirat(&directory, &name, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        directory =
            rustix::fs::openat(&directory, &name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
                .unwrap()
                .into();
    }
    let found = candidates(&driver, "top");
    assert_eq!(found.len(), 51);
    assert_eq!(found[50].0.len(), 50 * 201 - 1);
    driver.remove(&id("top")).unwrap();
}

#[test]
fn the_longest_chain_mounts_and_one_more_layer_is_refused() {
    let scratch = Scratch::new();
    let driver = scratch.open(&[]);
    let most = driver.capabilities().max_depth.unwrap();
    assert_eq!(most, if layerstack_core::mount::appends_layers() { 500 } else { 128 });
    for number in 1..=most {
        let parent = (number > 1).then(|| format!("layer{}", number - 1));
        create(&driver, &format!("layer{number}"), parent.as_deref());
        let diff = scratch.home().join(format!("layer{number}/diff"));
        fs::write(diff.join(format!("file{number}")), number.to_string()).unwrap();
    }
    for access in [Access::ReadOnly, Access::ReadWrite] {
        mounted(&driver, &format!("layer{most}"), access, |root| {
            assert_eq!(fs::read_dir(root).unwrap().count(), most as usize);
            assert_eq!(fs::read_to_string(root.join("file1")).unwrap(), "1");
        });
    }
    let (top, parent, options) = (id("onemore"), id(&format!("layer{most}")), Options::new());
    let error = driver.create(&NewLayer::new(&top, Some(&parent), &options)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(&format!("{} layers", most + 1)), "{error}");
    assert!(!scratch.home().join("onemore").exists());

    // Through mount(2), as on kernels without "lowerdir+", 128 fit: the topmost, whose id is as long as one can be,
    // and 127 below.
    let long = "z".repeat(LayerId::MAX_LEN);
    create(&driver, &long, Some("layer127"));
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let plan = driver.mount_plan(&id(&long), access).unwrap();
        let _ = fs::create_dir(&plan.target);
        attach_through(Interface::Classic, &plan, &plan.target).unwrap();
        assert_eq!(fs::read_dir(&plan.target).unwrap().count(), 127);
        detach(&plan.target).unwrap();
    }
}

/// A root as the documentation of Docker's overlay2 driver describes it.
fn make_docker_root(home: &Path) {
    for directory in ["l", "aaaa/diff/etc", "bbbb/diff/etc", "bbbb/work", "cccc-init/diff", "cccc-init/work"]
    {
        fs::create_dir_all(home.join(directory)).unwrap();
    }
    for directory in ["cccc/diff", "cccc/work", "staging/half"] {
        fs::create_dir_all(home.join(directory)).unwrap();
    }
    fs::write(home.join("aaaa/diff/etc/release"), "release").unwrap();
    fs::write(home.join("bbbb/diff/etc/hosts"), "hosts").unwrap();
    let layers = ["aaaa", "bbbb", "cccc-init", "cccc"];
    let links = [
        "AAAAAAAAAAAAAAAAAAAAAAAAA2",
        "BBBBBBBBBBBBBBBBBBBBBBBBB2",
        "INITINITINITINITINITINIT22",
        "CCCCCCCCCCCCCCCCCCCCCCCCC2",
    ];
    for (number, (layer, link)) in layers.iter().zip(links).enumerate() {
        fs::write(home.join(layer).join("link"), link).unwrap();
        symlink(format!("../{layer}/diff"), home.join("l").join(link)).unwrap();
        let lower: Vec<_> = links[..number].iter().rev().map(|link| format!("l/{link}")).collect();
        if !lower.is_empty() {
            fs::write(home.join(layer).join("lower"), lower.join(":")).unwrap();
        }
        if number < 3 {
            fs::write(home.join(layer).join("committed"), "").unwrap();
        }
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        home.join("backingFsBlockDev"),
        rustix::fs::FileType::BlockDevice,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(8, 0),
    )
    .unwrap();
}

#[test]
fn a_root_made_by_docker_is_adopted() {
    let scratch = Scratch::new();
    let home = scratch.home();
    make_docker_root(&home);
    // On a host where "metacopy" is on, a mode changed in the second layer's container left only metadata there.
    let merged = scratch.0.join("merged");
    fs::create_dir(&merged).unwrap();
    let options = format!(
        "lowerdir={0}/aaaa/diff,upperdir={0}/bbbb/diff,workdir={0}/bbbb/work,metacopy=on,redirect_dir=on",
        home.display()
    );
    run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged));
    fs::set_permissions(merged.join("etc/release"), fs::Permissions::from_mode(0o600)).unwrap();
    run(Command::new("umount").arg(&merged));
    let attribute = c"trusted.overlay.metacopy";
    rustix::fs::getxattr(home.join("bbbb/diff/etc/release"), attribute, &mut [0; 64][..]).unwrap();

    let driver = scratch.open(&[]);
    assert_eq!(driver.list().unwrap(), [id("aaaa"), id("bbbb"), id("cccc"), id("cccc-init")]);
    let found = |name: &str| {
        let found = driver.find(&id(name)).unwrap().unwrap();
        (found.parent.map(String::from), found.sealed)
    };
    assert_eq!(found("aaaa"), (None, Some(true)));
    assert_eq!(found("bbbb"), (Some("aaaa".into()), Some(true)));
    assert_eq!(found("cccc-init"), (Some("bbbb".into()), Some(true)));
    assert_eq!(found("cccc"), (Some("cccc-init".into()), None));

    mounted(&driver, "cccc", Access::ReadWrite, |root| {
        assert_eq!(fs::read_to_string(root.join("etc/release")).unwrap(), "release");
        assert_eq!(fs::metadata(root.join("etc/release")).unwrap().mode() & 0o777, 0o600);
        fs::write(root.join("etc/hosts"), "mine").unwrap();
    });
    assert_eq!(
        candidates(&driver, "cccc").iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        ["", "etc", "etc/hosts"]
    );
    // What was found out is kept: the layers from the second on need metacopy, the first does not.
    assert!(!home.join("aaaa/metacopy").exists());
    for layer in ["bbbb", "cccc-init", "cccc"] {
        assert_eq!(fs::read_to_string(home.join(layer).join("metacopy")).unwrap(), "yes");
    }
    let shows = |name: &str| driver.mount_plan(&id(name), Access::ReadOnly).unwrap().to_string();
    create(&driver, "plain", Some("aaaa"));
    assert!(shows("plain").contains("metacopy=off"));
    create(&driver, "onto", Some("bbbb"));
    assert!(shows("onto").contains("metacopy=on"));
    mounted(&driver, "onto", Access::ReadOnly, |root| {
        assert_eq!(fs::read_to_string(root.join("etc/release")).unwrap(), "release");
    });
}

#[test]
fn a_layer_that_lacks_a_piece_is_corrupt_and_debris_is_none() {
    let scratch = Scratch::new();
    let home = scratch.home();
    make_docker_root(&home);
    fs::remove_file(home.join("l/BBBBBBBBBBBBBBBBBBBBBBBBB2")).unwrap();
    fs::create_dir_all(home.join("debris/diff")).unwrap();
    fs::write(home.join("debris/link"), "").unwrap();
    fs::create_dir_all(home.join("strange/content")).unwrap();
    let driver = scratch.open(&[]);
    for (name, says) in [("bbbb", "short name"), ("cccc-init", "is missing"), ("strange", "short name")] {
        let error = driver.find(&id(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(driver.find(&id("debris")).unwrap(), None);
    assert_eq!(driver.find(&id("absent")).unwrap(), None);
    fs::remove_dir(home.join("aaaa/diff/etc")).unwrap_err();
    fs::remove_dir_all(home.join("aaaa/diff")).unwrap();
    let error = driver.mount_plan(&id("aaaa"), Access::ReadOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn remove_takes_away_what_any_interruption_left() {
    let scratch = Scratch::new();
    let home = scratch.home();
    let driver = scratch.open(&[]);
    create(&driver, "base", None);
    driver.seal(&id("base"), false).unwrap();
    let clean = (names(&home), names(&home.join("l")));
    let (top, link) = (home.join("top"), home.join("l/TOPTOPTOPTOPTOPTOPTOPTOP22"));
    let steps: [(&str, &dyn Fn()); 6] = [
        ("an empty directory", &|| fs::create_dir(&top).unwrap()),
        ("a link file", &|| {
            fs::create_dir(&top).unwrap();
            fs::write(top.join("link"), "TOPTOPTOPTOPTOPTOPTOPTOP22").unwrap();
        }),
        ("a link whose file lost its content", &|| {
            fs::create_dir_all(top.join("diff")).unwrap();
            fs::write(top.join("link"), "").unwrap();
            symlink("../top/diff", &link).unwrap();
        }),
        ("a renamed layer", &|| {
            create(&driver, "top", Some("base"));
            fs::rename(&top, home.join("top-removing")).unwrap();
        }),
        ("a renamed layer without its link", &|| {
            create(&driver, "top", Some("base"));
            fs::remove_dir(top.join("work")).unwrap();
            let name = fs::read_to_string(top.join("link")).unwrap();
            fs::remove_file(home.join("l").join(name)).unwrap();
            fs::rename(&top, home.join("top-removing")).unwrap();
        }),
        ("a renamed layer and a new one", &|| {
            create(&driver, "top", Some("base"));
            fs::rename(&top, home.join("top-removing")).unwrap();
            create(&driver, "top", Some("base"));
        }),
    ];
    for (what, make) in steps {
        make();
        assert_eq!(driver.list().unwrap(), [id("base"), id("top")], "{what}");
        driver.remove(&id("top")).unwrap();
        assert_eq!((names(&home), names(&home.join("l"))), clean, "{what}");
    }
}

#[test]
fn a_volatile_layer_is_lost_with_the_boot_and_only_then() {
    let scratch = Scratch::new();
    let driver = scratch.open(&["overlay2.mountopt=volatile"]);
    create(&driver, "base", None);
    driver.seal(&id("base"), false).unwrap();
    create(&driver, "top", Some("base"));
    mounted(&driver, "top", Access::ReadWrite, |root| fs::write(root.join("file"), "x").unwrap());
    let mark = scratch.home().join("top/work/work/incompat/volatile");
    assert!(mark.exists());
    mounted(&driver, "top", Access::ReadWrite, |root| fs::write(root.join("file"), "y").unwrap());
    let plain = scratch.open(&[]);
    mounted(&plain, "top", Access::ReadWrite, |root| fs::write(root.join("file"), "z").unwrap());
    assert!(!mark.exists());

    mounted(&driver, "top", Access::ReadWrite, |_| {});
    fs::write(scratch.home().join("top/volatile"), "another boot").unwrap();
    let error = plain.mount_plan(&id("top"), Access::ReadWrite).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("remove the layer"), "{error}");
    driver.remove(&id("top")).unwrap();
}

#[test]
fn the_probe_leaves_nothing_and_names_what_does_not_work() {
    let scratch = Scratch::new();
    let probe = layerstack_overlay2::REGISTRATION.probe;
    let options = Options::new();
    probe(&OpenRequest::new(&scratch.home(), &options)).unwrap();
    assert_eq!(names(&scratch.0), [""; 0]);

    let driver = scratch.open(&[]);
    create(&driver, "base", None);
    create(&driver, "top", Some("base"));
    mounted(&driver, "top", Access::ReadWrite, |root| {
        let error = probe(&OpenRequest::new(&root.join("nested"), &options)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("overlayfs cannot keep layers on overlayfs"), "{error}");
        assert_eq!(names(root), [""; 0]);
    });
    let error = probe(&OpenRequest::new(Path::new("/proc/nowhere"), &options)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Other), "{error:?}");
}

#[test]
fn deletions_are_whiteouts_in_the_upper_directory() {
    let scratch = Scratch::new();
    let driver = scratch.open(&[]);
    create(&driver, "base", None);
    fs::write(scratch.home().join("base/diff/file"), "x").unwrap();
    create(&driver, "top", Some("base"));
    mounted(&driver, "top", Access::ReadWrite, |root| fs::remove_file(root.join("file")).unwrap());
    let whiteout = fs::symlink_metadata(scratch.home().join("top/diff/file")).unwrap();
    assert!(whiteout.file_type().is_char_device());
    assert_eq!(whiteout.rdev(), 0);
}

#[test]
fn a_size_is_refused_with_the_reason_where_it_cannot_be_kept() {
    let scratch = Scratch::on_xfs();
    let driver = scratch.open(&[]);
    let (top, options) = (id("top"), Options::parse(["size=10M"]).unwrap());
    let error = driver.create(&NewLayer::new(&top, None, &options)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("pquota"), "{error}");
    assert!(driver.capabilities().quota.reason().unwrap().contains("pquota"));
    assert_eq!(names(&scratch.home()), ["l"]);
    let options = Options::parse(["overlay2.size=10M"]).unwrap();
    let error = Overlay2::open(&OpenRequest::new(&scratch.home(), &options)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    create_with(&driver, "unlimited", &["size=0"]);
}

#[test]
#[ignore = "needs a kernel with project quota; User Mode Linux of Debian 12 has it"]
fn a_size_limits_what_a_layer_adds() {
    for (mkfs, options) in [
        (&["mkfs.xfs"][..], "loop,pquota"),
        (&["mkfs.ext4", "-O", "quota,project", "-E", "quotatype=prjquota"][..], "loop,prjquota"),
    ] {
        let scratch = Scratch::on(mkfs, options);
        let driver = scratch.open(&["overlay2.size=50M"]);
        assert!(driver.capabilities().quota.offered());
        create_with(&driver, "base", &["size=0"]);
        fs::write(scratch.home().join("base/diff/big"), vec![1; 60 << 20]).unwrap();
        create_with(&driver, "small", &["size=10M"]);
        driver.remove(&id("small")).unwrap();
        let parent = id("base");
        let options = Options::parse(["size=10M"]).unwrap();
        for name in ["top", "next"] {
            driver.create(&NewLayer::new(&id(name), Some(&parent), &options)).unwrap();
            mounted(&driver, name, Access::ReadWrite, |root| {
                fs::write(root.join("fits"), vec![1; 5 << 20]).unwrap();
                let error = fs::write(root.join("much"), vec![1; 20 << 20]).unwrap_err();
                let full = [std::io::ErrorKind::QuotaExceeded, std::io::ErrorKind::StorageFull];
                assert!(full.contains(&error.kind()), "{mkfs:?}: {error}");
                assert_eq!(fs::metadata(root.join("big")).unwrap().len(), 60 << 20);
            });
        }
        driver.remove(&id("top")).unwrap();
        driver.remove(&id("next")).unwrap();
        assert_eq!(names(&scratch.home()), ["base", "l"]);
    }
}

fn create_with(driver: &Overlay2, name: &str, options: &[&str]) {
    let options = Options::parse(options).unwrap();
    driver.create(&NewLayer::new(&id(name), None, &options)).unwrap();
}

#[test]
fn a_new_directory_in_place_of_another_is_a_subtree() {
    let scratch = Scratch::new();
    let driver = scratch.open(&[]);
    create(&driver, "base", None);
    fs::create_dir_all(scratch.home().join("base/diff/directory/in")).unwrap();
    create(&driver, "top", Some("base"));
    mounted(&driver, "top", Access::ReadWrite, |root| {
        fs::remove_dir_all(root.join("directory")).unwrap();
        fs::create_dir(root.join("directory")).unwrap();
    });
    assert_eq!(
        candidates(&driver, "top"),
        [(String::new(), Scope::Entry), ("directory".to_owned(), Scope::Subtree)]
    );
}

#[test]
fn it_works_in_a_user_namespace() {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact"])
        .args([
            "a_new_directory_in_place_of_another_is_a_subtree",
            "a_volatile_layer_is_lost_with_the_boot_and_only_then",
            "deletions_are_whiteouts_in_the_upper_directory",
            "the_longest_chain_mounts_and_one_more_layer_is_refused",
            "the_probe_leaves_nothing_and_names_what_does_not_work",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("5 passed"), "{text}");
}
