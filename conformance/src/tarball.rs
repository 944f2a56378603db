//! Layer tars written byte by byte, so that they can also be wrong; and read with a reader that is not core's.

use std::collections::BTreeMap;

use crate::case::{Stop, Verdict};

/// A header and its content, to be added to a [`Tarball`].
#[derive(Debug, Clone)]
pub struct Item {
    name: Vec<u8>,
    kind: u8,
    link: Vec<u8>,
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    device: (u32, u32),
    mtime: (i64, u32),
    size: Option<u64>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Item {
    fn new(name: impl AsRef<[u8]>, kind: u8, mode: u32) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            kind,
            link: Vec::new(),
            content: Vec::new(),
            mode,
            owner: (0, 0),
            device: (0, 0),
            mtime: (1_600_000_000, 0),
            size: None,
            xattrs: Vec::new(),
        }
    }

    /// A regular file, 0644 root:root, of September 2020 as every item.
    pub fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self { content: content.as_ref().to_vec(), ..Self::new(name, b'0', 0o644) }
    }

    /// A directory, 0755.
    pub fn directory(name: impl AsRef<[u8]>) -> Self {
        Self::new(name, b'5', 0o755)
    }

    /// A symbolic link.
    pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(name, b'2', 0o777) }
    }

    /// Another name of `target`.
    pub fn hardlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(name, b'1', 0o644) }
    }

    /// A named pipe.
    pub fn fifo(name: impl AsRef<[u8]>) -> Self {
        Self::new(name, b'6', 0o644)
    }

    /// A character device.
    pub fn device(name: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(name, b'3', 0o600) }
    }

    /// With these permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// With this owner and group.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// With this modification time.
    #[must_use]
    pub fn mtime(mut self, seconds: i64, nanoseconds: u32) -> Self {
        self.mtime = (seconds, nanoseconds);
        self
    }

    /// With an extended attribute, as `SCHILY.xattr.` record.
    #[must_use]
    pub fn xattr(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.xattrs.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// With a length in the header that the content does not have.
    #[must_use]
    pub fn claiming(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }
}

/// A tar in the making.
#[derive(Debug, Clone, Default)]
pub struct Tarball(Vec<u8>);

impl Tarball {
    /// Without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The entries given, and the end.
    pub fn of(items: impl IntoIterator<Item = Item>) -> Vec<u8> {
        items.into_iter().fold(Self::new(), Self::item).end()
    }

    /// Adds an entry: an ustar header, and a PAX header before it for what that cannot hold (POSIX pax).
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "an item is made for one place in one tar")]
    pub fn item(mut self, item: Item) -> Self {
        let mut records: Vec<(String, Vec<u8>)> =
            item.xattrs.iter().map(|(key, value)| (format!("SCHILY.xattr.{key}"), value.clone())).collect();
        if item.name.len() > 100 {
            records.push(("path".into(), item.name.clone()));
        }
        if item.link.len() > 100 {
            records.push(("linkpath".into(), item.link.clone()));
        }
        for (key, id) in [("uid", item.owner.0), ("gid", item.owner.1)] {
            if id > 0o7_777_777 {
                records.push((key.into(), id.to_string().into_bytes()));
            }
        }
        let (seconds, nanoseconds) = item.mtime;
        if nanoseconds != 0 || !(0..1 << 33).contains(&seconds) {
            records.push(("mtime".into(), pax_time(seconds, nanoseconds).into_bytes()));
        }
        if !records.is_empty() {
            self = self.pax(b'x', &records);
        }
        let size = item.size.unwrap_or(item.content.len() as u64);
        self.0.extend_from_slice(&header(&item, size));
        self.content(&item.content)
    }

    /// Adds a PAX header with the records given: `x` for the next entry, `g` for all that follow.
    #[must_use]
    pub fn pax(self, kind: u8, records: &[(String, Vec<u8>)]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits.
            let digits = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap_or(1);
            body.extend_from_slice(format!("{} {key}=", rest + digits).as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.with_body("PaxHeaders/0", kind, &body)
    }

    /// Adds a header of the type given with a body, as GNU's long names have it.
    #[must_use]
    pub fn with_body(mut self, name: &str, kind: u8, body: &[u8]) -> Self {
        let item = Item::new(name, kind, 0o644);
        self.0.extend_from_slice(&header(&item, body.len() as u64));
        self.content(body)
    }

    /// Adds bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds the two zero blocks that end an archive.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// The bytes so far, without an end.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.0
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
}

