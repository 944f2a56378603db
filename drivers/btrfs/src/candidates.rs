//! Where a layer may differ from its parent: at what a send between the two names.
//!
//! `BTRFS_IOC_SEND` compares the trees of two subvolumes and passes over what they share, so it takes the time of the
//! changes. What it gives is which names are touched. To these come
//! * all names of a file that has several, where one is touched: a change shows under each;
//! * all below a directory that was moved or made, in whose place there may be another;
//! * subvolumes in the layer or in the parent, with all below them: a send passes over them.
//!
//! Where a send cannot be had or followed, beyond so many names that they would fill the memory, and where so much was
//! changed that a walk takes less time, it is everything.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, BufReader, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::thread;

use layerstack_core::driver::{Candidate, Candidates, CtimeWindow, Scope};
use layerstack_core::tree::{FileKind, Metadata, Tree};
use layerstack_core::{Error, ErrorKind, LayerId, Result};
use rustix::io::Errno;

use crate::layout::Layout;
use crate::names::{self, Names};
use crate::namespace::{Lost, Namespace, Touch, Touched};
use crate::snapshots::Frozen;
use crate::stream::Stream;
use crate::{nested, share, sys};

/// So many names are kept in memory, some 250 bytes each.
const MOST: usize = 500_000;

/// The candidates of a layer.
pub(crate) fn of(layout: &Layout, id: &LayerId) -> Result<Candidates> {
    let (_, layer) = layout.subvolume(id)?;
    let Some(parent_id) = layout.parent(&layer)? else { return Ok(everywhere()) };
    let (_, parent) = layout.subvolume(&parent_id)?;
    let is_large = |tree| share::is_large(layout.file_system(), tree, layer.made_in);
    // Before anything is frozen: a snapshot that goes again has the kernel work beside the walk. A parent that is not sealed
    // may have changed as well.
    if is_large(layer.number)? || is_large(parent.number)? {
        return Ok(everywhere());
    }
    let (top, base) = (Frozen::of(layout, id)?, Frozen::of(layout, &parent_id)?);
    // What had not been written down before is by now.
    for (frozen, live) in [(&top, &layer), (&base, &parent)] {
        if frozen.number() != live.number && is_large(frozen.number())? {
            return Ok(everywhere());
        }
    }
    let namespace = match follow(&top, &base) {
        Ok(namespace) => namespace,
        Err(reason) => {
            tracing::warn!(layer = %id, %reason, "what the layer changed cannot be had from a send: all is compared");
            return Ok(everywhere());
        }
    };
    let mut touched: Vec<_> = namespace.touched().collect();
    drop(namespace);
    // Neighbours one after the other, so that their directory is opened once.
    touched.sort_unstable_by(|a, b| (&a.before, &a.after).cmp(&(&b.before, &b.after)));
    let mut narrowed =
        Narrowed { base: Side::new(layout, &base)?, top: Side::new(layout, &top)?, found: HashMap::new() };
    for touched in touched {
        narrowed.add(touched)?;
    }
    for (live, frozen) in [(layer.number, top.number()), (parent.number, base.number())] {
        for nested in nested::list(layout.file_system(), live, frozen)? {
            narrowed.put(nested.path, Scope::Subtree);
        }
    }
    Ok(narrowed.into_candidates())
}

/// No place is excluded: files are read wherever all else is equal.
fn everywhere() -> Candidates {
    Candidates::All { untouched: Some(CtimeWindow::NEVER) }
}

/// Has the kernel compare the two, and follows what it says.
fn follow(top: &Frozen<'_>, base: &Frozen<'_>) -> io::Result<Namespace> {
    let (reader, writer) = io::pipe()?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            // The reader comes to its end when this goes.
            let sink = OwnedFd::from(writer);
            sys::send(top.root(), &sink, base.number(), 1)
        });
        let followed = read(reader);
        let sent = sender.join().unwrap_or(Err(Errno::IO));
        match (followed, sent) {
            // It went because nobody read on.
            (Err(reason), Ok(()) | Err(Errno::PIPE)) => Err(reason),
            (_, Err(errno)) => Err(errno.into()),
            (Ok(namespace), Ok(())) => Ok(namespace),
        }
    })
}

/// Follows a stream to its end.
fn read(source: PipeReader) -> io::Result<Namespace> {
    let mut stream = Stream::new(BufReader::with_capacity(64 << 10, source))?;
    let mut namespace = Namespace::new(MOST);
    while let Some(step) = stream.next()? {
        namespace.follow(&step).map_err(|lost| match lost {
            Lost::TooMany => io::Error::other(format!("it touches more than {MOST} names")),
            Lost::Contradiction(path) => {
                io::Error::other(format!("the send stream contradicts itself about {}", path.escape_ascii()))
            }
        })?;
    }
    Ok(namespace)
}

/// The candidates as they are gathered.
struct Narrowed<'a> {
    base: Side<'a>,
    top: Side<'a>,
    found: HashMap<PathBuf, Scope>,
}

