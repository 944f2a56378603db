//! The home of the driver: Docker's layout.
//!
//! ```text
//! l/LINK -> ../ID/diff     a short name of each layer, so that many fit into the options of mount(2)
//! ID/diff/                 what the layer holds: the upper directory of its mount
//! ID/link                  LINK
//! ID/lower                 l/LINK of each layer below, the nearest first, parted by ":"; absent without a parent
//! ID/work/                 the work directory of overlayfs; absent without a parent
//! ID/merged/               where it is mounted, while it is
//! ID/committed             there if the layer is sealed
//! ID/metacopy              ours: see `metacopy.rs`
//! ID-removing/             a layer being removed
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use layerstack_core::{Error, ErrorKind, LayerId, Result, fs, kill_point};
use rustix::fs::FileType;
use rustix::rand::GetRandomFlags;

use crate::sys::Directory;

/// Directories of containers/storage that lie beside the layers.
const NOT_LAYERS: [&str; 4] = ["l", "empty", "staging", "tempdirs"];

/// What a layer's directory holds.
const PIECES: [&str; 8] = ["committed", "diff", "link", "lower", "merged", "metacopy", "volatile", "work"];

/// The home directory, open.
#[derive(Debug)]
pub(crate) struct Home(Directory);

impl Home {
    /// Opens a home, making it where it is absent.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if let Err(error) = std::fs::create_dir_all(path) {
            return Err(Error::from_io(error, "make the directory").with_path(path));
        }
        let directory = Directory::open(path)?;
        if !directory.exists("l")? {
            // Other users may pass through to a container's root if they are told, but not look around: a set-id
            // program in an image must not become a program of the host's (CVE-2021-41091).
            directory.set_mode(".", 0o710)?;
            directory.make_if_absent("l", 0o700)?;
        }
        Ok(Self(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The directory of a layer.
    pub(crate) fn layer(&self, id: &LayerId) -> Result<Directory> {
        self.0.enter(id.as_str())?.ok_or_else(|| missing(&self.path().join(id.as_str())))
    }

    /// The directory of a lower layer.
    pub(crate) fn layer_of_link(&self, link: &Link) -> Result<Directory> {
        Directory::open(&self.path().join(link.as_path()).join(".."))
    }

    /// The paths of lower layers, each where its short name leads.
    pub(crate) fn paths(&self, links: &[Link]) -> Result<Vec<PathBuf>> {
        let path = |link: &Link| {
            let target = self.0.link_target(&link.to_string())?;
            let id = target
                .and_then(|target| owner(&target))
                .ok_or_else(|| missing(&self.path().join(link.as_path())))?;
            Ok(self.path().join(id.as_str()).join("diff"))
        };
        links.iter().map(path).collect()
    }

    /// The directory of a layer that may be half removed; None where nothing is left.
    pub(crate) fn remains(&self, id: &LayerId) -> Result<Option<Directory>> {
        match self.0.enter(id.as_str())? {
            Some(directory) => Ok(Some(directory)),
            None => self.0.enter(&format!("{id}-removing")),
        }
    }

    /// Makes a layer's pieces. The link comes last, so a link always leads to a layer of which the rest is there, and
    /// the file that names it comes first, so that it is found again whatever happens.
    ///
    /// `prepare` is given the layer's directory while it is empty.
    pub(crate) fn make(
        &self,
        id: &LayerId,
        parent: Option<&Parent>,
        prepare: impl FnOnce(&Directory) -> Result<()>,
    ) -> Result<()> {
        let name = id.as_str();
        self.0.make(name, 0o710)?;
        kill_point!("overlay2.create.directory");
        let layer = self.layer(id)?;
        prepare(&layer)?;
        let link = Link::random()?;
        layer.write("link", link.name().as_bytes())?;
        kill_point!("overlay2.create.link");
        layer.make("diff", 0o755)?;
        match parent {
            None => layer.set_mode("diff", 0o755)?,
            Some(parent) => {
                layer.write("lower", parent.stack_text().as_bytes())?;
                layer.make("work", 0o700)?;
                layer.take_after("diff", &parent.directory, "diff")?;
            }
        }
        kill_point!("overlay2.create.filled");
        self.0.link(&format!("../{name}/diff"), &link.to_string())
    }

    /// The parent of a layer to be made.
    pub(crate) fn parent(&self, id: &LayerId) -> Result<Parent> {
        let directory = self.layer(id)?;
        let mut stack = vec![read_link(&directory)?];
        stack.append(&mut read_lower(&directory)?);
        Ok(Parent { directory, stack })
    }

    /// Removes whatever there is of a layer.
    pub(crate) fn remove(&self, id: &LayerId) -> Result<()> {
        let name = id.as_str();
        let removing = format!("{name}-removing");
        if self.0.exists(&removing)? {
            self.remove_renamed(&removing, id)?;
        }
        if self.0.rename(name, &removing)? {
            kill_point!("overlay2.remove.renamed");
            self.remove_renamed(&removing, id)?;
        }
        Ok(())
    }

    fn remove_renamed(&self, removing: &str, id: &LayerId) -> Result<()> {
        if let Some(layer) = self.0.enter(removing)? {
            match read_link(&layer) {
                Ok(link) => self.0.unlink(&link.to_string())?,
                // Never written, or lost with the power.
                Err(_) => self.unlink_by_target(id)?,
            }
        }
        kill_point!("overlay2.remove.unlinked");
        fs::remove_tree(&self.0, removing.as_ref(), self.path())
    }

    /// Removes the link of a layer whose own file does not name it.
    fn unlink_by_target(&self, id: &LayerId) -> Result<()> {
        let Some(links) = self.0.enter("l")? else { return Ok(()) };
        for (name, kind) in links.entries()? {
            let Ok(name) = name.to_str() else { continue };
            if kind == FileType::Symlink
                && links.link_target(name)?.and_then(|target| owner(&target)).as_ref() == Some(id)
            {
                links.unlink(name)?;
            }
        }
        Ok(())
    }

    /// The ids of which anything is there.
    pub(crate) fn list(&self) -> Result<Vec<LayerId>> {
        // Read through a descriptor of its own: the position in a directory belongs to the descriptor.
        let mut ids = Vec::new();
        for (name, kind) in Directory::open(self.path())?.entries()? {
            let Ok(name) = name.to_str() else { continue };
            if kind != FileType::Directory || NOT_LAYERS.contains(&name) {
                continue;
            }
            if let Ok(id) = LayerId::new(name.strip_suffix("-removing").unwrap_or(name)) {
                ids.push(id);
            }
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// The parent that a layer's own files name; None where the layer is only debris.
    pub(crate) fn find(&self, id: &LayerId) -> Result<Option<Found>> {
        let Some(layer) = self.0.enter(id.as_str())? else { return Ok(None) };
        let link = read_link(&layer).ok();
        let linked = match &link {
            Some(link) => self.0.link_target(&link.to_string())?.and_then(|target| owner(&target)),
            None => None,
        };
        if linked.as_ref() != Some(id) {
            return match is_debris(&layer)? {
                true => Ok(None),
                false => Err(Error::new(
                    ErrorKind::Corrupt,
                    "the layer holds files, but its short name in the directory l is missing",
                )
                .with_path(layer.path())),
            };
        }
        let parent = match read_lower(&layer)?.first() {
            None => None,
            Some(link) => {
                let target = self.0.link_target(&link.to_string())?;
                Some(target.and_then(|target| owner(&target)).ok_or_else(|| {
                    Error::new(ErrorKind::Corrupt, format!("the layer below it, {link}, is missing"))
                        .with_path(layer.path().join("lower"))
                })?)
            }
        };
        let sealed = layer.exists("committed")?;
        Ok(Some(Found { directory: layer, parent, sealed }))
    }
}

/// A layer found by its own files.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) directory: Directory,
    pub(crate) parent: Option<LayerId>,
    pub(crate) sealed: bool,
}

/// What a new layer takes from its parent.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) directory: Directory,
    /// The parent and the layers below it, the nearest first.
    pub(crate) stack: Vec<Link>,
}

impl Parent {
    fn stack_text(&self) -> String {
        let links: Vec<_> = self.stack.iter().map(Link::to_string).collect();
        links.join(":")
    }
}

/// A layer's short name: `l/` and 26 capital letters or digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link(String);

impl Link {
    /// 130 random bits, five a letter, as Docker makes them.
    fn random() -> Result<Self> {
        const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut bits = [0_u8; 26];
        let mut filled = 0;
        while filled < bits.len() {
            filled += rustix::rand::getrandom(&mut bits[filled..], GetRandomFlags::empty())
                .map_err(|errno| Error::from_errno(errno, "get random bits"))?;
        }
        Ok(Self(bits.iter().map(|bits| char::from(LETTERS[usize::from(bits % 32)])).collect()))
    }

    /// Checks what a file says. Other tools may have made it, so any name without a meaning in a path is taken.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let good = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        good.then(|| Self(text.to_owned()))
    }

    fn name(&self) -> &str {
        &self.0
    }

    /// The path from the home.
    pub(crate) fn as_path(&self) -> PathBuf {
        Path::new("l").join(&self.0)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l/{}", self.0)
    }
}

