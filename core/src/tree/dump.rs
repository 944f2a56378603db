//! A tree as text: every name with all that a layer has to keep of it.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fmt::Write;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::{Cursor, FileKind, Metadata, Names, Tree, attributes, link_target};
use crate::error::{Error, Result};

/// Lists a tree, one line a name, depth first and siblings by their bytes. Two trees have the same text exactly if
/// they agree in names, types, permissions, owners, mtimes, device numbers, link targets, extended attributes,
/// contents, and in which names share an inode. What only says how a tree is stored (inode numbers, block counts,
/// ctimes, access times, the sizes of directories) is left out.
///
/// ```text
/// / dir 755 0:0 1700000000.000000000
/// /bin/su file 4755 0:0 1700000000.500000000 user.note=x 3 sha256:ba7816bf…
/// /bin/su-too link /bin/su
/// /dev/null char 666 0:0 1700000000.000000000 1:3
/// /etc/x symlink 777 0:0 1700000000.000000000 -> ../y
/// ```
/// Bytes that are not printable ASCII are escaped as in Rust literals, spaces as `\x20`.
///
/// # Errors
/// What reading gives, naming the path: also an unreadable file, and one that vanishes meanwhile.
pub fn dump(tree: &Tree) -> Result<String> {
    let mut dump =
        Dump { cursor: Cursor::new(tree), path: Vec::new(), first: HashMap::new(), text: String::new() };
    dump.line(c"")?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut levels = vec![(dump.list(&mut buffer)?, 0, 0)];
    while let Some((names, next, end)) = levels.last_mut() {
        dump.path.truncate(*end);
        let Some(name) = names.get(*next) else {
            levels.pop();
            dump.cursor.leave().map_err(|errno| dump.failed(errno, "leave"))?;
            continue;
        };
        *next += 1;
        dump.path.push(b'/');
        dump.path.extend_from_slice(name.to_bytes());
        if dump.line(name)? == FileKind::Directory {
            let directory = dump.cursor.open(name).map_err(|errno| dump.failed(errno, "open"))?;
            dump.cursor.enter(directory).map_err(|errno| dump.failed(errno, "enter"))?;
            levels.push((dump.list(&mut buffer)?, 0, dump.path.len()));
        }
    }
    Ok(dump.text)
}

struct Dump<'a> {
    cursor: Cursor<'a>,
    path: Vec<u8>,
    /// The first name of each file that has several.
    first: HashMap<((u32, u32), u64), String>,
    text: String,
}

impl Dump<'_> {
    fn failed(&self, errno: Errno, what: &str) -> Error {
        Error::from_errno(errno, what).with_path(Path::new(OsStr::from_bytes(&self.path)))
    }

    fn list(&self, buffer: &mut Vec<u8>) -> Result<Names> {
        Names::of(self.cursor.here(), buffer).map_err(|errno| self.failed(errno, "list"))
    }

    /// Adds the line of `name` in the current directory (empty: of the directory itself).
    fn line(&mut self, name: &CStr) -> Result<FileKind> {
        let directory = self.cursor.here();
        let found = Metadata::at(directory, name)
            .and_then(|found| found.ok_or(Errno::NOENT))
            .map_err(|errno| self.failed(errno, "inspect"))?;
        let shown = if self.path.is_empty() { "/".to_owned() } else { escaped(&self.path) };
        let mut line = shown.clone();
        if found.kind != FileKind::Directory && found.links > 1 {
            if let Some(first) = self.first.get(&found.identity) {
                self.text.push_str(&format!("{shown} link {first}\n"));
                return Ok(found.kind);
            }
            self.first.insert(found.identity, shown);
        }
        let kind = match found.kind {
            FileKind::File => "file",
            FileKind::Directory => "dir",
            FileKind::Symlink => "symlink",
            FileKind::Fifo => "fifo",
            FileKind::CharDevice => "char",
            FileKind::BlockDevice => "block",
            FileKind::Socket => "socket",
        };
        let Metadata { mode, uid, gid, mtime, .. } = found;
        let mut add = |text: std::fmt::Arguments<'_>| line.write_fmt(text).unwrap_or_default();
        add(format_args!(" {kind} {mode:o} {uid}:{gid} {}.{:09}", mtime.seconds, mtime.nanoseconds));
        for (key, value) in
            attributes(directory, name).map_err(|errno| self.failed(errno, "read attributes"))?
        {
            add(format_args!(" {}={}", escaped(&key), escaped(&value)));
        }
        match found.kind {
            FileKind::File => {
                let (size, digest) = content(directory, name).map_err(|error| {
                    Error::from_io(error, "read").with_path(Path::new(OsStr::from_bytes(&self.path)))
                })?;
                add(format_args!(" {size} sha256:{digest}"));
            }
            FileKind::Symlink => {
                let target =
                    link_target(directory, name).map_err(|errno| self.failed(errno, "read the link"))?;
                add(format_args!(" -> {}", escaped(&target)));
            }
            FileKind::CharDevice | FileKind::BlockDevice => {
                add(format_args!(" {}:{}", found.rdev.0, found.rdev.1));
            }
            FileKind::Directory | FileKind::Fifo | FileKind::Socket => {}
        }
        self.text.push_str(&line);
        self.text.push('\n');
        Ok(found.kind)
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace(' ', "\\x20")
}

/// The length of a file's content, and its digest in hexadecimal.
fn content(directory: BorrowedFd<'_>, name: &CStr) -> std::io::Result<(u64, String)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        let length = std::io::Read::read(&mut file, &mut buffer)?;
        if length == 0 {
            break;
        }
        size += length as u64;
        hash.update(&buffer[..length]);
    }
    let digest = hash.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    Ok((size, digest))
}