impl Narrowed<'_> {
    fn add(&mut self, touched: Touched) -> Result<()> {
        let before = touched.before.map(|path| PathBuf::from(OsString::from_vec(path)));
        let after = touched.after.map(|path| PathBuf::from(OsString::from_vec(path)));
        let was = self.base.metadata(before.as_deref())?;
        // A new file has one name, unless it was linked.
        let several = touched.linked || was.is_some_and(|was| was.links > 1);
        let is = if several || touched.touch == Touch::Times {
            self.top.metadata(after.as_deref())?
        } else {
            None
        };
        if let (Touch::Times, Some(was), Some(is)) = (touched.touch, &was, &is)
            && was.mtime == is.mtime
        {
            // Somebody only read it.
            return Ok(());
        }
        for (side, metadata) in [(&mut self.base, was), (&mut self.top, is)] {
            if let Some(metadata) = metadata {
                side.names_of(&metadata, &mut self.found)?;
            }
        }
        let moved = touched.moved && was.is_some_and(|was| was.kind == FileKind::Directory);
        let scope = if moved || touched.new_directory { Scope::Subtree } else { Scope::Entry };
        for (side, path) in [(&mut self.base, before), (&mut self.top, after)] {
            let Some(path) = path else { continue };
            if moved {
                side.names_below(&path, &mut self.found)?;
            }
            put(&mut self.found, path, scope);
        }
        Ok(())
    }

    fn put(&mut self, path: PathBuf, scope: Scope) {
        put(&mut self.found, path, scope);
    }

    fn into_candidates(self) -> Candidates {
        let mut found: Vec<_> = self.found.into_iter().collect();
        found.sort_unstable_by(|(a, _), (b, _)| components(a).cmp(components(b)));
        let mut whole: Option<PathBuf> = None;
        found.retain(|(path, scope)| {
            let inside = whole.as_ref().is_some_and(|whole| path.starts_with(whole));
            if !inside && *scope == Scope::Subtree {
                whole = Some(path.clone());
            }
            !inside
        });
        let candidates = found.into_iter().map(|(path, scope)| Ok(Candidate { path, scope }));
        Candidates::Paths(Box::new(candidates))
    }
}

/// By which candidates are ordered.
fn components(path: &Path) -> impl Iterator<Item = &[u8]> {
    path.as_os_str().as_bytes().split(|byte| *byte == b'/')
}

/// What reaches further counts.
fn put(found: &mut HashMap<PathBuf, Scope>, path: PathBuf, scope: Scope) {
    let known = found.entry(path).or_insert(scope);
    if scope == Scope::Subtree {
        *known = scope;
    }
}

/// One of the two trees.
struct Side<'a> {
    tree: Tree,
    /// The subvolume's device number.
    device: (u32, u32),
    names: Names<'a>,
    /// Files of several names that were seen to.
    seen: HashSet<u64>,
    /// The directory that was looked into last.
    directory: Option<(PathBuf, OwnedFd)>,
}

impl<'a> Side<'a> {
    fn new(layout: &'a Layout, frozen: &Frozen<'_>) -> Result<Self> {
        let root =
            frozen.root().try_clone_to_owned().map_err(|error| Error::from_io(error, "open the layer"))?;
        let device =
            Metadata::of(&root).map_err(|errno| Error::from_errno(errno, "inspect the layer"))?.identity.0;
        Ok(Self {
            tree: Tree::from_fd(root),
            device,
            names: Names::new(layout.file_system(), frozen.number()),
            seen: HashSet::new(),
            directory: None,
        })
    }

    fn metadata(&mut self, path: Option<&Path>) -> Result<Option<Metadata>> {
        let Some(path) = path else { return Ok(None) };
        let failed = |errno| Error::from_errno(errno, "inspect").with_path(path);
        let Some((above, name)) = names::split(path) else {
            return Metadata::of(self.tree.root()).map(Some).map_err(failed);
        };
        if self.directory.as_ref().is_none_or(|(open, _)| open != above) {
            self.directory = match self.tree.open_directory(above) {
                Ok(directory) => Some((above.to_owned(), directory)),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        let Some((_, directory)) = &self.directory else { return Ok(None) };
        let name = CString::new(name.as_bytes()).map_err(|_| failed(Errno::INVAL))?;
        Metadata::at(directory, &name).map_err(failed)
    }

    /// Adds the other names of a file.
    fn names_of(&mut self, file: &Metadata, found: &mut HashMap<PathBuf, Scope>) -> Result<()> {
        let (device, inode) = file.identity;
        let several = file.kind != FileKind::Directory && file.links > 1;
        if several && device == self.device && self.seen.insert(inode) {
            for path in self.names.of(inode)? {
                put(found, path, Scope::Entry);
            }
        }
        Ok(())
    }

    /// Adds the other names of all files below a directory.
    fn names_below(&mut self, path: &Path, found: &mut HashMap<PathBuf, Scope>) -> Result<()> {
        let mut buffer = Vec::with_capacity(64 << 10);
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            let directory = match self.tree.open_directory(&path) {
                Ok(directory) => directory,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let failed = |errno| Error::from_errno(errno, "look into").with_path(&path);
            for name in layerstack_core::tree::Names::of(&directory, &mut buffer).map_err(failed)?.iter() {
                match Metadata::at(&directory, name).map_err(failed)? {
                    // A subvolume in the layer is seen to on its own.
                    Some(entry) if entry.identity.0 != self.device => {}
                    Some(entry) if entry.kind == FileKind::Directory => {
                        open.push(path.join(OsStr::from_bytes(name.to_bytes())));
                    }
                    Some(entry) => self.names_of(&entry, found)?,
                    None => {}
                }
            }
        }
        Ok(())
    }
}
