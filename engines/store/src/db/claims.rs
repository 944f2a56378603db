//! Claims: who is working on which layer or blob, so that nothing goes away under an operation that needs it.
//!
//! The rules are in the schema: any number of owners may use an item, one may make or remove it, and nothing that
//! an image or a container refers to, or that another owner uses, is removed.

use std::fmt;

use layerstack::{Error, ErrorKind, LayerId};
use rusqlite::{OptionalExtension, params};

use super::{Outcome, Transaction, parsed};
use crate::digest::Digest;

/// A thing that operations work on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Item {
    /// A layer of the driver.
    Layer(LayerId),
    /// A blob's file in the store.
    Blob(Digest),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(id) => write!(f, "layer {id}"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
        }
    }
}

/// What an owner does to an item that no other may touch meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Make,
    Remove,
}

impl Work {
    fn as_str(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Remove => "remove",
        }
    }
}

impl Transaction<'_> {
    fn key(&self, item: &Item) -> String {
        match item {
            Item::Layer(id) => format!("layer:{}:{id}", self.driver),
            Item::Blob(digest) => format!("blob:{digest}"),
        }
    }

    /// The item of a key; None for a layer of another driver.
    fn item(&self, key: &str) -> Outcome<Option<Item>> {
        let item = match key.split_once(':') {
            Some(("layer", rest)) => match rest.split_once(':') {
                Some((driver, id)) if driver == self.driver => Some(Item::Layer(id.parse()?)),
                Some(_) => None,
                None => return Err(unknown(key)),
            },
            Some(("blob", digest)) => Some(Item::Blob(digest.parse()?)),
            _ => return Err(unknown(key)),
        };
        Ok(item)
    }

    /// The owner that is removing an item, if it is another than `owner`.
    pub(crate) fn remover(&self, owner: &str, item: &Item) -> Outcome<Option<String>> {
        let sql = "SELECT owner FROM claims WHERE item = ?1 AND kind = 'remove' AND owner <> ?2";
        Ok(self.sql.query_row(sql, [self.key(item).as_str(), owner], |row| row.get(0)).optional()?)
    }

    /// Claims the use of an item, unless somebody is removing it: then it returns that owner.
    pub(crate) fn claim_use(&self, owner: &str, item: &Item) -> Outcome<Option<String>> {
        let remover = self.remover(owner, item)?;
        if remover.is_none() {
            self.sql.execute(
                "INSERT INTO claims (item, owner, kind) VALUES (?1, ?2, 'use') ON CONFLICT DO NOTHING",
                [self.key(item).as_str(), owner],
            )?;
        }
        Ok(remover)
    }

    /// Claims an item for making or removing it, unless another works on it: then it returns that owner.
    pub(crate) fn claim_work(&self, owner: &str, item: &Item, work: Work) -> Outcome<Option<String>> {
        let key = self.key(item);
        let worker: Option<String> = self
            .sql
            .query_row(
                "SELECT owner FROM claims WHERE item = ?1 AND kind <> 'use' AND owner <> ?2",
                [key.as_str(), owner],
                |row| row.get(0),
            )
            .optional()?;
        if worker.is_none() {
            self.sql.execute(
                "INSERT INTO claims (item, owner, kind) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                [key.as_str(), owner, work.as_str()],
            )?;
        }
        Ok(worker)
    }

    /// Gives up the work on an item; a claim of its use stays.
    pub(crate) fn release_work(&self, owner: &str, item: &Item) -> Outcome<()> {
        self.sql.execute(
            "DELETE FROM claims WHERE item = ?1 AND owner = ?2 AND kind <> 'use'",
            [self.key(item).as_str(), owner],
        )?;
        Ok(())
    }

    /// The items that an owner claims, those of other drivers left out.
    pub(crate) fn claimed(&self, owner: &str) -> Outcome<Vec<Item>> {
        let mut statement = self.sql.prepare_cached("SELECT DISTINCT item FROM claims WHERE owner = ?1")?;
        let keys = statement.query_map([owner], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        let mut items = Vec::new();
        for key in keys {
            items.extend(self.item(&key)?);
        }
        Ok(items)
    }

    /// Drops the claims of an owner on these items.
    pub(crate) fn release(&self, owner: &str, items: &[Item]) -> Outcome<()> {
        for item in items {
            let key = self.key(item);
            self.sql.execute("DELETE FROM claims WHERE item = ?1 AND owner = ?2", [key.as_str(), owner])?;
        }
        Ok(())
    }

    /// The owners of any claims.
    pub(crate) fn owners(&self) -> Outcome<Vec<String>> {
        let mut statement = self.sql.prepare_cached("SELECT DISTINCT owner FROM claims")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// Whether an owner has any claim left, on items of other drivers too.
    pub(crate) fn has_claims(&self, owner: &str) -> Outcome<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM claims WHERE owner = ?1)";
        Ok(self.sql.query_row(sql, [owner], |row| row.get(0))?)
    }

    /// Whether the store made an item, nothing refers to it, and nobody but `owner` claims it.
    pub(crate) fn is_garbage(&self, owner: &str, item: &Item) -> Outcome<bool> {
        let claimed: bool = self.sql.query_row(
            "SELECT EXISTS (SELECT 1 FROM claims WHERE item = ?1 AND owner <> ?2)",
            [self.key(item).as_str(), owner],
            |row| row.get(0),
        )?;
        let ours = match item {
            Item::Layer(id) => self.is_noted(id)?,
            Item::Blob(_) => true,
        };
        Ok(ours && !claimed && !self.is_referenced(item)?)
    }

    /// Whether an image or a container refers to an item.
    pub(crate) fn is_referenced(&self, item: &Item) -> Outcome<bool> {
        Ok(match item {
            Item::Layer(id) => self.sql.query_row(
                "SELECT EXISTS (SELECT 1 FROM image_layers WHERE layer = ?1)
                     OR EXISTS (SELECT 1 FROM containers WHERE id = ?1)",
                [id.as_str()],
                |row| row.get(0),
            )?,
            // A blob is needed for itself, and for its plain tar where that is not kept in another way.
            Item::Blob(digest) => self.sql.query_row(
                "SELECT EXISTS (SELECT 1 FROM manifest_blobs WHERE blob = ?1)
                     OR EXISTS (SELECT 1 FROM blobs JOIN manifest_blobs ON blob = diff_id
                                WHERE digest = ?1
                                AND NOT EXISTS (SELECT 1 FROM blobs plain WHERE plain.digest = blobs.diff_id))",
                [digest.as_str()],
                |row| row.get(0),
            )?,
        })
    }

    /// Notes that the store makes a layer.
    pub(crate) fn note_layer(&self, id: &LayerId) -> Outcome<()> {
        self.sql.execute(
            "INSERT INTO layers (driver, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            [self.driver, id.as_str()],
        )?;
        Ok(())
    }

    /// Whether the store made a layer.
    pub(crate) fn is_noted(&self, id: &LayerId) -> Outcome<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM layers WHERE driver = ?1 AND id = ?2)";
        Ok(self.sql.query_row(sql, [self.driver, id.as_str()], |row| row.get(0))?)
    }

    /// Removes the containers whose layers an owner is removing.
    pub(crate) fn delete_containers_being_removed(&self, owner: &str) -> Outcome<()> {
        self.sql.execute(
            "DELETE FROM containers WHERE 'layer:' || driver || ':' || id IN
                 (SELECT item FROM claims WHERE owner = ?1 AND kind = 'remove')",
            [owner],
        )?;
        Ok(())
    }

    /// Forgets what is noted of an item that is gone.
    pub(crate) fn forget(&self, item: &Item) -> Outcome<()> {
        match item {
            Item::Layer(id) => self.sql.execute(
                "DELETE FROM layers WHERE driver = ?1 AND id = ?2",
                params![self.driver, id.as_str()],
            )?,
            Item::Blob(digest) => {
                self.sql.execute("DELETE FROM blobs WHERE digest = ?1", [digest.as_str()])?
            }
        };
        Ok(())
    }

    /// The layers that the store made with this driver.
    pub(crate) fn noted_layers(&self) -> Outcome<Vec<LayerId>> {
        let mut statement = self.sql.prepare_cached("SELECT id FROM layers WHERE driver = ?1")?;
        Ok(statement.query_map([self.driver], |row| parsed(row, 0))?.collect::<Result<_, _>>()?)
    }
}

fn unknown(key: &str) -> super::Failure {
    Error::new(ErrorKind::Corrupt, format!("the database has a claim on \"{}\"", key.escape_debug())).into()
}
