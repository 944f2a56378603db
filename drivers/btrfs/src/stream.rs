//! The send stream: by which steps one subvolume becomes another. The kernel's side is `fs/btrfs/send.h`.
//!
//! ```text
//! stream   = "btrfs-stream\0" version:u32 command*
//! command  = length:u32 kind:u16 checksum:u32 attribute*     length is that of the attributes
//! attribute= kind:u16 length:u16 value                       from version 2 on DATA has no length: it is the rest
//! ```
//! All numbers are little-endian. The checksum is left alone: the stream comes from the kernel through a pipe. What it
//! says of lengths is not trusted all the same.

use std::io::{self, ErrorKind, Read};

/// One step, as far as it matters where something may differ. Paths are those at that point of the stream: relative,
/// without a leading slash, empty for the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// Something new is there, under a name that nothing had.
    Make {
        /// Its path, often a temporary one.
        path: &'a [u8],
        /// Whether it is a directory.
        directory: bool,
    },
    /// Something got another name.
    Rename {
        /// The old path.
        from: &'a [u8],
        /// The new path, which nothing had.
        to: &'a [u8],
    },
    /// A file got one more name.
    Link {
        /// The new name's path.
        path: &'a [u8],
        /// The path of a name that the file has.
        existing: &'a [u8],
    },
    /// A name is gone: of a file, or of a directory that is empty by now.
    Remove {
        /// Its path.
        path: &'a [u8],
    },
    /// Something is as before but for its times.
    Times {
        /// Its path.
        path: &'a [u8],
    },
    /// Something changed in place.
    Change {
        /// Its path.
        path: &'a [u8],
    },
}

/// A stream that is read step by step.
#[derive(Debug)]
pub(crate) struct Stream<R> {
    source: R,
    version: u32,
    /// The attributes of the command that was read last.
    attributes: Vec<u8>,
}

const MAGIC: &[u8; 13] = b"btrfs-stream\0";

/// The newest version whose commands are known here: 3, fs-verity.
const NEWEST: u32 = 3;

/// No command is longer. The kernel's own limits are 64 KiB in version 1 and some more than 128 KiB from 2 on.
const LONGEST: u32 = 1 << 20;

/// `enum btrfs_send_cmd`
mod command {
    pub(super) const SUBVOL: u16 = 1;
    pub(super) const SNAPSHOT: u16 = 2;
    pub(super) const MKFILE: u16 = 3;
    pub(super) const MKDIR: u16 = 4;
    pub(super) const MKNOD: u16 = 5;
    pub(super) const MKFIFO: u16 = 6;
    pub(super) const MKSOCK: u16 = 7;
    pub(super) const SYMLINK: u16 = 8;
    pub(super) const RENAME: u16 = 9;
    pub(super) const LINK: u16 = 10;
    pub(super) const UNLINK: u16 = 11;
    pub(super) const RMDIR: u16 = 12;
    /// The first of those that change something in place: attributes, content, length, mode, owner.
    pub(super) const SET_XATTR: u16 = 13;
    pub(super) const CHOWN: u16 = 19;
    pub(super) const UTIMES: u16 = 20;
    pub(super) const END: u16 = 21;
    /// The first and the last of the more recent ones, all of which change something in place.
    pub(super) const UPDATE_EXTENT: u16 = 22;
    pub(super) const ENABLE_VERITY: u16 = 26;
}

/// The attributes (`BTRFS_SEND_A_…`) that matter here.
mod attribute {
    pub(super) const PATH: u16 = 15;
    pub(super) const PATH_TO: u16 = 16;
    pub(super) const PATH_LINK: u16 = 17;
    pub(super) const DATA: u16 = 19;
}

impl<R: Read> Stream<R> {
    /// Reads the stream's head.
    pub(crate) fn new(mut source: R) -> io::Result<Self> {
        let mut head = [0; 17];
        source.read_exact(&mut head)?;
        let (magic, version) = head.split_at(MAGIC.len());
        let version = version.first_chunk().map_or(0, |version| u32::from_le_bytes(*version));
        if magic != MAGIC {
            return Err(invalid("this is no send stream".to_owned()));
        }
        if !(1..=NEWEST).contains(&version) {
            return Err(invalid(format!("the send stream has version {version}, of which nothing is known")));
        }
        Ok(Self { source, version, attributes: Vec::new() })
    }