/// The short name that a layer's own file gives it.
pub(crate) fn read_link(layer: &Directory) -> Result<Link> {
    let path = || layer.path().join("link");
    let text = layer.read("link")?.ok_or_else(|| missing(&path()))?;
    Link::parse(&text).ok_or_else(|| {
        let shown = text.escape_ascii();
        Error::new(ErrorKind::Corrupt, format!("\"{shown}\" is not the short name of a layer"))
            .with_path(path())
    })
}

/// The layers below a layer, the nearest first; empty without a parent.
pub(crate) fn read_lower(layer: &Directory) -> Result<Vec<Link>> {
    let Some(text) = layer.read("lower")? else { return Ok(Vec::new()) };
    text.split(|byte| *byte == b':')
        .map(|part| {
            part.strip_prefix(b"l/").and_then(Link::parse).ok_or_else(|| {
                let shown = part.escape_ascii();
                Error::new(ErrorKind::Corrupt, format!("\"{shown}\" is not a layer of the form l/NAME"))
                    .with_path(layer.path().join("lower"))
            })
        })
        .collect()
}

/// The id in `../ID/diff`.
fn owner(target: &Path) -> Option<LayerId> {
    let id = target.to_str()?.strip_prefix("../")?.strip_suffix("/diff")?;
    LayerId::new(id).ok()
}

