//! The walk over two trees, whole or narrowed to candidates: one visitor for the list and for the tar.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::io::Errno;

use super::compare::{Contents, Difference, Pair, compare};
use crate::driver::{Candidate, Candidates, Scope};
use crate::error::{Error, ErrorKind, Result};
use crate::tree::{Cursor, FileKind, Metadata, Names, Tree};

/// What is told of what the walk finds, in order.
pub(super) trait Sink {
    /// Whether to tell of all that the tar needs, or only of what is a change: see the [module](super).
    const EXACT: bool;

    /// An entry that is new (`base` is None), or that differs from the base's.
    fn entry(&mut self, spot: &Spot<'_>, layer: &Metadata, base: Option<&Metadata>) -> Result<()>;

    /// A directory in both trees below which something differs; told before that, once.
    fn above(&mut self, spot: &Spot<'_>, layer: &Metadata) -> Result<()>;

    /// A path that is in the base alone.
    fn deleted(&mut self, path: &[u8], base: &Metadata) -> Result<()>;

    /// A file of several names in one of the trees, or both, that does not differ otherwise. Only if
    /// [`Sink::EXACT`].
    fn equal(&mut self, path: &[u8], layer: &Metadata, base: &Metadata);
}

/// An entry in the layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'a> {
    /// Its path from the root, without a leading slash; empty for the root.
    pub(super) path: &'a [u8],
    /// An open directory.
    pub(super) directory: BorrowedFd<'a>,
    /// Its name there; empty for the directory itself.
    pub(super) name: &'a CStr,
}

/// A path of a tree as messages show it.
pub(super) fn shown(path: &[u8]) -> &Path {
    Path::new(if path.is_empty() { OsStr::new("/") } else { OsStr::from_bytes(path) })
}

/// A system call on a path of a tree that failed.
pub(super) fn failed(errno: Errno, what: &'static str, path: &[u8]) -> Error {
    Error::from_errno(errno, what).with_path(shown(path))
}

/// Tells `sink` of all that differs.
pub(super) fn walk<S: Sink>(
    layer: &Tree,
    base: Option<&Tree>,
    candidates: Candidates,
    sink: &mut S,
) -> Result<()> {
    let contents = match &candidates {
        Candidates::All { untouched: None } => Contents::Trusted,
        Candidates::All { untouched: Some(window) } => Contents::OutsideOf(*window),
        Candidates::Paths(_) => Contents::Compared,
    };
    let mut walk = Walk {
        tree: layer,
        layer: Cursor::new(layer),
        base: base.map(Cursor::new),
        contents,
        path: Vec::new(),
        levels: Vec::new(),
        buffer: Vec::with_capacity(64 * 1024),
        sink,
    };
    if !walk.root()? {
        return Ok(());
    }
    match candidates {
        Candidates::Paths(paths) if base.is_some() => walk.narrowed(paths),
        Candidates::Paths(_) | Candidates::All { .. } => walk.all_here(),
    }
}

struct Walk<'a, S> {
    tree: &'a Tree,
    layer: Cursor<'a>,
    base: Option<Cursor<'a>>,
    contents: Contents,
    /// The path that is being looked at.
    path: Vec<u8>,
    /// The directories from the root to the current one; each is in the layer.
    levels: Vec<Level>,
    /// Scratch for listings.
    buffer: Vec<u8>,
    sink: &'a mut S,
}

struct Level {
    /// The length of the directory's path.
    end: usize,
    /// Whether the directory is in the base too.
    in_base: bool,
    /// Whether the sink has been told of the directory.
    told: bool,
    /// The names in it, where all of them are looked at.
    names: Option<Union>,
}

