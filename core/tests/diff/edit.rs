//! Random edits of a tree, the same for the same seed.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};

/// splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let length = u64::try_from(from.len()).ok().filter(|length| *length > 0)?;
        from.get(usize::try_from(self.below(length)).ok()?).cloned()
    }
}

/// A sequence of edits, and what it did.
pub(crate) struct Edits {
    pub(crate) random: Random,
    pub(crate) log: Vec<String>,
}

/// A tree to start from: three levels, some files with several names.
pub(crate) fn base_tree(root: &Path, edits: &mut Edits) {
    for directory in ["a", "b", "a/c", "a/c/e", "b/d"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    edits.run(root, 60);
    edits.log.clear();
}

impl Edits {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random(seed), log: Vec::new() }
    }

    /// Makes `count` edits below `root`; one that cannot be made counts too.
    pub(crate) fn run(&mut self, root: &Path, count: usize) {
        for _ in 0..count {
            let mut found = (vec![root.to_owned()], Vec::new());
            collect(root, &mut found);
            // What cannot be done (a directory moved into itself, EXDEV on overlayfs) is left out.
            drop(self.one(root, &found.0, &found.1));
        }
    }

    fn one(&mut self, root: &Path, directories: &[PathBuf], others: &[PathBuf]) -> io::Result<()> {
        let name = format!("n{}", self.random.below(6));
        let fresh = self.random.pick(directories).unwrap_or_default().join(name);
        let Some(directory) = self.random.pick(directories.get(1..).unwrap_or_default()) else {
            return Ok(());
        };
        let Some(other) = self.random.pick(others).or_else(|| Some(directory.clone())) else { return Ok(()) };
        let Some(second) = self.random.pick(others) else {
            return fs::File::create_new(&fresh)?.write_all(b"first");
        };
        let any = if self.random.below(3) == 0 { directory.clone() } else { other.clone() };
        let is_file = fs::symlink_metadata(&other)?.is_file();
        let what = self.random.below(20);
        let number = self.random.next();
        self.log.push(format!(
            "{what} fresh {} directory {} other {} second {}",
            relative(root, &fresh),
            relative(root, &directory),
            relative(root, &other),
            relative(root, &second)
        ));
        match what {
            0..=2 => fs::File::create_new(&fresh)?.write_all(format!("content {number}").as_bytes()),
            3 if is_file => fs::write(&other, format!("changed {number}")),
            // The same size, the mtime put back: only the content tells.
            4 if is_file => {
                let modified = fs::metadata(&other)?.modified()?;
                let mut content = fs::read(&other)?;
                if let Some(byte) = content.last_mut() {
                    *byte ^= 1;
                }
                fs::write(&other, content)?;
                fs::File::options().write(true).open(&other)?.set_modified(modified)
            }
            5 => {
                let mode = u32::try_from(number % 0o7777).unwrap_or_default() | 0o600;
                if fs::symlink_metadata(&any)?.is_symlink() {
                    return Ok(());
                }
                fs::set_permissions(&any, PermissionsExt::from_mode(mode))
            }
            6 => {
                let id = u32::try_from(number % 3).unwrap_or_default();
                rustix::fs::chownat(
                    CWD,
                    &any,
                    Some(Uid::from_raw(id)),
                    Some(Gid::from_raw(id)),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
                Ok(())
            }
            7 => {
                let parent = fs::File::open(any.parent().unwrap_or(root))?;
                let name = CString::new(any.file_name().unwrap_or_default().as_bytes())?;
                let key = if number.is_multiple_of(2) { c"trusted.one" } else { c"trusted.two" };
                let value = format!("{}", number % 5);
                layerstack_core::fs::xattr::set(&parent, &name, key, value.as_bytes())?;
                Ok(())
            }
            8 => {
                let at = Timespec { tv_sec: i64::try_from(number % 9).unwrap_or_default() - 4, tv_nsec: 7 };
                let times = Timestamps { last_access: at, last_modification: at };
                rustix::fs::utimensat(CWD, &any, &times, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(())
            }
            9 => fs::remove_file(&other),
            10 => fs::remove_dir_all(&directory),
            11 => fs::create_dir(&fresh),
            12 => symlink(format!("to {}", number % 3), &fresh),
            13 => {
                let kind = match number % 3 {
                    0 => FileType::Fifo,
                    1 => FileType::CharacterDevice,
                    _ => FileType::Socket,
                };
                let device = rustix::fs::makedev(1, u32::try_from(number % 5).unwrap_or_default() + 1);
                rustix::fs::mknodat(CWD, &fresh, kind, Mode::from_raw_mode(0o640), device)?;
                Ok(())
            }
            14 | 15 => {
                use std::os::unix::fs::FileTypeExt;
                if fs::symlink_metadata(&other)?.file_type().is_socket() {
                    return Ok(());
                }
                fs::hard_link(&other, &fresh)
            }
            // A link to what was there, or over another link.
            16 => fs::rename(&other, &second),
            17 => fs::rename(&directory, &fresh),
            // Broken apart from its other names with all else equal.
            18 if is_file => {
                let aside = root.join("aside");
                let metadata = fs::metadata(&other)?;
                fs::copy(&other, &aside)?;
                use std::os::unix::fs::MetadataExt;
                std::os::unix::fs::chown(&aside, Some(metadata.uid()), Some(metadata.gid()))?;
                fs::set_permissions(&aside, metadata.permissions())?;
                fs::File::options().write(true).open(&aside)?.set_modified(metadata.modified()?)?;
                fs::rename(&aside, &other)
            }
            // Something else in the place of what was there.
            _ => {
                fs::remove_file(&other)?;
                if number.is_multiple_of(2) { fs::create_dir(&other) } else { fs::write(&other, "instead") }
            }
        }
    }
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// The directories and the other files below `at`, each sorted.
fn collect(at: &Path, found: &mut (Vec<PathBuf>, Vec<PathBuf>)) {
    let Ok(entries) = fs::read_dir(at) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            found.0.push(path.clone());
            collect(&path, found);
        } else {
            found.1.push(path);
        }
    }
}
