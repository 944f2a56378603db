//! The store: a root opened, its driver and its database side by side, and reconciled.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstack::options::Options;
use layerstack::registry::OpenRequest;
use layerstack::{Error, ErrorKind, LayerId, Layers, Result};

use crate::db::{Database, Item, SCHEMA, Work};
use crate::kept::Kept;
use crate::model::{Availability, DriverInfo, Info, StoreConfig};
use crate::owner::Owner;

/// Images and containers in one root. Several threads and processes can use it at once.
#[derive(Debug)]
pub struct Store {
    pub(crate) layers: Layers,
    pub(crate) database: Database,
    pub(crate) kept: Kept,
    tmp: PathBuf,
    recovered: Vec<String>,
}

/// How long to wait before looking again whether another process is done with a layer.
const PAUSE: Duration = Duration::from_millis(20);

impl Store {
    /// Opens a root, making it where it is absent, and takes away what operations that were killed left there.
    ///
    /// # Errors
    /// As [`Layers::open`]; `Unsupported` where the database is of a newer version.
    pub fn open(root: &Path, config: &StoreConfig) -> Result<Self> {
        let layers = Layers::open(root, &layerstack::registry()?, &config.layers)?;
        let directory = layers.root().join("store");
        let tmp = directory.join("tmp");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&tmp)
            .map_err(|error| Error::from_io(error, "make the directory").with_path(&tmp))?;
        let kept = Kept::open(&directory)?;
        let database = Database::open(&directory.join("store.db"), layers.driver_name())?;
        let recovered = layers.recovered().iter().map(ToString::to_string).collect();
        let mut store = Self { layers, database, kept, tmp, recovered };
        let swept = store.sweep()?;
        store.recovered.extend(swept);
        Ok(store)
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.layers.root()
    }

    /// The layers of this root, as the driver has them.
    #[must_use]
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// What opening the store found and mended, a sentence each.
    #[must_use]
    pub fn recovered(&self) -> &[String] {
        &self.recovered
    }

    /// What the store has to say of itself.
    ///
    /// # Errors
    /// Where driver or database cannot be asked.
    pub fn info(&self) -> Result<Info> {
        let (images, names, containers) = self.database.read(|tx| tx.counts())?;
        let ids: Vec<LayerId> =
            self.database.read(|tx| tx.containers())?.into_iter().map(|container| container.id).collect();
        let mut mounted: Vec<LayerId> =
            self.layers.mounts(None)?.into_iter().map(|mount| mount.layer).collect();
        mounted.sort();
        mounted.dedup();
        mounted.retain(|layer| ids.contains(layer));
        Ok(Info {
            status: self.layers.status()?,
            capabilities: self.layers.capabilities().clone(),
            images,
            names,
            containers,
            mounted: mounted.len() as u64,
            layers: self.layers.list()?.len() as u64,
            database: self.database.path().to_owned(),
            schema: SCHEMA,
        })
    }

    /// A new operation.
    pub(crate) fn begin(&self) -> Result<Owner> {
        Owner::new(&self.tmp)
    }

    /// Ends an operation: whatever it claimed and nothing refers to now is removed, with its temporary files. What it
    /// made lives on exactly if the operation brought it into the database.
    ///
    /// # Errors
    /// Where something cannot be removed; the next opening tries again.
    pub(crate) fn end(&self, owner: Owner) -> Result<Vec<Item>> {
        let claimed = self.database.read(|tx| tx.claimed(owner.name()))?;
        let removed = self.collect(&owner, &claimed);
        let left = self.database.write(|tx| {
            tx.release(owner.name(), &claimed)?;
            tx.has_claims(owner.name())
        })?;
        // What it claimed of another driver is for whoever opens the root with that one.
        if !left {
            owner.discard()?;
        }
        removed
    }

    /// Runs an operation with an owner of its own and ends it, whether it succeeds or not.
    ///
    /// # Errors
    /// What `work` gives; else what ending the operation gives.
    pub(crate) fn operation<T>(&self, work: impl FnOnce(&Owner) -> Result<T>) -> Result<T> {
        let owner = self.begin()?;
        let result = work(&owner);
        match (result, self.end(owner)) {
            (Ok(value), Ok(_)) => Ok(value),
            (Err(error), ended) => {
                if let Err(second) = ended {
                    tracing::warn!(error = ?second, "what a failed operation left is removed on the next opening");
                }
                Err(error)
            }
            (Ok(_), Err(error)) => Err(error),
        }
    }

    /// Cleans up after dead owners; says what was done. What cannot be removed now is no reason to refuse the store: it
    /// is garbage, and `prune` tries again.
    fn sweep(&self) -> Result<Vec<String>> {
        let mut names = self.database.read(|tx| tx.owners())?;
        names.extend(Owner::list(&self.tmp)?);
        names.sort();
        names.dedup();
        let mut done = Vec::new();
        for name in names {
            if let Some(dead) = Owner::take_over(&self.tmp, &name)? {
                match self.end(dead) {
                    Ok(removed) => done.extend(
                        removed
                            .iter()
                            .map(|item| format!("{item}: left by an operation that was killed; removed")),
                    ),
                    Err(error) => done.push(format!(
                        "left by an operation that was killed, and still there: {}",
                        crate::check::full(&error)
                    )),
                }
            }
        }
        Ok(done)
    }

    /// Removes those of `items` that are garbage: nothing refers to them, and nobody but `owner` claims them. Then the
    /// parents of removed layers likewise. Gives what was removed.
    pub(crate) fn collect(&self, owner: &Owner, items: &[Item]) -> Result<Vec<Item>> {
        let (mut removed, mut items) = (Vec::new(), items.to_vec());
        while !items.is_empty() {
            let round = self.collect_once(owner, &items)?;
            // Whoever is at these may find a child on them that was ours, and so leave them to us.
            for item in &round.others {
                self.wait(|| self.database.read(|tx| tx.remover(owner.name(), item)))?;
            }
            items = round.parents;
            items.extend(round.others);
            removed.extend(round.removed);
        }
        Ok(removed)
    }

    fn collect_once(&self, owner: &Owner, items: &[Item]) -> Result<Round> {
        let mut round = Round::default();
        let garbage = self.database.write(|tx| {
            // Of an owner that died: a container goes before its layer is gone only if that was begun.
            tx.delete_containers_being_removed(owner.name())?;
            let mut garbage = Vec::new();
            for item in items {
                if tx.is_garbage(owner.name(), item)? {
                    tx.release(owner.name(), std::slice::from_ref(item))?;
                    if tx.claim_work(owner.name(), item, Work::Remove)?.is_none() {
                        garbage.push(item.clone());
                    }
                } else if tx.remover(owner.name(), item)?.is_some() {
                    round.others.push(item.clone());
                }
            }
            Ok(garbage)
        })?;
        let mut ordered = Vec::new();
        for item in garbage {
            let (depth, parent) = match &item {
                Item::Layer(id) => {
                    self.layers.layer(id).map_or((0, None), |layer| (layer.depth, layer.parent))
                }
                Item::Blob(_) => (0, None),
            };
            ordered.push((depth, item, parent));
        }
        // Children before their parents.
        ordered.sort_by(|a, b| b.cmp(a));
        let mut first_error = None;
        for (_, item, parent) in ordered {
            let result = self.remove_item(&item);
            layerstack::kill_point!("store.garbage.removed");
            self.database.write(|tx| {
                if result.is_ok() {
                    tx.forget(&item)?;
                }
                tx.release(owner.name(), std::slice::from_ref(&item))
            })?;
            match result {
                Ok(true) => {
                    round.parents.extend(parent.map(Item::Layer).filter(|parent| !items.contains(parent)));
                    round.removed.push(item);
                }
                Ok(false) => {}
                // Somebody else's layer stands on it, which then is why it stays.
                Err(error) if error.kind() == ErrorKind::HasChildren => {}
                // It stays as garbage, for `prune`.
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            None => Ok(round),
            Some(error) => Err(error),
        }
    }

    fn remove_item(&self, item: &Item) -> Result<bool> {
        match item {
            Item::Layer(id) => match self.layers.remove(id) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            },
            Item::Blob(digest) => self.kept.remove(digest),
        }
    }

    /// Claims the use of items, waiting for those that somebody is removing.
    pub(crate) fn claim_use(&self, owner: &Owner, items: &[Item]) -> Result<()> {
        self.wait(|| {
            self.database.write(|tx| {
                for item in items {
                    if let Some(other) = tx.claim_use(owner.name(), item)? {
                        return Ok(Some(other));
                    }
                }
                Ok(None)
            })
        })
    }

    /// Claims an item for making it, waiting for whoever makes or removes it.
    pub(crate) fn claim_making(&self, owner: &Owner, item: &Item) -> Result<()> {
        self.wait(|| {
            self.database.write(|tx| {
                let other = tx.claim_work(owner.name(), item, Work::Make)?;
                if let (None, Item::Layer(id)) = (&other, item) {
                    tx.note_layer(id)?;
                }
                Ok(other)
            })
        })
    }

    /// Tries until nobody else is in the way.
    fn wait(&self, mut attempt: impl FnMut() -> Result<Option<String>>) -> Result<()> {
        while let Some(other) = attempt()? {
            match Owner::take_over(&self.tmp, &other)? {
                Some(dead) => {
                    self.end(dead)?;
                }
                None => std::thread::sleep(PAUSE),
            }
        }
        Ok(())
    }
}