impl<S: Sink> Walk<'_, S> {
    /// Compares the roots. Whether there is anything to walk.
    fn root(&mut self) -> Result<bool> {
        let inspect = |cursor: &Cursor<'_>| {
            Metadata::of(cursor.here()).map_err(|errno| failed(errno, "inspect the root", b""))
        };
        let layer = inspect(&self.layer)?;
        let base = self.base.as_ref().map(inspect).transpose()?;
        let difference = match (&self.base, &base) {
            (Some(cursor), Some(base)) => {
                let pair = Pair { name: c"", path: b"", layer: self.layer.here(), base: cursor.here() };
                compare(pair, &layer, base, self.contents)?
            }
            _ => Difference::Changed,
        };
        let tell = S::EXACT && matches!(difference, Difference::Changed | Difference::DirectoryTime);
        if tell {
            let spot = Spot { path: b"", directory: self.layer.here(), name: c"" };
            self.sink.entry(&spot, &layer, base.as_ref())?;
        }
        let told = tell || !S::EXACT;
        self.levels.push(Level { end: 0, in_base: base.is_some(), told, names: None });
        Ok(difference != Difference::Same)
    }

    /// Looks at the candidates alone, and at the directories that they are in.
    fn narrowed(&mut self, paths: impl Iterator<Item = Result<Candidate>>) -> Result<()> {
        let mut last: Vec<u8> = Vec::new();
        // The last path below which all has been looked at.
        let mut done: Option<Vec<u8>> = None;
        for candidate in paths {
            let Candidate { path, scope } = candidate?;
            let path = normalized(&path)?;
            if path.split(is_slash).lt(last.split(is_slash)) {
                return Err(Error::new(ErrorKind::Other, "the driver's candidates are out of order")
                    .with_path(shown(&path)));
            }
            last.clone_from(&path);
            if done.as_ref().is_some_and(|done| is_within(&path, done)) {
                continue;
            }
            while self.levels.last().is_some_and(|level| !is_within(&path, &self.path[..level.end])) {
                self.leave()?;
            }
            loop {
                let depth = self.levels.len();
                let end = self.levels.last().map_or(0, |level| level.end);
                if end == path.len() {
                    if scope == Scope::Subtree {
                        self.all_here()?;
                        done = Some(path);
                    }
                    break;
                }
                let start = if end == 0 { 0 } else { end + 1 };
                let length = path[start..].iter().position(is_slash);
                let stop = length.map_or(path.len(), |length| start + length);
                let name = CString::new(&path[start..stop]).map_err(|_| invalid(&path))?;
                self.visit(&name, (true, true), false)?;
                self.run(depth)?;
                if self.levels.len() == depth {
                    done = Some(path[..stop].to_vec());
                    break;
                }
            }
        }
        while self.levels.len() > 1 {
            self.leave()?;
        }
        Ok(())
    }

    /// Looks at all in the current directory and below it, and stays there.
    fn all_here(&mut self) -> Result<()> {
        let names = self.list()?;
        let depth = self.levels.len();
        if let Some(level) = self.levels.last_mut() {
            level.names = Some(names);
        }
        self.run(depth - 1)?;
        Ok(())
    }

    /// Goes on with the listings of the directories below `depth` until all are exhausted.
    fn run(&mut self, depth: usize) -> Result<()> {
        while self.levels.len() > depth {
            let current = self.levels.len() - 1;
            // Taken out for as long as its names are borrowed.
            let Some(mut names) = self.levels[current].names.take() else { break };
            let mut exhausted = true;
            while let Some((name, sides)) = names.next() {
                self.visit(name, sides, true)?;
                if self.levels.len() - 1 != current {
                    exhausted = false;
                    break;
                }
            }
            if !exhausted {
                self.levels[current].names = Some(names);
            } else if current > 0 {
                self.leave()?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Compares one name in the current directory. `sides`: whether it may be in the layer, in the base. Enters it
    /// where it is a directory in the layer, and lists it if it is new or `whole`.
    fn visit(&mut self, name: &CStr, sides: (bool, bool), whole: bool) -> Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let in_base = level.in_base;
        self.path.truncate(level.end);
        if level.end > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
        let inspect = |cursor: &Cursor<'_>| {
            Metadata::at(cursor.here(), name).map_err(|errno| failed(errno, "inspect", &self.path))
        };
        let mut layer = if sides.0 { inspect(&self.layer)? } else { None };
        let mut base = match &self.base {
            Some(cursor) if sides.1 && in_base => inspect(cursor)?,
            _ => None,
        };
        if S::EXACT && layer.is_some_and(|layer| layer.kind == FileKind::Socket) {
            layer = None;
            base = base.filter(|base| base.kind != FileKind::Socket);
        }
        match (layer, base) {
            (None, None) => Ok(()),
            (None, Some(base)) => self.deleted(&base),
            (Some(layer), base) if base.is_none_or(|base| base.kind != layer.kind) => {
                self.entry(name, &layer, base.as_ref())?;
                if layer.kind != FileKind::Directory {
                    return Ok(());
                }
                match self.layer.open(name) {
                    Ok(directory) => self.enter(directory, None, true, true),
                    Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(failed(errno, "open", &self.path)),
                }
            }
            (Some(layer), Some(base)) if layer.kind == FileKind::Directory => {
                self.directories(name, &layer, &base, whole)
            }
            (Some(layer), Some(base)) => self.files(name, &layer, &base),
            (Some(_), None) => Ok(()),
        }
    }

    fn directories(&mut self, name: &CStr, layer: &Metadata, base: &Metadata, whole: bool) -> Result<()> {
        let directory = match self.layer.open(name) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return self.deleted(base),
            Err(errno) => return Err(failed(errno, "open", &self.path)),
        };
        let difference = self.compare(name, layer, base)?;
        if difference == Difference::Same {
            return Ok(());
        }
        let tell = match difference {
            Difference::Changed => true,
            Difference::DirectoryTime => S::EXACT,
            Difference::Same | Difference::Equal => false,
        };
        if tell {
            self.entry(name, layer, Some(base))?;
        }
        let opened = match &self.base {
            Some(cursor) => Some(cursor.open(name).map_err(|errno| failed(errno, "open", &self.path))?),
            None => None,
        };
        self.enter(directory, opened, tell, whole)
    }

    fn files(&mut self, name: &CStr, layer: &Metadata, base: &Metadata) -> Result<()> {
        match self.compare(name, layer, base)? {
            Difference::Changed => self.entry(name, layer, Some(base)),
            Difference::Equal if S::EXACT && layer.links > base.links => self.entry(name, layer, Some(base)),
            Difference::Equal if S::EXACT && base.links > 1 => {
                self.sink.equal(&self.path, layer, base);
                Ok(())
            }
            Difference::Equal | Difference::DirectoryTime | Difference::Same => Ok(()),
        }
    }

    fn compare(&self, name: &CStr, layer: &Metadata, base: &Metadata) -> Result<Difference> {
        let Some(cursor) = &self.base else { return Ok(Difference::Changed) };
        let pair = Pair { name, path: &self.path, layer: self.layer.here(), base: cursor.here() };
        compare(pair, layer, base, self.contents)
    }

    /// Makes an opened directory, at the path that is being looked at, the current one.
    fn enter(&mut self, layer: OwnedFd, base: Option<OwnedFd>, told: bool, whole: bool) -> Result<()> {
        let in_base = base.is_some();
        self.layer.enter(layer).map_err(|errno| failed(errno, "enter", &self.path))?;
        if let (Some(cursor), Some(base)) = (&mut self.base, base) {
            cursor.enter(base).map_err(|errno| failed(errno, "enter", &self.path))?;
        }
        self.levels.push(Level { end: self.path.len(), in_base, told, names: None });
        if whole {
            let names = self.list()?;
            if let Some(level) = self.levels.last_mut() {
                level.names = Some(names);
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        self.path.truncate(level.end);
        self.layer.leave().map_err(|errno| failed(errno, "leave", &self.path))?;
        if let Some(cursor) = self.base.as_mut().filter(|_| level.in_base) {
            cursor.leave().map_err(|errno| failed(errno, "leave", &self.path))?;
        }
        Ok(())
    }

    /// The names in the current directory of both trees.
    fn list(&mut self) -> Result<Union> {
        let fail = |errno| failed(errno, "list", &self.path);
        let layer = Names::of(self.layer.here(), &mut self.buffer).map_err(fail)?;
        let base = match (&self.base, self.levels.last()) {
            (Some(cursor), Some(level)) if level.in_base => {
                Names::of(cursor.here(), &mut self.buffer).map_err(fail)?
            }
            _ => Names::default(),
        };
        Ok(Union { layer, base, next: (0, 0) })
    }

    fn entry(&mut self, name: &CStr, layer: &Metadata, base: Option<&Metadata>) -> Result<()> {
        self.announce()?;
        let spot = Spot { path: &self.path, directory: self.layer.here(), name };
        self.sink.entry(&spot, layer, base)
    }

    fn deleted(&mut self, base: &Metadata) -> Result<()> {
        self.announce()?;
        self.sink.deleted(&self.path, base)
    }

    /// Tells of the directories from the root to the current one, of which the sink does not know yet.
    fn announce(&mut self) -> Result<()> {
        let told = self.levels.iter().rposition(|level| level.told).map_or(0, |last| last + 1);
        for level in &mut self.levels[told..] {
            let path = &self.path[..level.end];
            level.told = true;
            // Opened anew: of a deep tree not all directories are kept open.
            let directory = match self.tree.open_directory(Path::new(OsStr::from_bytes(path))) {
                Ok(directory) => directory,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let layer = Metadata::of(&directory).map_err(|errno| failed(errno, "inspect", path))?;
            self.sink.above(&Spot { path, directory: directory.as_fd(), name: c"" }, &layer)?;
        }
        Ok(())
    }
}

/// The names in a directory of either tree, in order.
struct Union {
    layer: Names,
    base: Names,
    next: (usize, usize),
}

impl Union {
    /// The next name, and whether it is in the layer, in the base.
    fn next(&mut self) -> Option<(&CStr, (bool, bool))> {
        let names = (self.layer.get(self.next.0), self.base.get(self.next.1));
        let (name, sides) = match names {
            (None, None) => return None,
            (Some(name), None) => (name, (true, false)),
            (None, Some(name)) => (name, (false, true)),
            (Some(layer), Some(base)) => match layer.cmp(base) {
                std::cmp::Ordering::Less => (layer, (true, false)),
                std::cmp::Ordering::Equal => (layer, (true, true)),
                std::cmp::Ordering::Greater => (base, (false, true)),
            },
        };
        self.next.0 += usize::from(sides.0);
        self.next.1 += usize::from(sides.1);
        Some((name, sides))
    }
}

fn is_slash(byte: &u8) -> bool {
    *byte == b'/'
}

/// Whether `path` is `directory` or below it.
fn is_within(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || (path.starts_with(directory) && path.get(directory.len()).is_none_or(is_slash))
}

fn invalid(path: &[u8]) -> Error {
    Error::new(ErrorKind::Other, "the driver's candidate is not a path in the tree").with_path(shown(path))
}

/// A candidate's path as bytes, its components separated by single slashes.
fn normalized(path: &Path) -> Result<Vec<u8>> {
    let mut normalized = Vec::with_capacity(path.as_os_str().len());
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                if !normalized.is_empty() {
                    normalized.push(b'/');
                }
                normalized.extend_from_slice(name.as_bytes());
            }
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(invalid(path.as_os_str().as_bytes()));
            }
        }
    }
    Ok(normalized)
}
