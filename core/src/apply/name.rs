//! What an entry's name stands for.

use std::ffi::CString;

use crate::error::{Error, ErrorKind, Result};

/// The prefix of a whiteout (OCI image-spec, layer.md, "Whiteouts").
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// The name that makes its directory opaque.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// Names that aufs keeps for itself in the root of a branch; old images have them in their layers.
const AUFS_OWN: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.plnk", b".wh..wh.orph"];

/// The longest component, in bytes (`NAME_MAX` in linux/limits.h).
const LONGEST: usize = 255;

/// What an entry's name stands for. Directories are as the archive has them: `./a//b/` is the same as `a/b`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name<'a> {
    /// The layer's root.
    Root,
    /// A file of any kind in a directory.
    In(&'a [u8], CString),
    /// The deletion of a name in a directory.
    Whiteout(&'a [u8], CString),
    /// The deletion of all that lower layers have in a directory.
    Opaque(&'a [u8]),
    /// Something of aufs' own that is no part of the tree.
    Ignored,
}

/// Parses the name of an entry, or the target of a hard link.
///
/// A leading `/` stands for the layer's root, as every other applier takes it. `..` is refused, also where it
/// would stay inside.
pub(super) fn parse(path: &[u8]) -> Result<Name<'_>> {
    let mut path = path;
    loop {
        path = match path {
            [] | b"." => return Ok(Name::Root),
            [rest @ .., b'/'] | [rest @ .., b'/', b'.'] => rest,
            _ => break,
        };
    }
    let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    for component in path.split(|byte| *byte == b'/') {
        if component == b".." {
            return Err(invalid("the name has the component \"..\""));
        }
        if AUFS_OWN.contains(&component) {
            return Ok(Name::Ignored);
        }
    }
    if name == OPAQUE {
        return Ok(Name::Opaque(directory));
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Name::In(directory, component(name)?)),
        Some(b"" | b"." | b"..") => Err(invalid("the whiteout names nothing that could be deleted")),
        Some(deleted) => Ok(Name::Whiteout(directory, component(deleted)?)),
    }
}

/// Checks a component that a file or directory is to have as its name.
pub(super) fn component(name: &[u8]) -> Result<CString> {
    if name.starts_with(WHITEOUT) {
        return Err(invalid("a name that starts with \".wh.\" is that of a whiteout"));
    }
    if name.len() > LONGEST {
        return Err(invalid(format!("a component of the name is longer than {LONGEST} bytes")));
    }
    CString::new(name).map_err(|_| invalid("the name has a NUL"))
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(directory: &str, name: &str) -> Option<Name<'static>> {
        Some(Name::In(Box::leak(directory.as_bytes().into()), CString::new(name).unwrap()))
    }

    #[test]
    fn names_in_all_their_forms() {
        let whiteout = |directory: &'static str, name: &str| {
            Some(Name::Whiteout(directory.as_bytes(), CString::new(name).unwrap()))
        };
        for (path, expected) in [
            ("", Some(Name::Root)),
            (".", Some(Name::Root)),
            ("./", Some(Name::Root)),
            ("/", Some(Name::Root)),
            (".//./", Some(Name::Root)),
            ("a", entry("", "a")),
            ("/a", entry("", "a")),
            ("./a/", entry(".", "a")),
            ("a/./b/.", entry("a/.", "b")),
            ("a//b", entry("a/", "b")),
            ("...", entry("", "...")),
            ("a/..b", entry("a", "..b")),
            ("..", None),
            ("a/..", None),
            ("a/../b", None),
            ("../../etc/passwd", None),
            ("a\0b", None),
            ("a/.wh.b", whiteout("a", "b")),
            (".wh.b/", whiteout("", "b")),
            ("a/.wh..wh..opq", Some(Name::Opaque(b"a"))),
            (".wh..wh..opq", Some(Name::Opaque(b""))),
            (".wh.", None),
            (".wh..", None),
            ("a/.wh...", None),
            (".wh..wh.x", None),
            (".wh..wh.aufs", Some(Name::Ignored)),
            (".wh..wh.plnk/1.2", Some(Name::Ignored)),
            ("./.wh..wh.orph/", Some(Name::Ignored)),
        ] {
            assert_eq!(parse(path.as_bytes()).ok(), expected, "{path:?}");
        }
        assert!(parse(&[b'x'; 255]).is_ok());
        assert!(parse(&[b'x'; 256]).is_err());
    }
}