    /// The next step; None at the end. A stream without an end is an error.
    pub(crate) fn next(&mut self) -> io::Result<Option<Step<'_>>> {
        let kind = loop {
            match self.read_command()? {
                command::END => return Ok(None),
                // They name the whole, not a place in it.
                command::SUBVOL | command::SNAPSHOT => {}
                kind => break kind,
            }
        };
        let path = |wanted| {
            find(&self.attributes, wanted, self.version)
                .ok_or_else(|| invalid(format!("command {kind} of the send stream lacks attribute {wanted}")))
        };
        let first = path(attribute::PATH)?;
        Ok(Some(match kind {
            command::MKFILE | command::MKNOD | command::MKFIFO | command::MKSOCK | command::SYMLINK => {
                Step::Make { path: first, directory: false }
            }
            command::MKDIR => Step::Make { path: first, directory: true },
            command::RENAME => Step::Rename { from: first, to: path(attribute::PATH_TO)? },
            command::LINK => Step::Link { path: first, existing: path(attribute::PATH_LINK)? },
            command::UNLINK | command::RMDIR => Step::Remove { path: first },
            command::UTIMES => Step::Times { path: first },
            command::SET_XATTR..=command::CHOWN | command::UPDATE_EXTENT..=command::ENABLE_VERITY => {
                Step::Change { path: first }
            }
            _ => return Err(invalid(format!("command {kind} of the send stream is unknown"))),
        }))
    }

    /// Reads one command with its attributes; gives its kind.
    fn read_command(&mut self) -> io::Result<u16> {
        let mut head = [0; 10];
        self.source.read_exact(&mut head)?;
        let [a, b, c, d, kind @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        if length > LONGEST {
            return Err(invalid(format!("a command of the send stream is {length} bytes long")));
        }
        self.attributes.clear();
        self.source.by_ref().take(length.into()).read_to_end(&mut self.attributes)?;
        if self.attributes.len() != length as usize {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(u16::from_le_bytes([kind[0], kind[1]]))
    }
}

/// The value of an attribute; None where it is absent, or where what is before it contradicts itself.
fn find(mut attributes: &[u8], wanted: u16, version: u32) -> Option<&[u8]> {
    loop {
        let (kind, rest) = attributes.split_first_chunk()?;
        let kind = u16::from_le_bytes(*kind);
        if kind == attribute::DATA && version > 1 {
            return None;
        }
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        if kind == wanted {
            return Some(value);
        }
        attributes = rest;
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: u32) -> Vec<u8> {
        [MAGIC.as_slice(), &version.to_le_bytes()].concat()
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        [&kind.to_le_bytes(), length.to_le_bytes().as_slice(), value].concat()
    }

    fn command(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
        let attributes = attributes.concat();
        let length = u32::try_from(attributes.len()).unwrap();
        [length.to_le_bytes().as_slice(), &kind.to_le_bytes(), &[0; 4], &attributes].concat()
    }

    /// All steps as text, or the error.
    fn read(bytes: &[u8]) -> io::Result<Vec<String>> {
        let mut stream = Stream::new(bytes)?;
        let mut steps = Vec::new();
        while let Some(step) = stream.next()? {
            let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
            steps.push(match step {
                Step::Make { path, directory } => format!("make {} {directory}", text(path)),
                Step::Rename { from, to } => format!("rename {} {}", text(from), text(to)),
                Step::Link { path, existing } => format!("link {} {}", text(path), text(existing)),
                Step::Remove { path } => format!("remove {}", text(path)),
                Step::Times { path } => format!("times {}", text(path)),
                Step::Change { path } => format!("change {}", text(path)),
            });
        }
        Ok(steps)
    }

    #[test]
    fn every_command_is_the_step_that_it_stands_for() {
        let one = |kind| command(kind, &[attribute(3, &[0; 8]), attribute(15, b"a")]);
        let two = |kind, second| command(kind, &[attribute(15, b"a"), attribute(second, b"b")]);
        let stream = [
            head(1),
            command(2, &[attribute(15, b"snapshot"), attribute(1, &[0; 16])]),
            one(3),
            one(4),
            // The second path of a symbolic link is what it says.
            two(8, 17),
            two(9, 16),
            two(10, 17),
            one(11),
            one(12),
            one(15),
            one(20),
            one(22),
            command(21, &[]),
            vec![1, 2, 3],
        ];
        let steps = [
            "make a false",
            "make a true",
            "make a false",
            "rename a b",
            "link a b",
            "remove a",
            "remove a",
            "change a",
            "times a",
            "change a",
        ];
        assert_eq!(read(&stream.concat()).unwrap(), steps);
    }

    #[test]
    fn data_has_no_length_from_version_2_on() {
        let data = [19_u16.to_le_bytes().as_slice(), &[0xff; 70_000]].concat();
        let write = command(25, &[attribute(15, b"a"), attribute(18, &[0; 8]), data]);
        let end = command(21, &[]);
        assert_eq!(read(&[head(2), write.clone(), end.clone()].concat()).unwrap(), ["change a"]);
        let write = command(15, &[attribute(15, b"a"), attribute(18, &[0; 8]), attribute(19, b"data")]);
        assert_eq!(read(&[head(1), write, end].concat()).unwrap(), ["change a"]);
    }

    #[test]
    fn what_is_no_stream_or_a_broken_one_is_refused() {
        let good = [head(1), command(11, &[attribute(15, b"a")]), command(21, &[])].concat();
        assert_eq!(read(&good).unwrap(), ["remove a"]);
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).is_err(), "{cut}");
        }
        let long = [&u32::MAX.to_le_bytes()[..], &11_u16.to_le_bytes(), &[0; 4]].concat();
        let overrun = [15_u16.to_le_bytes(), 9_u16.to_le_bytes(), *b"ab"].concat();
        for (what, stream) in [
            ("magic", [b"btrfs-strean\0".as_slice(), &1_u32.to_le_bytes()].concat()),
            ("version 0", [head(0), command(21, &[])].concat()),
            ("version 4", [head(4), command(21, &[])].concat()),
            ("length", [head(1), long].concat()),
            ("attribute's length", [head(1), command(11, &[overrun])].concat()),
            ("missing path", [head(1), command(11, &[attribute(3, b"12345678")])].concat()),
            ("missing target", [head(1), command(9, &[attribute(15, b"a")])].concat()),
            ("unknown command", [head(1), command(99, &[attribute(15, b"a")])].concat()),
        ] {
            assert!(read(&stream).is_err(), "{what}");
        }
    }
}
