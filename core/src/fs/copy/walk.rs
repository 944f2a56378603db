//! The directories still to be copied, and which of them are open.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::lock;
use crate::error::{Error, Result};

/// How many pairs of directories are held open. Each takes two descriptors, of which a process has 1024 by default.
const OPEN_PAIRS: usize = 64;

/// A directory and its copy, open.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) from: OwnedFd,
    pub(super) to: OwnedFd,
}

/// A directory of the tree by its place: a name in a parent.
#[derive(Debug)]
pub(super) struct Node {
    /// None for the tree's root.
    parent: Option<Arc<Node>>,
    name: CString,
    /// The directory while it is open; the root always is.
    pair: Mutex<Option<Arc<Pair>>>,
}

impl Drop for Node {
    /// Lets go of the parents one after the other: one inside the other would take stack for each level.
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(mut node) = parent.and_then(Arc::into_inner) {
            parent = node.parent.take();
        }
    }
}

/// The directories to do, shared by the threads: a stack, so that the last ones found, which are open, come first.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    shown: &'a Path,
    work: Mutex<Work>,
    changed: Condvar,
    /// The nodes that are open, the oldest first.
    open: Mutex<VecDeque<Weak<Node>>>,
}

#[derive(Debug)]
struct Work {
    stack: Vec<Arc<Node>>,
    /// Directories that some thread is at, whose subdirectories are not all on the stack yet.
    busy: usize,
    stopped: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(from: BorrowedFd<'_>, to: BorrowedFd<'_>, shown: &'a Path) -> Result<Self> {
        let open = |at| open_directory(at, c".");
        let pair = open(from)
            .and_then(|from| Ok(Pair { from, to: open(to)? }))
            .map_err(|errno| Error::from_errno(errno, "open").with_path(shown))?;
        let root = Node { parent: None, name: CString::default(), pair: Mutex::new(Some(Arc::new(pair))) };
        Ok(Self {
            shown,
            work: Mutex::new(Work { stack: vec![Arc::new(root)], busy: 0, stopped: false }),
            changed: Condvar::new(),
            open: Mutex::new(VecDeque::new()),
        })
    }

    /// The next directory to do; None when there will be none. Each is to be followed by [`Walk::finished`].
    pub(super) fn next(&self) -> Option<Arc<Node>> {
        let mut work = lock(&self.work);
        loop {
            if work.stopped {
                return None;
            }
            if let Some(node) = work.stack.pop() {
                work.busy += 1;
                return Some(node);
            }
            if work.busy == 0 {
                return None;
            }
            work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A subdirectory of one being done, to be done later.
    pub(super) fn found(&self, parent: &Arc<Node>, name: &CStr) {
        let node = Node { parent: Some(Arc::clone(parent)), name: name.to_owned(), pair: Mutex::new(None) };
        lock(&self.work).stack.push(Arc::new(node));
        self.changed.notify_one();
    }

    /// A directory of [`Walk::next`] is done.
    pub(super) fn finished(&self) {
        let mut work = lock(&self.work);
        work.busy -= 1;
        if work.busy == 0 && work.stack.is_empty() {
            self.changed.notify_all();
        }
    }

    /// Ends the walk for all threads.
    pub(super) fn stop(&self) {
        lock(&self.work).stopped = true;
        self.changed.notify_all();
    }

    /// The directory, open. Where it had to be closed for others it is opened again, name by name from the nearest
    /// directory above that is still open.
    pub(super) fn pair(&self, node: &Arc<Node>) -> Result<Arc<Pair>> {
        let mut closed = Vec::new();
        let mut at = node;
        let mut pair = loop {
            if let Some(pair) = lock(&at.pair).as_ref() {
                break Arc::clone(pair);
            }
            closed.push(at);
            match &at.parent {
                Some(parent) => at = parent,
                None => return Err(Error::from_errno(Errno::BADF, "open").with_path(self.shown)),
            }
        };
        while let Some(node) = closed.pop() {
            let opened = open_directory(&pair.from, &node.name)
                .and_then(|from| Ok(Pair { from, to: open_directory(&pair.to, &node.name)? }))
                .map_err(|errno| Error::from_errno(errno, "open").with_path(self.path(node, c"")))?;
            pair = Arc::new(opened);
            *lock(&node.pair) = Some(Arc::clone(&pair));
            self.close_oldest(node);
        }
        Ok(pair)
    }

    fn close_oldest(&self, newest: &Arc<Node>) {
        let mut open = lock(&self.open);
        open.push_back(Arc::downgrade(newest));
        if open.len() > OPEN_PAIRS
            && let Some(oldest) = open.pop_front().and_then(|node| node.upgrade())
        {
            *lock(&oldest.pair) = None;
        }
    }

    /// The path of a name in a directory, for a message.
    pub(super) fn path(&self, node: &Node, name: &CStr) -> PathBuf {
        let mut names = vec![name];
        let mut at = Some(node);
        while let Some(node) = at {
            names.push(&node.name);
            at = node.parent.as_deref();
        }
        let below = names.iter().rev().filter(|name| !name.is_empty());
        let below = below.map(|name| OsStr::from_bytes(name.to_bytes()));
        self.shown.iter().chain(below).collect()
    }
}

fn open_directory(at: impl std::os::fd::AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}
