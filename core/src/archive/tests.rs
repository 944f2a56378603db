//! What the writer writes the reader reads, what GNU tar writes too, and no bytes at all make the reader panic.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::header::{self, BLOCK};
use super::*;
use crate::error::{ErrorKind, Result};

fn file(path: &str, content: &[u8]) -> (Entry, Vec<u8>) {
    (Entry::new(path, EntryKind::File { size: content.len() as u64 }, 0o640), content.to_vec())
}

fn other(path: &str, kind: EntryKind) -> (Entry, Vec<u8>) {
    (Entry::new(path, kind, 0o750), Vec::new())
}

/// One entry of every kind, among them some that need extended headers.
fn every_kind() -> Vec<(Entry, Vec<u8>)> {
    let mut rich = file(&"long/".repeat(60), &[7; 1000]);
    rich.0.uid = 0xffff_fffe;
    rich.0.mtime = Timestamp { seconds: -5_000_000_000, nanoseconds: 123_456_789 };
    rich.0.xattrs = vec![
        (b"security.capability".to_vec(), vec![0, 10, 61, 255]),
        (b"user.a=%3D".to_vec(), Vec::new()),
        (b"user.b".to_vec(), vec![b'x'; 3000]),
    ];
    vec![
        other("d/", EntryKind::Directory),
        file("d/f", b"hello"),
        rich,
        other("s", EntryKind::Symlink { target: vec![0xff; 200] }),
        other("h", EntryKind::Hardlink { target: b"d/f".to_vec() }),
        other("p", EntryKind::Fifo),
        other("c", EntryKind::CharDevice { major: 4095, minor: 1_048_575 }),
        other("b", EntryKind::BlockDevice { major: 8, minor: 0 }),
        file("big", &(0..700_000_u32).map(|at| at as u8).collect::<Vec<_>>()),
        file("empty", b""),
    ]
}

fn archive(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, Some(&mut &content[..])).unwrap();
    }
    writer.finish().unwrap()
}

fn read(source: impl Read) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::new(source);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        // Far below what a sparse header can claim.
        let limit = 16 << 20;
        reader
            .content()
            .take(limit)
            .read_to_end(&mut content)
            .map_err(|error| crate::Error::from_io(error, "read"))?;
        entries.push((entry, content));
    }
    Ok(entries)
}

/// Hands out one to a few bytes at a time.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 % 611 + 1;
        let length = self.1.min(buffer.len()).min(self.0.len());
        buffer[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}

#[test]
fn what_is_written_is_read() {
    let entries = every_kind();
    let bytes = archive(&entries);
    assert_eq!(read(&bytes[..]).unwrap(), entries);
    assert_eq!(read(Dribble(&bytes, 0)).unwrap(), entries);
}

#[test]
fn pieces_end_at_multiples_of_the_block_size() {
    let bytes = archive(&every_kind());
    let mut reader = Reader::new(Dribble(&bytes, 0));
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut expected = 0;
        while let Some((offset, data)) = reader.next_data().unwrap() {
            assert_eq!(offset, expected);
            expected += data.len() as u64;
            assert!(expected == entry.content_size() || expected.is_multiple_of(4096));
        }
        assert_eq!(expected, entry.content_size());
    }
}

/// Every prefix of an archive is read without a panic, and as an error unless it ends between two entries, or in the
/// padding of the last one: umoci leaves that out.
#[test]
fn a_truncated_archive_is_an_error() {
    let bytes = archive(&[file("a", &[1; 600]), other(&"x".repeat(200), EntryKind::Directory)]);
    let boundaries = [0, 3 * BLOCK, bytes.len() - 2 * BLOCK, bytes.len() - BLOCK, bytes.len()];
    for length in 0..=bytes.len() {
        let result = read(&bytes[..length]);
        let whole = boundaries.contains(&length) || (BLOCK + 600..3 * BLOCK).contains(&length);
        assert_eq!(result.is_ok(), whole, "{length} of {} bytes", bytes.len());
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}

#[test]
fn what_follows_the_end_is_read_and_ignored() {
    struct Count<R>(R, usize);
    impl<R: Read> Read for Count<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.read(buffer)?;
            self.1 += length;
            Ok(length)
        }
    }
    let mut bytes = archive(&[file("a", b"x")]);
    bytes.extend_from_slice(&[b'j'; 700_001]);
    let mut source = Count(&bytes[..], 0);
    assert_eq!(read(&mut source).unwrap().len(), 1);
    assert_eq!(source.1, bytes.len());
    let mut gap = archive(&[file("a", b"x")]);
    gap.truncate(3 * BLOCK);
    gap.extend(archive(&[file("b", b"y")]));
    assert!(read(&gap[..]).is_err(), "one block of zeros between entries");
}

/// A header block, as other tools write it, that the writer would not.
fn block(name: &str, letter: u8, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[header::TYPE] = letter;
    header::put_octal(&mut block[header::SIZE], size);
    header::seal(&mut block);
    block
}

fn extension(letter: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = block("././@LongLink", letter, content.len() as u64).to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len() + header::padding(content.len() as u64), 0);
    bytes
}

