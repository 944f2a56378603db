//! The index of an outer archive: where each of its files lies. The layers in it are not looked into.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use layerstack::{Error, ErrorKind, Result};

use super::Member;

/// More files than any image archive has: a layer has three in the oldest form, and no chain is longer than 500.
const MAX_ENTRIES: usize = 65_536;

/// More bytes than the headers of so many files have. It bounds the memory that long names and extended headers take.
const MAX_HEADERS: u64 = 32 << 20;

/// The files of a tar archive by name.
#[derive(Debug)]
pub(crate) struct Index {
    file: Arc<File>,
    entries: HashMap<String, Place>,
}

#[derive(Debug)]
enum Place {
    Bytes {
        offset: u64,
        size: u64,
    },
    /// A link, by the name that it leads to: `docker save` once wrote layers that occur twice as symbolic links.
    Link(String),
}

impl Index {
    /// Reads the headers of a tar archive.
    ///
    /// # Errors
    /// `InvalidInput` where it is none, or is cut off.
    pub(crate) fn of(mut file: File) -> Result<Self> {
        let wrong =
            |error| Error::new(ErrorKind::InvalidInput, "is not a whole tar archive").with_source(error);
        let length = file.seek(SeekFrom::End(0)).map_err(|error| Error::from_io(error, "seek"))?;
        file.seek(SeekFrom::Start(0)).map_err(|error| Error::from_io(error, "seek"))?;
        let mut entries = HashMap::new();
        let mut archive = tar::Archive::new(Headers { file: &file, left: MAX_HEADERS });
        for entry in archive.entries_with_seek().map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let Some(name) = std::str::from_utf8(&entry.path_bytes()).ok().and_then(|name| resolve("", name))
            else {
                continue;
            };
            let kind = entry.header().entry_type();
            let place = if kind.is_file() || kind.is_contiguous() {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                if offset.checked_add(size).is_none_or(|end| end > length) {
                    return Err(Error::new(ErrorKind::InvalidInput, "the archive ends within this file")
                        .with_path(name));
                }
                Place::Bytes { offset, size }
            } else if kind.is_symlink() || kind.is_hard_link() {
                let base =
                    if kind.is_symlink() { name.rsplit_once('/').map_or("", |(base, _)| base) } else { "" };
                let target = entry.link_name_bytes();
                let target = target.as_deref().and_then(|target| std::str::from_utf8(target).ok());
                match target.and_then(|target| resolve(base, target)) {
                    Some(target) => Place::Link(target),
                    None => continue,
                }
            } else if kind.is_gnu_sparse() {
                return Err(Error::new(ErrorKind::Unsupported, "is stored as a sparse file").with_path(name));
            } else {
                continue;
            };
            if entries.len() == MAX_ENTRIES {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("is not an image archive: it has more than {MAX_ENTRIES} files"),
                ));
            }
            entries.insert(name, place);
        }
        Ok(Self { file: Arc::new(file), entries })
    }

    /// Opens a file, through links.
    ///
    /// # Errors
    /// `NotFound` naming it, `InvalidInput` for links that lead in a circle.
    pub(crate) fn file(&self, name: &str) -> Result<Member> {
        let absent = || Error::new(ErrorKind::NotFound, "the archive has no such file").with_path(name);
        let mut target = resolve("", name).ok_or_else(absent)?;
        // As many links as the kernel follows in a path (path_resolution(7)).
        for _ in 0..40 {
            match self.entries.get(&target).ok_or_else(absent)? {
                Place::Bytes { offset, size } => {
                    let file = Arc::clone(&self.file);
                    return Ok(Member { file, offset: *offset, end: offset + size, name: name.to_owned() });
                }
                Place::Link(next) => target.clone_from(next),
            }
        }
        Err(Error::new(ErrorKind::InvalidInput, "its links lead in a circle").with_path(name))
    }
}

/// Reads the headers of an archive, the files between them being passed over; fails where they do not end.
struct Headers<'a> {
    file: &'a File,
    left: u64,
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its headers have more than {MAX_HEADERS} bytes"),
            )
        })?;
        Ok(length)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// `path`, seen from the directory `base` of the archive, without `.` and `..`. None where it leads out.
fn resolve(base: &str, path: &str) -> Option<String> {
    let mut components: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for component in base.split('/').chain(path.split('/')) {
        match component {
            "" | "." => {}
            ".." => {
                components.pop()?;
            }
            name => components.push(name),
        }
    }
    Some(components.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, tar::EntryType, &str)]) -> File {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        for (name, kind, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            if *kind == tar::EntryType::Regular {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, content.as_bytes()).unwrap();
            } else {
                header.set_size(0);
                builder.append_link(&mut header, name, content).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_are_found_through_links_and_the_last_of_a_name_counts() {
        use tar::EntryType::{Regular, Symlink};
        let index = Index::of(archive(&[
            ("./a/layer.tar", Regular, "old"),
            ("a/layer.tar", Regular, "new"),
            ("b/layer.tar", Symlink, "../a/layer.tar"),
            ("c/layer.tar", Symlink, "../../../etc/passwd"),
            ("d", Symlink, "e"),
            ("e", Symlink, "d"),
        ]))
        .unwrap();
        let mut text = String::new();
        index.file("b/layer.tar").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "new");
        assert_eq!(index.file("c/layer.tar").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(index.file("d").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(index.file("../x").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_name_without_end_takes_no_memory() {
        let file = tempfile::tempfile().unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 30);
        header.set_cksum();
        std::io::Write::write_all(&mut &file, header.as_bytes()).unwrap();
        file.set_len(2 << 30).unwrap();
        let error = Index::of(file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(format!("{error:?}").contains("headers"), "{error:?}");
    }

    #[test]
    fn what_is_cut_off_or_no_archive_is_refused() {
        let whole = archive(&[("a", tar::EntryType::Regular, &"x".repeat(5000))]);
        whole.set_len(2000).unwrap();
        assert_eq!(Index::of(whole).unwrap_err().kind(), ErrorKind::InvalidInput);
        let text = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &text, &[b'x'; 2000]).unwrap();
        assert_eq!(Index::of(text).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
