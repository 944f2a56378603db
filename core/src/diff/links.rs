//! Which names have to be in the tar so that after it is applied the same names share an inode as in the layer.
//!
//! What is applied gets inodes of its own, shared among the names that the tar links; what is not in the tar keeps
//! the base's. So a name that is equal in both trees can be left out only if all that share its inode in the layer
//! are left out too and share one in the base, and if no other name that shares its inode in the base and is left
//! out has another in the layer. That a name's links became fewer is explained by names that are gone.

use std::collections::{HashMap, HashSet};

use crate::tree::{FileKind, Metadata};

type Identity = ((u32, u32), u64);

/// What the walk told of files with several names. Grows with their number only.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Inodes of the layer that are in the tar, under the first name.
    written: HashMap<Identity, Vec<u8>>,
    /// How many names of an inode of the base will not be its names any more.
    gone: HashMap<Identity, u32>,
    /// Names left out so far.
    left_out: Vec<LeftOut>,
}

#[derive(Debug)]
struct LeftOut {
    /// Its place among the names that were left out.
    order: usize,
    path: Vec<u8>,
    layer: Identity,
    layer_links: u32,
    base: Identity,
    base_links: u32,
}

impl Links {
    /// The name under which an inode of the layer is in the tar already.
    pub(super) fn written(&self, layer: &Metadata) -> Option<&[u8]> {
        self.written.get(&layer.identity).map(Vec::as_slice)
    }

    /// The inode was written under `path`.
    pub(super) fn write(&mut self, layer: &Metadata, path: &[u8]) {
        if layer.links > 1 && layer.kind != FileKind::Directory {
            self.written.entry(layer.identity).or_insert_with(|| path.to_owned());
        }
    }

    /// A name of an inode of the base was deleted, or something else is in its place.
    pub(super) fn gone(&mut self, base: &Metadata) {
        if base.links > 1 {
            *self.gone.entry(base.identity).or_default() += 1;
        }
    }

    /// The name was left out: the files are equal.
    pub(super) fn leave_out(&mut self, path: &[u8], layer: &Metadata, base: &Metadata) {
        self.left_out.push(LeftOut {
            order: self.left_out.len(),
            path: path.to_owned(),
            layer: layer.identity,
            layer_links: layer.links,
            base: base.identity,
            base_links: base.links,
        });
    }

    /// The names that were left out and must not be, in the order in which they were left out.
    pub(super) fn missing(&mut self) -> Vec<Vec<u8>> {
        let (mut missing, mut left_out) = (Vec::new(), std::mem::take(&mut self.left_out));
        let mut written: HashSet<Identity> = self.written.keys().copied().collect();
        // Each name that is drawn in may draw in others, so this goes on until none is.
        loop {
            let before = missing.len();
            self.draw_joined(&mut left_out, &mut written, &mut missing);
            if missing.len() == before {
                self.draw_split(&mut left_out, &mut written, &mut missing);
            }
            if missing.len() == before {
                break;
            }
        }
        missing.sort_unstable_by_key(|name: &LeftOut| name.order);
        missing.into_iter().map(|name| name.path).collect()
    }

    /// Moves from `left_out` to `missing` the names whose links in the layer ask for them.
    fn draw_joined(
        &mut self,
        left_out: &mut Vec<LeftOut>,
        written: &mut HashSet<Identity>,
        missing: &mut Vec<LeftOut>,
    ) {
        let mut base_of: HashMap<Identity, Identity> = HashMap::new();
        let mut joined: HashSet<Identity> = HashSet::new();
        for name in &*left_out {
            if *base_of.entry(name.layer).or_insert(name.base) != name.base {
                joined.insert(name.layer);
            }
        }
        missing.extend(left_out.extract_if(.., |name| {
            let gone = self.gone.get(&name.base).copied().unwrap_or_default();
            let explained = name.layer_links == name.base_links
                || name.layer_links.saturating_add(gone) == name.base_links;
            let draw = written.contains(&name.layer) || joined.contains(&name.layer) || !explained;
            if draw {
                written.insert(name.layer);
                *self.gone.entry(name.base).or_default() += 1;
            }
            draw
        }));
    }

    /// Moves from `left_out` to `missing` the names that share an inode in the base with one before them, and do
    /// not in the layer.
    fn draw_split(
        &mut self,
        left_out: &mut Vec<LeftOut>,
        written: &mut HashSet<Identity>,
        missing: &mut Vec<LeftOut>,
    ) {
        let mut layer_of: HashMap<Identity, Identity> = HashMap::new();
        missing.extend(left_out.extract_if(.., |name| {
            let draw = *layer_of.entry(name.base).or_insert(name.layer) != name.layer;
            if draw {
                written.insert(name.layer);
                *self.gone.entry(name.base).or_default() += 1;
            }
            draw
        }));
    }
}
