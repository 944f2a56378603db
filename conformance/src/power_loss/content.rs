//! What is in a layer, which follows from its name alone, so that it can be judged whoever made the layer.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::Path;

use fastrand::Rng;

use crate::case::Verdict;
use crate::files;
use crate::snapshot::{Kind, Node, Snapshot, hash_of};
use crate::tarball::{Item, Tarball};

/// How long a chain of images becomes.
const CHAIN: u32 = 4;

/// The modification time of everything: that of an [`Item`].
const TIME: i64 = 1_600_000_000;

/// What every sealed layer replaces.
const SHARED: &str = "shared";

/// What a layer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Role {
    /// Sealed, from a tar, on another image or on nothing.
    Image,
    /// Sealed, written through a mount, on the image of the same number.
    Commit,
    /// Writable, on any other layer.
    Container,
}

/// The name of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    pub(super) role: Role,
    /// The victim that made it.
    pub(super) round: u32,
    /// That victim's count.
    pub(super) number: u32,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Image => 'i',
            Role::Commit => 'c',
            Role::Container => 'w',
        };
        write!(f, "{role}{}-{}", self.round, self.number)
    }
}

impl Name {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let role = match text.chars().next()? {
            'i' => Role::Image,
            'c' => Role::Commit,
            'w' => Role::Container,
            _ => return None,
        };
        let (round, number) = text[1..].split_once('-')?;
        Some(Self { role, round: round.parse().ok()?, number: number.parse().ok()? })
    }

    /// The layer that a sealed one stands on.
    pub(super) fn parent(self) -> Option<Self> {
        match self.role {
            Role::Image if self.number.is_multiple_of(CHAIN) => None,
            Role::Image => Some(Self { number: self.number - 1, ..self }),
            Role::Commit => Some(Self { role: Role::Image, ..self }),
            Role::Container => None,
        }
    }

    /// The tar of an image: what it has of its own, and without a file of its parent.
    pub(super) fn tar(self) -> Vec<u8> {
        let mut items: Vec<Item> = Vec::new();
        if let Some(parent) = self.parent() {
            items.push(Item::directory(parent.to_string()));
            items.push(Item::file(format!("{parent}/.wh.{FIRST}"), ""));
        }
        items.extend(self.own().into_iter().map(|(path, part)| match part {
            Part::Directory => Item::directory(path),
            Part::File(content) => Item::file(path, content),
            Part::Link(target) => Item::symlink(path, target),
            Part::Twin(of) => Item::hardlink(path, of),
        }));
        Tarball::of(items)
    }

    /// Puts what a layer has of its own in a tree.
    pub(super) fn write(self, root: &Path) -> Verdict {
        let own = self.own();
        for (path, part) in &own {
            let path = root.join(path);
            match part {
                Part::Directory => files::directory(&path)?,
                Part::File(content) => files::write(&path, content)?,
                Part::Link(target) => symlink(target, &path)?,
                Part::Twin(of) => fs::hard_link(root.join(of), &path)?,
            }
        }
        for (path, part) in &own {
            let path = root.join(path);
            match part {
                Part::Directory => files::mode(&path, 0o755)?,
                Part::File(_) | Part::Twin(_) => files::mode(&path, 0o644)?,
                Part::Link(_) => {}
            }
            files::mtime(&path, TIME, 0)?;
        }
        Ok(())
    }

    /// What a layer has of its own, in an order in which it can be made.
    fn own(self) -> Vec<(String, Part)> {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        let mut random = Rng::with_seed(hasher.finish());
        let mut parts = vec![(self.to_string(), Part::Directory)];
        for number in 0..random.usize(3..9) {
            let content = noise(&mut random, 120_000);
            parts.push((format!("{self}/f{number}"), Part::File(content)));
        }
        parts.push((format!("{self}/link"), Part::Link(FIRST.to_owned())));
        parts.push((format!("{self}/twin"), Part::Twin(format!("{self}/f1"))));
        if self.role != Role::Container {
            parts.push((SHARED.to_owned(), Part::File(noise(&mut random, 9000))));
        }
        parts
    }
}

/// The file that a child takes away.
const FIRST: &str = "f0";

/// A part of a layer's content.
enum Part {
    Directory,
    File(Vec<u8>),
    Link(String),
    /// Another name of a file.
    Twin(String),
}

fn noise(random: &mut Rng, most: usize) -> Vec<u8> {
    let mut content = vec![0; random.usize(0..most)];
    random.fill(&mut content);
    content
}

/// The trees of sealed layers as they must be; each layer's own part is made once.
#[derive(Debug, Default)]
pub(super) struct Trees(BTreeMap<Name, Snapshot>);

impl Trees {
    /// The tree of a sealed layer, without the root directory itself.
    pub(super) fn of(&mut self, name: Name) -> Snapshot {
        if let Some(tree) = self.0.get(&name) {
            return tree.clone();
        }
        let mut tree = Snapshot::default();
        if let Some(parent) = name.parent() {
            tree = self.of(parent);
            if name.role == Role::Image {
                tree.nodes.remove(&Path::new(&parent.to_string()).join(FIRST));
            }
        }
        for (path, part) in name.own() {
            let (kind, mode, same_as) = match part {
                Part::Directory => (Kind::Directory, 0o755, None),
                Part::File(content) => {
                    (Kind::File { size: content.len() as u64, hash: hash_of(&content) }, 0o644, None)
                }
                Part::Link(target) => (Kind::Symlink(target.into_bytes()), 0o777, None),
                Part::Twin(of) => match tree.get(&of) {
                    Some(node) => (node.kind.clone(), 0o644, Some(of.into())),
                    None => continue,
                },
            };
            let (owner, mtime, xattrs) = ((0, 0), (TIME, 0), BTreeMap::new());
            tree.nodes.insert(path.into(), Node { kind, mode, owner, mtime, xattrs, same_as });
        }
        self.0.insert(name, tree.clone());
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_on_which_layer_the_layer_stands() {
        for (text, parent) in
            [("i3-0", None), ("i3-5", Some("i3-4")), ("i3-8", None), ("c3-5", Some("i3-5")), ("w3-5", None)]
        {
            let name = Name::parse(text).unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(name.parent().map(|parent| parent.to_string()).as_deref(), parent, "{text}");
        }
        for text in ["", "x1-1", "i1", "i1-x", "é1-1"] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_expected() {
        let scratch = tempfile::tempdir().unwrap();
        let name = Name::parse("i1-0").unwrap();
        name.write(scratch.path()).unwrap();
        let seen = Snapshot::read(scratch.path()).unwrap().without_root();
        assert_eq!(seen.differences(&Trees::default().of(name)), Vec::<String>::new());
        assert_ne!(seen, Trees::default().of(Name::parse("i1-4").unwrap()));
    }

    #[test]
    fn a_child_lacks_a_file_of_its_parent_and_replaces_another() {
        let mut trees = Trees::default();
        let [parent, child] = ["i1-0", "i1-1"].map(|name| trees.of(Name::parse(name).unwrap()));
        assert!(parent.get("i1-0/f0").is_some() && child.get("i1-0/f0").is_none());
        assert_eq!(parent.get("i1-0/f1"), child.get("i1-0/f1"));
        assert_ne!(parent.get(SHARED), child.get(SHARED));
        let names = crate::tarball::names(&Name::parse("i1-1").unwrap().tar()).unwrap();
        assert_eq!(names[..3], ["i1-0", "i1-0/.wh.f0", "i1-1"]);
    }
}