fn paths(bytes: &[u8]) -> Vec<String> {
    read(bytes).unwrap().into_iter().map(|(entry, _)| String::from_utf8(entry.path).unwrap()).collect()
}

#[test]
fn extensions_apply_to_the_next_entry_only() {
    let mut bytes = extension(b'g', b"13 path=glob\n");
    bytes.extend(extension(b'V', b"label"));
    bytes.extend(extension(b'x', b"11 path=un\n"));
    bytes.extend(extension(b'x', b"11 path=p1\n"));
    bytes.extend(block("n1", b'0', 0));
    bytes.extend(extension(b'x', b"11 path=p2\n"));
    bytes.extend(extension(b'L', b"l2\0"));
    bytes.extend(block("n2", b'0', 0));
    bytes.extend(block("n3", 0, 0));
    bytes.extend(block("n4/", 0, 0));
    assert_eq!(paths(&bytes), ["p1", "l2", "n3", "n4/"]);
    assert_eq!(read(&bytes[..]).unwrap()[3].0.kind, EntryKind::Directory);
    assert!(read(&extension(b'x', b"11 path=p1\n")[..]).is_err(), "an extension of nothing");
}

#[test]
fn kinds_without_content_have_none_whatever_their_headers_say() {
    let mut bytes = Vec::new();
    for letter in b"123456" {
        bytes.extend(block("n", *letter, 600));
    }
    assert_eq!(paths(&bytes).len(), 6);
    let mut dump = block("d", b'D', 3).to_vec();
    dump.extend_from_slice(&[1; BLOCK]);
    assert_eq!(paths(&dump), ["d"]);
}

#[test]
fn bombs_and_nonsense_are_refused_by_name() {
    let long = |letter| block("bomb", letter, 1 << 30);
    let mut bad_sum = block("bomb", b'0', 0);
    bad_sum[header::CHECKSUM.start] ^= 1;
    let mut huge_owner = block("bomb", b'0', 0);
    huge_owner[header::UID].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    header::seal(&mut huge_owner);
    let mut negative = block("bomb", b'0', 0);
    negative[header::SIZE].copy_from_slice(&[0xff; 12]);
    header::seal(&mut negative);
    let mut letters = block("bomb", b'0', 0);
    letters[header::MODE].copy_from_slice(b"rwxr-xr-");
    header::seal(&mut letters);
    for bytes in [
        long(b'x'),
        long(b'L'),
        long(b'K'),
        long(b'M'),
        block("bomb", b'Z', 0),
        bad_sum,
        huge_owner,
        negative,
        letters,
    ] {
        let error = read(&bytes[..]).unwrap_err();
        assert_eq!(
            (error.kind(), error.path()),
            (ErrorKind::InvalidInput, Some(Path::new("bomb"))),
            "{error}"
        );
    }
}

#[test]
fn sparse_maps_that_contradict_themselves_are_refused() {
    let record = |records: &[(&str, &str)], content: &[u8]| {
        let mut text = Vec::new();
        for (key, value) in records {
            pax::put(&mut text, key.as_bytes(), value.as_bytes());
        }
        let mut bytes = extension(b'x', &text);
        bytes.extend(block("bomb", b'0', content.len() as u64));
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + header::padding(content.len() as u64), 0);
        bytes
    };
    let map = |size: &str, map: &str, content: &[u8]| {
        record(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)], content)
    };
    let good = read(&map("6", "1,2,5,1", b"abc")[..]).unwrap();
    assert_eq!(good[0].1, b"\0ab\0\0c");
    let huge = read(&map("9223372036854775807", "0,1,9223372036854775807,0", b"a")[..]).unwrap();
    assert_eq!(huge[0].0.kind, EntryKind::File { size: i64::MAX as u64 });
    for bad in [
        map("6", "1,2,5,2", b"abcd"),
        map("6", "1,2,2,1", b"abc"),
        map("6", "1,2,5", b"ab"),
        map("6", "1,2", b"abc"),
        map("6", "18446744073709551615,2", b"ab"),
        map("18446744073709551615", "0,18446744073709551615", b"ab"),
        record(&[("GNU.sparse.map", "0,1")], b"a"),
        record(&[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "1")], b"a"),
        record(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "1")], b"a"),
        record(
            &[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "1")],
            &[b'1'; BLOCK],
        ),
    ] {
        assert_eq!(read(&bad[..]).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

/// The observer's bytes, with the content of files in their places.
struct Joined<'a>(Vec<u8>, &'a [(Entry, Vec<u8>)]);

impl Observer for Joined<'_> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn file(&mut self, path: &[u8], size: u64) -> io::Result<()> {
        let (_, content) = self.1.iter().find(|(entry, _)| entry.path == path).unwrap();
        assert_eq!(content.len() as u64, size);
        self.0.extend_from_slice(content);
        Ok(())
    }
}

