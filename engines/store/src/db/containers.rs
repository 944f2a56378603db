//! Containers in the database.

use layerstack::options::Options;
use layerstack::{Error, ErrorKind, LayerId};
use rusqlite::params;

use super::{Outcome, Transaction, parsed};
use crate::digest::Digest;

/// A container as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct ContainerRow {
    pub(crate) id: LayerId,
    pub(crate) name: String,
    pub(crate) image: Digest,
    pub(crate) driver: String,
    pub(crate) created: i64,
    pub(crate) options: Options,
}

impl Transaction<'_> {
    /// All containers, the newest first.
    pub(crate) fn containers(&self) -> Outcome<Vec<ContainerRow>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT id, name, image, driver, created, options FROM containers ORDER BY created DESC, name",
        )?;
        let rows = statement.query_map([], |row| {
            let options: String = row.get(5)?;
            let options = serde_json::from_str(&options).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Text, Box::new(error))
            })?;
            Ok(ContainerRow {
                id: parsed(row, 0)?,
                name: row.get(1)?,
                image: parsed(row, 2)?,
                driver: row.get(3)?,
                created: row.get(4)?,
                options,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The container of this name or id, or whose id starts so.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where several ids start so.
    pub(crate) fn container(&self, reference: &str) -> Outcome<ContainerRow> {
        let mut rows = self.containers()?;
        if let Some(index) = rows.iter().position(|row| row.name == reference || row.id.as_str() == reference)
        {
            return Ok(rows.swap_remove(index));
        }
        rows.retain(|row| !reference.is_empty() && row.id.as_str().starts_with(reference));
        match rows.len() {
            1 => Ok(rows.remove(0)),
            0 => {
                let shown: String = reference.chars().take(140).flat_map(char::escape_debug).collect();
                Err(Error::new(ErrorKind::NotFound, format!("no container \"{shown}\"")).into())
            }
            count => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{count} containers have an id that starts with \"{reference}\""),
            )
            .into()),
        }
    }

    /// Adds a container.
    ///
    /// # Errors
    /// `AlreadyExists` where another has its name, `NotFound` where its image is gone.
    pub(crate) fn add_container(&self, row: &ContainerRow) -> Outcome<()> {
        self.check_container_name(&row.name)?;
        self.image(&row.image)?;
        let options = serde_json::to_string(&row.options)
            .map_err(|error| Error::new(ErrorKind::Other, "write the options").with_source(error))?;
        self.sql.execute(
            "INSERT INTO containers (id, name, image, driver, created, options) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![row.id.as_str(), row.name, row.image.as_str(), row.driver, row.created, options],
        )?;
        Ok(())
    }

    /// # Errors
    /// `AlreadyExists` where a container has this name.
    pub(crate) fn check_container_name(&self, name: &str) -> Outcome<()> {
        let sql = "SELECT EXISTS (SELECT 1 FROM containers WHERE name = ?1)";
        if self.sql.query_row(sql, [name], |row| row.get(0))? {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("a container is named \"{name}\" already"),
            )
            .into());
        }
        Ok(())
    }

    /// Removes a container.
    pub(crate) fn delete_container(&self, id: &LayerId) -> Outcome<()> {
        self.sql.execute("DELETE FROM containers WHERE id = ?1", [id.as_str()])?;
        Ok(())
    }
}