fn pax_time(seconds: i64, nanoseconds: u32) -> String {
    // PAX times are decimal fractions; before the epoch the fraction counts away from zero.
    if seconds < 0 && nanoseconds > 0 {
        format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
    } else {
        format!("{seconds}.{nanoseconds:09}")
    }
}

/// An ustar header; fields that do not fit are cut, a PAX header before it has them whole.
fn header(item: &Item, size: u64) -> [u8; 512] {
    fn text(header: &mut [u8; 512], at: usize, room: usize, value: &[u8]) {
        let length = value.len().min(room);
        header[at..at + length].copy_from_slice(&value[..length]);
    }
    fn octal(header: &mut [u8; 512], at: usize, room: usize, value: u64) {
        let digits = format!("{value:0room$o}");
        if digits.len() < room + 1 {
            text(header, at, room, digits.as_bytes());
        } else {
            // Base 256: the first bit set, the number in the last bytes (GNU tar, "Basic Tar Format").
            header[at] = 0x80;
            header[at + room - 7..=at + room].copy_from_slice(&value.to_be_bytes());
        }
    }
    let mut header = [0_u8; 512];
    text(&mut header, 0, 100, &item.name);
    octal(&mut header, 100, 7, item.mode.into());
    octal(&mut header, 108, 7, u64::from(item.owner.0).min(0o7_777_777));
    octal(&mut header, 116, 7, u64::from(item.owner.1).min(0o7_777_777));
    octal(&mut header, 124, 11, size);
    octal(&mut header, 136, 11, u64::try_from(item.mtime.0).unwrap_or(0) & ((1 << 33) - 1));
    header[156] = item.kind;
    text(&mut header, 157, 100, &item.link);
    text(&mut header, 257, 8, b"ustar\x0000");
    octal(&mut header, 329, 7, item.device.0.into());
    octal(&mut header, 337, 7, item.device.1.into());
    text(&mut header, 148, 8, b"        ");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    text(&mut header, 148, 8, format!("{sum:06o}\0 ").as_bytes());
    header
}

/// An entry as a foreign reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name, byte for byte.
    pub name: Vec<u8>,
    /// The type byte.
    pub kind: u8,
    /// Where a link points.
    pub link: Option<Vec<u8>>,
    /// Permission bits.
    pub mode: u32,
    /// The content.
    pub content: Vec<u8>,
    /// What the entry's PAX header says.
    pub pax: BTreeMap<String, Vec<u8>>,
}

impl Found {
    /// The name as text, without the slash that ends a directory's.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.name).trim_end_matches('/').to_owned()
    }
}

