//! The kernel's mount table, `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

use super::MountId;

/// One mount of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// The plain number of the mount; not the one that [`mounted_at`](super::mounted_at) gives from kernel 6.8 on.
    pub id: MountId,
    /// The directory within the file system that is the root of the mount.
    pub root: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Whether the mount refuses writes. Its file system may refuse them in any case.
    pub read_only: bool,
    /// The type of the file system.
    pub fstype: String,
    /// The device, or the name that was given in its place.
    pub source: PathBuf,
}

/// The mounts at `directory` and below it that this process sees, in the order in which they were made.
///
/// # Errors
/// Where the table cannot be read.
pub fn mounts_below(directory: &Path) -> Result<Vec<TableEntry>> {
    let mut entries = read()?;
    entries.retain(|entry| entry.mount_point.starts_with(directory));
    Ok(entries)
}

/// Reads a table in the form of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
///
/// # Errors
/// [`ErrorKind::Corrupt`] for a line that lacks a field.
pub fn parse_table(table: &[u8]) -> Result<Vec<TableEntry>> {
    table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parse_line).collect()
}

/// What is mounted at `target`, by the table. For kernels whose statx(2) does not tell.
pub(super) fn mounted_at(target: &Path) -> Result<Option<MountId>> {
    let Ok(target) = target.canonicalize() else { return Ok(None) };
    Ok(read()?.iter().rev().find(|entry| entry.mount_point == target).map(|entry| entry.id))
}

fn read() -> Result<Vec<TableEntry>> {
    let path = "/proc/self/mountinfo";
    let table =
        std::fs::read(path).map_err(|error| Error::from_io(error, "read the mount table").with_path(path))?;
    parse_table(&table)
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: the fields after the sixth
/// and before the lone hyphen are optional.
fn parse_line(line: &[u8]) -> Result<TableEntry> {
    let wrong = || {
        let shown = line.escape_ascii();
        Error::new(ErrorKind::Corrupt, format!("the mount table has a line that is none: \"{shown}\""))
    };
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = || fields.next().ok_or_else(wrong);
    let id = next()?;
    let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()).ok_or_else(wrong)?;
    let (_parent, _device) = (next()?, next()?);
    let root = unescape(next()?);
    let mount_point = unescape(next()?);
    let read_only = next()?.split(|byte| *byte == b',').any(|flag| flag == b"ro");
    while next()? != b"-" {}
    let fstype = unescape(next()?).to_string_lossy().into_owned();
    let source = unescape(next()?);
    Ok(TableEntry {
        id: MountId(id),
        root: root.into(),
        mount_point: mount_point.into(),
        read_only,
        fstype,
        source: source.into(),
    })
}

/// Space, tab, newline, backslash and `#` are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_optional_fields() {
        let table = b"36 35 98:0 /mnt1 /a\\040b\\134c rw,noatime master:1 shared:2 - ext3 /dev/root rw\n\
            37 35 0:44 / /m ro,relatime - overlay overlay ro,lowerdir=/x\n";
        let entries = parse_table(table).unwrap();
        assert_eq!(entries[0].mount_point, Path::new("/a b\\c"));
        assert_eq!(entries[0].root, Path::new("/mnt1"));
        assert_eq!((entries[0].id, entries[0].read_only), (MountId(36), false));
        assert_eq!((entries[1].fstype.as_str(), entries[1].read_only), ("overlay", true));
    }

    #[test]
    fn names_that_only_look_escaped_stay() {
        for (field, name) in [(&b"a\\"[..], "a\\"), (b"\\04", "\\04"), (b"\\400", "\\400"), (b"\\011", "\t")]
        {
            assert_eq!(unescape(field), name);
        }
    }

    #[test]
    fn a_line_that_is_cut_off_is_an_error() {
        for line in
            [&b"36"[..], b"x 35 98:0 / / rw - a b", b"36 35 98:0 / / rw shared:1", b"36 35 0:1 / / rw - a"]
        {
            assert_eq!(parse_table(line).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn the_table_of_this_process_is_understood() {
        let entries = read().unwrap();
        assert!(
            entries.iter().any(|entry| entry.mount_point == Path::new("/proc") && entry.fstype == "proc")
        );
    }
}
