//! The system calls of this driver: each is relative to an open directory, and each errno becomes an error here.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use layerstack_core::fs::xattr;
use layerstack_core::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

/// An open directory and its path. A name may be a relative path of several components.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Opens a directory by its path.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::from_errno(errno, "open the directory").with_path(path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory in this one; None where it is absent. The name itself is not followed.
    pub(crate) fn enter(&self, name: &str) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: self.path.join(name) })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(errno, "open the directory", name)),
        }
    }

    /// Makes a directory. The umask of the process takes its bits away from `mode`.
    pub(crate) fn make(&self, name: &str, mode: u32) -> Result<()> {
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode))
            .map_err(|errno| self.failed(errno, "make the directory", name))
    }

    /// Makes a directory unless it is there.
    pub(crate) fn make_if_absent(&self, name: &str, mode: u32) -> Result<()> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.failed(errno, "make the directory", name)),
        }
    }

    /// Writes a small file, replacing what it holds.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o644))
            .map_err(|errno| self.failed(errno, "make the file", name))?;
        let mut rest = content;
        while !rest.is_empty() {
            let written =
                rustix::io::write(&file, rest).map_err(|errno| self.failed(errno, "write", name))?;
            rest = &rest[written..];
        }
        Ok(())
    }

    /// The content of a small file; None where it is absent.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed(errno, "open the file", name)),
        };
        let mut content = Vec::with_capacity(4096);
        loop {
            let room = rustix::buffer::spare_capacity(&mut content);
            match rustix::io::read(&file, room).map_err(|errno| self.failed(errno, "read", name))? {
                0 => return Ok(Some(content)),
                _ if content.len() == content.capacity() => content.reserve(content.len()),
                _ => {}
            }
        }
    }

    /// What is there; None where nothing is. The name itself is not followed.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(errno, "look at", name)),
        }
    }

    pub(crate) fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.stat(name)?.is_some())
    }

    /// Makes a symbolic link.
    pub(crate) fn link(&self, target: &str, name: &str) -> Result<()> {
        rustix::fs::symlinkat(target, &self.fd, name)
            .map_err(|errno| self.failed(errno, "make the symbolic link", name))
    }

    /// Where a symbolic link points; None where it is absent.
    pub(crate) fn link_target(&self, name: &str) -> Result<Option<PathBuf>> {
        match rustix::fs::readlinkat(&self.fd, name, Vec::new()) {
            Ok(target) => Ok(Some(PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes())))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(errno, "read the symbolic link", name)),
        }
    }

    /// Gives something another name; false where it is absent.
    pub(crate) fn rename(&self, name: &str, to: &str) -> Result<bool> {
        match rustix::fs::renameat(&self.fd, name, &self.fd, to) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed(errno, "rename", name)),
        }
    }

    /// Removes a file; that it is absent is no error.
    pub(crate) fn unlink(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed(errno, "remove", name)),
        }
    }

    /// Names and types of what is in the directory, in any order, without `.` and `..`.
    pub(crate) fn entries(&self) -> Result<Vec<(CString, FileType)>> {
        let failed = |errno| Error::from_errno(errno, "read the directory").with_path(self.path.clone());
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                entries.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        Ok(entries)
    }

    /// Gives the directory `name` the mode, owner, times and extended attributes of the directory `model` of `from`.
    /// What overlayfs keeps in attributes for itself is left out.
    pub(crate) fn take_after(&self, name: &str, from: &Self, model: &str) -> Result<()> {
        let failed = |errno| self.failed(errno, "set the attributes of", name);
        let stat = from.stat(model)?.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the directory is missing").with_path(from.path.join(model))
        })?;
        let owner = rustix::fs::Uid::from_raw(stat.st_uid);
        let group = rustix::fs::Gid::from_raw(stat.st_gid);
        rustix::fs::chownat(&self.fd, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed)?;
        // After the owner, whose change may clear set-id bits.
        self.set_mode(name, stat.st_mode & 0o7777)?;
        let c_name = |name: &str| CString::new(name).map_err(|_| failed(Errno::INVAL));
        let (c_name, c_model) = (c_name(name)?, c_name(model)?);
        let attributes = xattr::list(&from.fd, &c_model)
            .map_err(|errno| from.failed(errno, "read the attributes of", model))?;
        for (key, value) in attributes {
            if key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.") {
                continue;
            }
            let key = CString::new(key).map_err(|_| failed(Errno::INVAL))?;
            xattr::set(&self.fd, &c_name, &key, &value).map_err(failed)?;
        }
        let times = Timestamps {
            last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanoseconds(stat.st_atime_nsec) },
            last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat.st_mtime_nsec) },
        };
        rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Sets the mode whatever the umask is.
    pub(crate) fn set_mode(&self, name: &str, mode: u32) -> Result<()> {
        rustix::fs::chmodat(&self.fd, name, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|errno| self.failed(errno, "set the mode of", name))
    }

    fn failed(&self, errno: Errno, what: &str, name: &str) -> Error {
        Error::from_errno(errno, what).with_path(self.path.join(OsStr::new(name)))
    }
}

/// The kernel gives 0 to 999,999,999, in a type that differs between architectures.
fn nanoseconds(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(0)
}

impl Directory {
    /// Opens a directory below this one by a path of any length; None where it is not, or no longer, there. No symbolic
    /// link is followed, so a tree that is changed meanwhile cannot lead out of it.
    pub(crate) fn descend(&self, path: &Path) -> Result<Option<Self>> {
        // The kernel takes a path of 4095 bytes (PATH_MAX); a name has at most 255.
        const CHUNK: usize = 3000;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut reached: Option<OwnedFd> = None;
        let mut components = path.components().peekable();
        while components.peek().is_some() {
            let mut chunk = PathBuf::new();
            while let Some(component) = components.next_if(|_| chunk.as_os_str().len() < CHUNK) {
                chunk.push(component);
            }
            let from = reached.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            match rustix::fs::openat2(from, &chunk, flags, Mode::empty(), resolve) {
                Ok(fd) => reached = Some(fd),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => {
                    return Err(
                        Error::from_errno(errno, "open the directory").with_path(self.path.join(path))
                    );
                }
            }
        }
        Ok(reached.map(|fd| Self { fd, path: self.path.join(path) }))
    }

    /// An extended attribute of the directory itself, of at most 256 bytes; None where it is absent, empty where it is
    /// longer.
    pub(crate) fn attribute(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let mut value = [0_u8; 256];
        match rustix::fs::fgetxattr(&self.fd, key, &mut value[..]) {
            Ok(length) => Ok(Some(value[..length].to_vec())),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(Errno::RANGE) => Ok(Some(Vec::new())),
            Err(errno) => Err(Error::from_errno(errno, format!("read {key}")).with_path(self.path.clone())),
        }
    }

    /// Whether something in the directory has an extended attribute.
    pub(crate) fn has_attribute(&self, name: &CStr, key: &CStr) -> Result<bool> {
        xattr::get(&self.fd, name, key)
            .map(|value| value.is_some())
            .map_err(|errno| self.failed(errno, "read the attributes of", &name.to_string_lossy()))
    }
}
