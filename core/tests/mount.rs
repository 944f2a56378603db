//! Mounts on the kernel that runs the tests. They need root, overlayfs and tmpfs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use layerstack_core::ErrorKind;
use layerstack_core::mount::{
    Access, Hold, Interface, MountOption, MountPlan, appends_layers, attach, attach_detached,
    attach_detached_through, attach_through, detach, mounted_at, mounts_below,
};

const BOTH: [Interface; 2] = [Interface::Fsmount, Interface::Classic];

/// Those that can stack layers here: before kernel 6.7 only the classic one.
fn stacking() -> &'static [Interface] {
    if appends_layers() { &BOTH } else { &BOTH[1..] }
}

/// A scratch directory on a tmpfs of its own; all mounts in it go with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = tempfile::Builder::new().prefix("layerstack-test-").tempdir().unwrap().keep();
        let mut plan = MountPlan::bind("tmpfs", Access::ReadWrite, &path);
        plan.fstype = "tmpfs".to_owned();
        attach(&plan, &path).unwrap();
        Self(path)
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// An overlay of `layers` layers, each with a file of its own, `sub` below the scratch directory as the base.
    fn overlay(&self, sub: &str, layers: usize) -> MountPlan {
        let base = self.dir(sub);
        let stack: Vec<PathBuf> = (0..layers)
            .map(|number| {
                // As long as the names in Docker's layout: 28 bytes.
                let name = PathBuf::from(format!("l/{number:026}"));
                fs::create_dir_all(base.join(&name)).unwrap();
                fs::write(base.join(&name).join(format!("file{number}")), number.to_string()).unwrap();
                name
            })
            .collect();
        for name in ["upper", "work"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        MountPlan {
            fstype: "overlay".into(),
            source: "overlay".into(),
            access: Access::ReadWrite,
            options: vec![
                MountOption::Layers("lowerdir".into(), stack),
                MountOption::Path("upperdir".into(), "upper".into()),
                MountOption::Path("workdir".into(), "work".into()),
            ],
            base: Some(base),
            subdirectory: None,
            settings: Vec::new(),
            target: self.dir("merged"),
            hold: Hold::default(),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The mounts inside go with it. A failure here would hide the test's own.
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

fn is_read_only(path: &Path) -> bool {
    match fs::write(path.join("probe"), "x") {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem, "{error}");
            true
        }
    }
}

fn in_detached(root: &OwnedFd, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", root.as_raw_fd()).into()
}

#[test]
fn an_overlay_is_attached_found_and_detached() {
    let scratch = Scratch::new();
    for &interface in stacking() {
        let plan = scratch.overlay("a", 3);
        assert_eq!(mounted_at(&plan.target).unwrap(), None);
        let attached = attach_through(interface, &plan, &plan.target).unwrap();
        assert!(attached.id.is_some());
        assert_eq!(mounted_at(&plan.target).unwrap(), attached.id, "{interface:?}");
        assert_eq!(fs::read_to_string(plan.target.join("file2")).unwrap(), "2");
        assert!(!is_read_only(&plan.target));
        assert!(scratch.0.join("a/upper/probe").exists());
        assert_eq!(mounts_below(&plan.target).unwrap()[0].fstype, "overlay");
        detach(&plan.target).unwrap();
        assert_eq!(mounted_at(&plan.target).unwrap(), None);
        let error = detach(&plan.target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

#[test]
fn a_read_only_overlay_refuses_writes() {
    let scratch = Scratch::new();
    for &interface in stacking() {
        let mut plan = scratch.overlay("a", 2);
        plan.access = Access::ReadOnly;
        attach_through(interface, &plan, &plan.target).unwrap();
        assert!(is_read_only(&plan.target), "{interface:?}");
        detach(&plan.target).unwrap();
    }
}

#[test]
fn binds_read_only_and_writable() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    fs::write(source.join("file"), "x").unwrap();
    for interface in BOTH {
        for (access, read_only) in [(Access::ReadOnly, true), (Access::ReadWrite, false)] {
            let plan = MountPlan::bind(&source, access, scratch.dir("merged"));
            let attached = attach_through(interface, &plan, &plan.target).unwrap();
            assert_eq!(mounted_at(&plan.target).unwrap(), attached.id);
            assert_eq!(is_read_only(&plan.target), read_only, "{interface:?}");
            assert!(!is_read_only(&source));
            detach(&plan.target).unwrap();
        }
    }
}

#[test]
fn a_bind_keeps_the_flags_of_the_mount_below() {
    let scratch = Scratch::new();
    let hard = scratch.dir("hard");
    let mut plan = MountPlan::bind("tmpfs", Access::ReadWrite, &hard);
    plan.fstype = "tmpfs".to_owned();
    attach(&plan, &hard).unwrap();
    rustix::mount::mount_remount(&hard, rustix::mount::MountFlags::NOEXEC, c"").unwrap();
    fs::create_dir(hard.join("source")).unwrap();
    for interface in BOTH {
        let plan = MountPlan::bind(hard.join("source"), Access::ReadOnly, scratch.dir("merged"));
        attach_through(interface, &plan, &plan.target).unwrap();
        let flags = rustix::fs::statvfs(&plan.target).unwrap().f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC), "{interface:?}");
        detach(&plan.target).unwrap();
    }
}

#[test]
fn detached_mounts_have_no_place_and_go_with_their_descriptor() {
    let scratch = Scratch::new();
    for &interface in stacking() {
        let mut plan = scratch.overlay("a", 2);
        plan.access = Access::ReadOnly;
        let root = attach_detached_through(interface, &plan).unwrap();
        assert_eq!(fs::read_to_string(in_detached(&root, "file1")).unwrap(), "1");
        assert!(is_read_only(&in_detached(&root, "")), "{interface:?}");
        assert_eq!(mounts_below(&scratch.0).unwrap().len(), 1);
    }
    let root = attach_detached(&MountPlan::bind(scratch.dir("a"), Access::ReadOnly, "/")).unwrap();
    assert!(is_read_only(&in_detached(&root, "")));
}

#[test]
fn the_mount_is_private_though_its_place_is_shared() {
    let scratch = Scratch::new();
    let shared = rustix::mount::MountPropagationFlags::SHARED;
    rustix::mount::mount_change(&scratch.0, shared).unwrap();
    for &interface in stacking() {
        for plan in [
            scratch.overlay("a", 1),
            MountPlan::bind(scratch.dir("a"), Access::ReadOnly, scratch.dir("merged")),
        ] {
            attach_through(interface, &plan, &plan.target).unwrap();
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let target = format!(" {} ", plan.target.display());
            let line = table.lines().find(|line| line.contains(&target)).unwrap();
            assert!(!line.contains("shared:"), "{interface:?}: {line}");
            detach(&plan.target).unwrap();
        }
    }
}

#[test]
fn a_mount_in_use_stays_and_says_so() {
    let scratch = Scratch::new();
    let plan = scratch.overlay("a", 1);
    attach(&plan, &plan.target).unwrap();
    let open = fs::File::open(plan.target.join("file0")).unwrap();
    let error = detach(&plan.target).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
    drop(open);
    detach(&plan.target).unwrap();
}

#[test]
fn many_layers_and_long_paths() {
    let scratch = Scratch::new();
    let long = format!("{0}/{0}/{0}/{0}", "d".repeat(200));
    // 127 layers and an upper directory fit a page whatever the base; the new interface takes 500.
    let counts: &[(Interface, usize)] = if appends_layers() {
        &[(Interface::Fsmount, 1), (Interface::Fsmount, 500), (Interface::Classic, 127)]
    } else {
        &[(Interface::Classic, 127)]
    };
    for base in ["short", long.as_str(), "with,comma:colon\\backslash"] {
        for (interface, count) in counts {
            let plan = scratch.overlay(base, *count);
            attach_through(*interface, &plan, &plan.target).unwrap();
            let last = count - 1;
            assert_eq!(
                fs::read_to_string(plan.target.join(format!("file{last}"))).unwrap(),
                last.to_string()
            );
            assert!(!is_read_only(&plan.target));
            assert!(plan.base.as_ref().unwrap().join("upper/probe").exists(), "{base}: {interface:?}");
            detach(&plan.target).unwrap();
        }
    }
    let error =
        attach_through(Interface::Classic, &scratch.overlay("a", 200), &scratch.dir("merged")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("200 layers"), "{error}");
}

#[test]
fn special_characters_in_absolute_layers() {
    let scratch = Scratch::new();
    for &interface in stacking() {
        for name in ["a:b", "a,b", "a b"] {
            let mut plan = scratch.overlay("a", 1);
            let lower = scratch.dir(name);
            fs::write(lower.join("here"), "x").unwrap();
            plan.options[0] = MountOption::Layers("lowerdir".into(), vec![lower, scratch.dir("other")]);
            attach_through(interface, &plan, &plan.target).unwrap();
            assert!(plan.target.join("here").exists(), "{interface:?} {name}");
            detach(&plan.target).unwrap();
        }
    }
}

#[test]
fn failures_say_what_the_kernel_says_and_leave_nothing() {
    let scratch = Scratch::new();
    let mut plan = scratch.overlay("a", 2);
    plan.options.push(MountOption::Value("no_such_option".into(), "1".into()));
    let error = attach(&plan, &plan.target).unwrap_err();
    assert!(!appends_layers() || error.to_string().contains("no_such_option"), "{error}");

    let mut plan = scratch.overlay("a", 2);
    plan.fstype = "nosuchfs".into();
    plan.options.clear();
    for interface in BOTH {
        let error = attach_through(interface, &plan, &plan.target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("modprobe nosuchfs"), "{error}");
        let absent = MountPlan::bind(scratch.0.join("absent"), Access::ReadOnly, "/");
        attach_through(interface, &absent, &plan.target).unwrap_err();
        let good = MountPlan::bind(scratch.dir("a"), Access::ReadOnly, "/");
        attach_through(interface, &good, &scratch.0.join("no/such/target")).unwrap_err();
    }
    if appends_layers() {
        let error = attach(&scratch.overlay("a", 501), &plan.target).unwrap_err();
        assert!(error.to_string().contains("limit is 500"), "{error}");
    }
    assert_eq!(mounts_below(&scratch.0).unwrap().len(), 1);
}

#[test]
fn devices_and_setuid_work_inside() {
    let scratch = Scratch::new();
    let plan = scratch.overlay("a", 1);
    for &interface in stacking() {
        attach_through(interface, &plan, &plan.target).unwrap();
        let flags = rustix::fs::statvfs(&plan.target).unwrap().f_flag;
        assert!(!flags.intersects(
            rustix::fs::StatVfsMountFlags::NODEV
                | rustix::fs::StatVfsMountFlags::NOSUID
                | rustix::fs::StatVfsMountFlags::NOEXEC
        ));
        detach(&plan.target).unwrap();
    }
    assert_eq!(fs::metadata(&plan.target).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_plan_can_name_a_directory_of_its_file_system() {
    let scratch = Scratch::new();
    for interface in BOTH {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let mut plan = MountPlan::bind("proc", access, scratch.dir("target"));
            plan.fstype = "proc".to_owned();
            plan.subdirectory = Some("sys/kernel".into());
            plan.settings = vec![(scratch.0.join("setting"), format!("{interface:?}"))];
            attach_through(interface, &plan, &plan.target).unwrap();
            assert!(plan.target.join("ostype").exists(), "{interface:?}");
            assert_eq!(fs::read_to_string(scratch.0.join("setting")).unwrap(), format!("{interface:?}"));
            let mounts = mounts_below(&plan.target).unwrap();
            assert_eq!(mounts.len(), 1, "{interface:?}: {mounts:?}");
            assert_eq!(
                rustix::fs::statvfs(&plan.target)
                    .unwrap()
                    .f_flag
                    .contains(rustix::fs::StatVfsMountFlags::RDONLY),
                access == Access::ReadOnly
            );
            detach(&plan.target).unwrap();
            let root = attach_detached_through(interface, &plan).unwrap();
            assert!(in_detached(&root, "ostype").exists(), "{interface:?}");
        }
    }
    let mut plan = MountPlan::bind("proc", Access::ReadWrite, scratch.dir("target"));
    plan.fstype = "proc".to_owned();
    plan.subdirectory = Some("absent".into());
    for interface in BOTH {
        assert!(attach_through(interface, &plan, &plan.target).is_err());
        assert_eq!(mounted_at(&plan.target).unwrap(), None);
    }
    plan.subdirectory = None;
    plan.settings = vec![(scratch.0.join("absent/setting"), "1".to_owned())];
    for interface in BOTH {
        assert!(attach_through(interface, &plan, &plan.target).is_err());
        assert_eq!(mounted_at(&plan.target).unwrap(), None);
    }
}
