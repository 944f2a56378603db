//! Project quota on loop-backed file systems. They need root, mkfs.ext4, mkfs.xfs and setpriv.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use layerstack_core::ErrorKind;
use layerstack_core::quota::{Limits, ProjectQuota};

/// A file system on a loop device, mounted.
struct Store(PathBuf);

impl Store {
    fn new(mkfs: &[&str], options: &str) -> Self {
        let path = tempfile::Builder::new().prefix("layerstack-quota-").tempdir().unwrap().keep();
        let store = Self(path);
        let image = store.0.join("image");
        fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        fs::create_dir(store.root()).unwrap();
        run(Command::new("mount").args(["-o", options]).arg(&image).arg(store.root()));
        store
    }

    fn root(&self) -> PathBuf {
        self.0.join("mounted")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.root(), rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes until it fails: how many bytes, and what the last call said. By a process without `CAP_SYS_RESOURCE`, which
/// on ext4 stands above quota.
fn fill(path: &Path) -> (u64, String) {
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_resource", "dd", "if=/dev/zero", "bs=64k", "oflag=dsync", "count=1000"])
        .arg(format!("of={}", path.display()))
        .output()
        .unwrap();
    assert!(!output.status.success());
    (fs::metadata(path).unwrap().len(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_mount_without_project_quota_says_what_to_do() {
    for (mkfs, remedy) in [
        (&["mkfs.ext4", "-q"][..], "tune2fs -O quota,project -Q prjquota"),
        (&["mkfs.xfs", "-q"][..], "mount it with: -o pquota"),
    ] {
        let store = Store::new(mkfs, "loop");
        let error = ProjectQuota::probe(&store.root()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("is off for") && error.message().contains(remedy), "{error}");
    }
}

#[test]
#[ignore = "needs a kernel with project quota; User Mode Linux of Debian 12 has it"]
fn a_limit_holds_for_all_below_a_directory() {
    for (mkfs, options) in [
        (&["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"][..], "loop,prjquota"),
        (&["mkfs.xfs", "-q"][..], "loop,pquota"),
    ] {
        let store = Store::new(mkfs, options);
        let quota = ProjectQuota::probe(&store.root()).unwrap();
        let [limited, other] = ["limited", "other"].map(|name| store.root().join(name));
        fs::create_dir(&limited).unwrap();
        fs::create_dir(&other).unwrap();
        let open = fs::File::open(&limited).unwrap();
        assert_eq!(quota.project_of(&open).unwrap(), None);
        let project = quota.assign(&open, "layer", Limits::of_bytes(10 << 20)).unwrap();
        assert_eq!(quota.project_of(&open).unwrap(), Some(project));
        // The name points to a number that is taken now.
        let second =
            quota.assign(fs::File::open(&other).unwrap(), "layer", Limits::of_bytes(20 << 20)).unwrap();
        assert_ne!(project, second);

        fs::create_dir_all(limited.join("a/b")).unwrap();
        let (written, error) = fill(&limited.join("a/b/file"));
        let full = if mkfs[0] == "mkfs.xfs" { "No space left on device" } else { "Disk quota exceeded" };
        assert!(error.contains(full), "{mkfs:?}: {error}");
        assert!((8 << 20..=10 << 20).contains(&written), "{mkfs:?}: {written}");
        let usage = quota.usage(project).unwrap();
        assert_eq!(usage.limits, Limits::of_bytes(10 << 20));
        assert!(usage.bytes >= written && usage.bytes <= 10 << 20, "{usage:?}");
        assert_eq!(usage.inodes, 4);
        fs::write(other.join("file"), [1; 65536]).unwrap();

        // An open directory keeps its inode.
        drop(open);
        fs::remove_dir_all(&limited).unwrap();
        quota.clear(project).unwrap();
        // xfs frees inodes in the background.
        let deadline = Instant::now() + Duration::from_secs(30);
        while quota.usage(project).unwrap().inodes > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let usage = quota.usage(project).unwrap();
        assert_eq!((usage.bytes, usage.inodes, usage.limits), (0, 0, Limits::default()));
    }
}
