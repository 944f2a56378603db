//! What a victim does until it is killed.

use std::collections::BTreeSet;
use std::io::{self, Read};

use fastrand::Rng;
use layerstack_core::options::Options;

use super::content::{Name, Role};
use super::judge::Judgement;
use super::{flush, say};
use crate::case::Verdict;
use crate::scene::{edit, id};
use crate::subject::Subject;

/// Sealed layers beyond which more are removed than made, so that judging them stays short.
const MANY: usize = 16;

/// A victim at work.
#[derive(Debug)]
pub(super) struct Work<'a> {
    layers: &'a dyn Subject,
    round: u32,
    random: Rng,
    sealed: BTreeSet<String>,
    /// Layers that are not sealed.
    others: BTreeSet<String>,
    /// Removed, and the disk need not have it.
    removed: Vec<String>,
}

impl<'a> Work<'a> {
    pub(super) fn new(layers: &'a dyn Subject, round: u32, seed: u64, found: Judgement) -> Self {
        let random = Rng::with_seed(seed);
        Self { layers, round, random, sealed: found.sealed, others: found.others, removed: Vec::new() }
    }

    /// Makes and removes layers for ever.
    pub(super) fn go_on(&mut self) -> Verdict {
        for name in self.others.clone() {
            self.remove(&name)?;
        }
        for number in 0.. {
            let image = Name { role: Role::Image, round: self.round, number };
            self.make_image(image)?;
            // The unmount of some drivers flushes all there is, and most of what is made must be met without that.
            if self.random.u8(..4) == 0 {
                self.make_commit(Name { role: Role::Commit, ..image })?;
            }
            if self.random.u8(..4) == 0 {
                self.make_container(Name { role: Role::Container, ..image })?;
            }
            while self.sealed.len() > MANY || self.random.u8(..3) == 0 {
                // The next image stands on the last.
                if !self.remove_one(&image.to_string())? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Removes all layers, and has it on the disk.
    pub(super) fn remove_all(&mut self) -> Verdict {
        while self.remove_one("")? {}
        self.flush()
    }

    /// Makes a sealed layer of a tar: in one call, or in three.
    fn make_image(&mut self, image: Name) -> Verdict {
        let (name, parent, tar) = (image.to_string(), image.parent(), image.tar());
        let parent = parent.map(|parent| id(&parent.to_string()));
        say("creating", &name)?;
        let mut tar = Told { tar: &tar, name: &name, begun: false };
        if self.random.bool() {
            self.layers.import(&id(&name), parent.as_ref(), &mut tar, &mut |_| Ok(()))?;
        } else {
            self.layers.create(&id(&name), parent.as_ref(), &Options::new())?;
            self.layers.apply(&id(&name), &mut tar)?;
            self.layers.seal(&id(&name))?;
        }
        self.note_sealed(name)
    }

    /// Makes a sealed layer that was written through a mount.
    fn make_commit(&mut self, commit: Name) -> Verdict {
        let name = commit.to_string();
        let parent = commit.parent().map(|parent| id(&parent.to_string()));
        say("creating", &name)?;
        self.layers.create(&id(&name), parent.as_ref(), &Options::new())?;
        say("writing", &name)?;
        edit(self.layers, &name, |root| commit.write(root))?;
        say("sealing", &name)?;
        self.layers.seal(&id(&name))?;
        self.note_sealed(name)
    }

    /// Makes a container on any image, old or new, and removes it at once, or not.
    fn make_container(&mut self, container: Name) -> Verdict {
        let name = container.to_string();
        let Some(parent) = self.random.choice(&self.sealed) else { return Ok(()) };
        say("creating", &name)?;
        self.layers.create(&id(&name), Some(&id(parent)), &Options::new())?;
        say("writing", &name)?;
        edit(self.layers, &name, |root| container.write(root))?;
        self.others.insert(name.clone());
        if self.random.bool() { self.remove(&name) } else { Ok(()) }
    }

    fn note_sealed(&mut self, name: String) -> Verdict {
        say("sealed", &name)?;
        self.sealed.insert(name);
        Ok(())
    }

    /// Removes some layer that nothing stands on and that is not the one named. False where there is none.
    fn remove_one(&mut self, but: &str) -> Verdict<bool> {
        let mut names: Vec<String> = self.sealed.union(&self.others).cloned().collect();
        self.random.shuffle(&mut names);
        for name in names.iter().filter(|name| *name != but) {
            if self.layers.children(&id(name))?.is_empty() {
                return self.remove(name).map(|()| true);
            }
        }
        Ok(false)
    }

    fn remove(&mut self, name: &str) -> Verdict {
        say("removing", name)?;
        self.layers.remove(&id(name))?;
        self.sealed.remove(name);
        self.others.remove(name);
        self.removed.push(name.to_owned());
        // That a layer is gone is promised by no call, so nothing is promised before the disk has it. That is seldom, for
        // it has with it all that was made meanwhile.
        if self.random.u8(..16) == 0 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Verdict {
        flush(self.layers.root())?;
        for name in self.removed.drain(..) {
            say("gone", name)?;
        }
        Ok(())
    }
}

/// A tar that says when it is being read, and when no more of it is left.
struct Told<'a> {
    tar: &'a [u8],
    name: &'a str,
    begun: bool,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.begun {
            self.begun = true;
            say("applying", self.name)?;
        }
        let count = self.tar.read(buffer)?;
        if count > 0 && self.tar.is_empty() {
            say("sealing", self.name)?;
        }
        Ok(count)
    }
}