#[test]
fn the_observer_sees_every_byte_in_order() {
    let entries = every_kind();
    let mut bytes = archive(&entries);
    bytes.extend_from_slice(b"and more");
    for read_content in [false, true] {
        let mut joined = Joined(Vec::new(), &entries);
        let mut reader = Reader::observed(&bytes[..], &mut joined);
        let mut count = 0;
        while let Some(entry) = reader.next_entry().unwrap() {
            count += 1;
            if count % 2 == 0 {
                reader.found_in_layer(&entry.path).unwrap();
            }
            if read_content {
                reader.next_data().unwrap();
            }
        }
        assert!(joined.0 == bytes);
    }
}

#[test]
fn every_format_of_gnu_tar_is_read() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let run = |command: &mut Command| {
        let output = command.current_dir(&tree).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let long = "n".repeat(90);
    std::fs::create_dir(tree.join(&long)).unwrap();
    std::fs::write(tree.join(&long).join(&long[..80]), "deep").unwrap();
    std::os::unix::fs::symlink("t".repeat(80), tree.join("s")).unwrap();
    std::fs::hard_link(tree.join(&long).join(&long[..80]), tree.join("z")).unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.set_len(3_000_000).unwrap();
    // More runs than the header and one more block of the old format hold.
    for run in 0..40 {
        sparse.write_all_at(format!("run {run}").as_bytes(), run * 65_536).unwrap();
    }
    let expected = std::fs::read(tree.join("sparse")).unwrap();
    run(Command::new("setfattr").args(["-n", "user.k", "-v", "value", "sparse"]));
    run(Command::new("setfacl").args(["-m", "u:1234:rw", "s", "sparse"]));
    run(Command::new("touch").args(["-hd", "1960-01-01T00:00:00.25Z", "s"]));
    for options in [
        &["--format=v7"][..],
        &["--format=ustar"],
        &["--format=oldgnu", "--sparse"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--xattrs", "--acls", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--xattrs", "--acls", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--xattrs", "--acls", "--sparse", "--sparse-version=1.0"],
    ] {
        let plain = options.len() == 1;
        let pax = options[0] == "--format=pax";
        let mut tar = Command::new("tar");
        tar.args(options).args(["--sort=name", "--numeric-owner", "-cf", "-"]);
        // These cannot hold the long names and the time before 1970.
        tar.args(if plain { &["sparse"][..] } else { &["."][..] });
        let entries = read(&run(&mut tar)[..]).unwrap();
        let named = |name: &str| entries.iter().find(|(entry, _)| entry.path == name.as_bytes()).unwrap();
        if plain {
            assert_eq!(named("sparse").1, expected, "{options:?}");
            continue;
        }
        let (entry, content) = named("./sparse");
        assert!(*content == expected, "{options:?}");
        if pax {
            let names: Vec<_> =
                entry.xattrs.iter().map(|(name, _)| name.escape_ascii().to_string()).collect();
            assert_eq!(names, ["system.posix_acl_access", "user.k"]);
            assert_eq!(entry.xattrs[1].1, b"value");
        }
        let (link, _) = named("./s");
        assert_eq!(link.kind, EntryKind::Symlink { target: b"t".repeat(80) });
        let nanoseconds = if pax { 250_000_000 } else { 0 };
        assert_eq!(link.mtime, Timestamp { seconds: -315_619_200, nanoseconds });
        let deep = format!("./{long}/{}", &long[..80]);
        assert_eq!(named(&deep).1, b"deep");
        assert_eq!(named("./z").0.kind, EntryKind::Hardlink { target: deep.into_bytes() });
    }
}

/// A small generator (xorshift64*), so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// Mutated archives are read or refused; checksums are put right again so that the mutations get past them.
#[test]
fn no_mutation_makes_the_reader_panic() {
    let mut entries = every_kind();
    entries.retain(|(entry, _)| entry.path != b"big");
    let mut seed = archive(&entries);
    seed.truncate(seed.len() - 2 * BLOCK);
    seed.extend(extension(
        b'x',
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n27 GNU.sparse.realsize=99\n",
    ));
    seed.extend(block("sparse", b'0', 512));
    seed.extend_from_slice(&[b'1'; BLOCK]);
    for round in 1..3000 {
        let mut random = Random(round);
        let mut bytes = seed.clone();
        for _ in 0..=random.below(6) {
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes[at] = [0, 0x80, 0xff, b'0', b'x', b'S', b'\n', b'='][random.below(8)],
                2 => bytes.truncate(at.max(1)),
                3 => {
                    let block = at / BLOCK * BLOCK;
                    let copy = bytes[block..(block + BLOCK).min(bytes.len())].to_vec();
                    let to = random.below(bytes.len()) / BLOCK * BLOCK;
                    bytes.splice(to..to, copy);
                }
                _ => {
                    let end = (at + random.below(40)).min(bytes.len());
                    bytes[at..end].fill(0xff);
                }
            }
        }
        for block in bytes.chunks_exact_mut(BLOCK) {
            let block: &mut [u8; BLOCK] = block.try_into().unwrap();
            if block[header::MAGIC].starts_with(b"ustar") {
                header::seal(block);
            }
        }
        if let Err(error) = read(&bytes[..]) {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "seed {round}: {error}");
        }
    }
}