/// Reads a tar with a reader that is not core's: ustar headers and PAX records, and nothing else.
///
/// # Errors
/// Where the tar is not one that such a reader understands.
pub fn entries(tar: &[u8]) -> Verdict<Vec<Found>> {
    let mut found = Vec::new();
    let mut pax: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut rest = tar;
    loop {
        let Some((header, after)) = rest.split_at_checked(512) else {
            return Err(Stop::failed("the tar ends without two blocks of zeros"));
        };
        if header.iter().all(|byte| *byte == 0) {
            let ended = after.len() >= 512 && after.iter().all(|byte| *byte == 0);
            return if ended {
                Ok(found)
            } else {
                Err(Stop::failed("the tar does not end with two blocks of zeros"))
            };
        }
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum::<u64>()
            - header[148..156].iter().map(|byte| u64::from(*byte)).sum::<u64>()
            + 8 * u64::from(b' ');
        if number(&header[148..156])? != sum || &header[257..262] != b"ustar" {
            return Err(Stop::failed("a header of the tar is none"));
        }
        let size = match pax.get("size") {
            Some(size) => String::from_utf8_lossy(size).parse().map_err(Stop::failed)?,
            None => number(&header[124..136])?,
        };
        let size = usize::try_from(size).map_err(Stop::failed)?;
        let kind = header[156];
        let content = after.get(..size).ok_or_else(|| Stop::failed("the tar ends within a file"))?;
        rest = after.get(size.next_multiple_of(512)..).unwrap_or_default();
        if kind == b'x' {
            pax = records(content)?;
            continue;
        }
        let (prefix, name) = (text(&header[345..500]), text(&header[..100]));
        let name = if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() };
        let link = text(&header[157..257]);
        found.push(Found {
            name: pax.get("path").cloned().unwrap_or(name),
            kind,
            link: pax.get("linkpath").cloned().or_else(|| (!link.is_empty()).then(|| link.to_vec())),
            mode: u32::try_from(number(&header[100..108])?).map_err(Stop::failed)?,
            content: content.to_vec(),
            pax: std::mem::take(&mut pax),
        });
    }
}

/// A text field of a header: up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number field of a header, in octal.
fn number(field: &[u8]) -> Verdict<u64> {
    let digits = String::from_utf8_lossy(text(field)).trim().to_owned();
    u64::from_str_radix(&digits, 8)
        .map_err(|error| Stop::failed(format_args!("number \"{digits}\": {error}")))
}

/// The records of a PAX header: `LENGTH KEY=VALUE` and a line break, the length counting all of it.
fn records(mut body: &[u8]) -> Verdict<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    while !body.is_empty() {
        let flaw = || Stop::failed("a record of a PAX header is none");
        let space = body.iter().position(|byte| *byte == b' ').ok_or_else(flaw)?;
        let length: usize = String::from_utf8_lossy(&body[..space]).parse().map_err(Stop::failed)?;
        let record =
            body.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(flaw)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(flaw)?;
        found.insert(String::from_utf8_lossy(&record[..equals]).into_owned(), record[equals + 1..].to_vec());
        body = &body[length..];
    }
    Ok(found)
}

/// The names in a tar, in order, without the slash that ends a directory's, and without the root's own entry, which
/// is there where its time or its mode changed.
///
/// # Errors
/// As [`entries`].
pub fn names(tar: &[u8]) -> Verdict<Vec<String>> {
    Ok(entries(tar)?.iter().map(Found::text).filter(|name| name != ".").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_here_is_read_there() {
        let long = "d/".repeat(80) + "f";
        let tar = Tarball::of([
            Item::directory("d").mode(0o1777),
            Item::file(&long, "content").xattr("user.a", [0, b'\n', 255]).mtime(-1, 500_000_000),
            Item::symlink("s", "target"),
        ]);
        let found = entries(&tar).unwrap();
        assert_eq!(found[0].mode, 0o1777);
        assert_eq!(found[1].name, long.as_bytes());
        assert_eq!(found[1].content, b"content");
        assert_eq!(found[1].pax["SCHILY.xattr.user.a"], [0, b'\n', 255]);
        assert_eq!(found[1].pax["mtime"], b"-0.500000000");
        assert_eq!(found[2].link.as_deref(), Some(&b"target"[..]));
    }

    #[test]
    fn a_size_beyond_octal_is_base_256() {
        let tar = Tarball::new().item(Item::file("f", "").claiming(1 << 40)).unfinished();
        assert_eq!(tar[124..136], [0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_cut_or_changed_is_no_tar() {
        let tar = Tarball::of([Item::file("f", "content")]);
        assert_eq!(entries(&tar).unwrap().len(), 1);
        assert!(entries(&tar[..512]).is_err());
        assert!(entries(&tar[..1024 + 512]).is_err());
        let mut changed = tar;
        changed[0] = b'g';
        assert!(entries(&changed).is_err());
    }
}