/// Whether nothing would be lost with a layer: it has none but a layer's pieces, and they are empty.
fn is_debris(layer: &Directory) -> Result<bool> {
    let known =
        layer.entries()?.iter().all(|(name, _)| name.to_str().is_ok_and(|name| PIECES.contains(&name)));
    let empty = match layer.enter("diff")? {
        None => true,
        Some(diff) => diff.entries()?.is_empty(),
    };
    Ok(known && empty)
}

fn missing(path: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, "a piece of the layer is missing").with_path(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_random_and_checked() {
        let link = Link::random().unwrap();
        assert_eq!(link.name().len(), 26);
        assert_eq!(Link::parse(link.name().as_bytes()), Some(link.clone()));
        assert_ne!(Link::random().unwrap(), link);
        for bad in [&b""[..], b"..", b"a/b", b"a\n", b"\xff", &[b'A'; 65]] {
            assert_eq!(Link::parse(bad), None);
        }
    }

    #[test]
    fn the_owner_of_a_link_is_an_id_and_nothing_else() {
        assert_eq!(owner(Path::new("../abc/diff")).unwrap().as_str(), "abc");
        for bad in ["/abc/diff", "../../diff", "../a/b/diff", "../abc", "abc/diff"] {
            assert_eq!(owner(Path::new(bad)), None, "{bad}");
        }
    }
}