/// What came of one look at items that may be garbage.
#[derive(Debug, Default)]
struct Round {
    removed: Vec<Item>,
    /// The parents of removed layers, which may be garbage by that.
    parents: Vec<Item>,
    /// Those that somebody else is removing.
    others: Vec<Item>,
}

/// The drivers that are compiled in, by name, and whether each works in a root.
///
/// # Errors
/// Where two drivers have one name.
pub fn drivers(root: &Path, options: &Options) -> Result<Vec<DriverInfo>> {
    let root =
        std::path::absolute(root).map_err(|error| Error::from_io(error, "find the root").with_path(root))?;
    let probe = |registration: &'static layerstack::registry::Registration| {
        let own = Options::parse(
            options
                .iter()
                .filter(|(key, _)| registration.options.iter().any(|known| known.name == *key))
                .map(|(key, value)| format!("{key}={value}")),
        )?;
        (registration.probe)(&OpenRequest::new(&root.join(registration.name), &own))
    };
    Ok(layerstack::registry()?
        .iter()
        .map(|registration| DriverInfo {
            name: registration.name,
            summary: registration.summary,
            rank: registration.rank,
            availability: match probe(registration) {
                Ok(()) => Availability::Yes,
                Err(error) => {
                    Availability::No { kind: error.kind().as_str(), reason: crate::check::full(&error) }
                }
            },
        })
        .collect())
}
