//! The database: SQLite in WAL mode, so that several processes can use it at once and any SQLite tool opens it.

mod claims;
mod containers;
mod images;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use layerstack::{Error, ErrorKind, Result};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

pub(crate) use claims::{Item, Work};
pub(crate) use containers::ContainerRow;
pub(crate) use images::{BlobForm, BlobRow, ImageRow, LayerRow, ManifestRow, NewImage, Resolved};

/// The version of the schema that this code writes.
pub(crate) const SCHEMA: u32 = 1;

/// An open database of one store, seen by one driver.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Mutex<Connection>,
    path: PathBuf,
    driver: &'static str,
}

/// What a transaction works with.
pub(crate) struct Transaction<'a> {
    sql: rusqlite::Transaction<'a>,
    driver: &'static str,
}

/// Why a transaction did not succeed: kept apart from [`Error`] so that `?` takes both.
pub(crate) enum Failure {
    Sql(rusqlite::Error),
    Store(Error),
}

/// The result of what runs in a transaction.
pub(crate) type Outcome<T> = std::result::Result<T, Failure>;

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Database {
    /// Opens the database, making it where it is absent.
    ///
    /// # Errors
    /// `Unsupported` for a database of a newer version, `Corrupt` for what is no database.
    pub(crate) fn open(path: &Path, driver: &'static str) -> Result<Self> {
        // SQLite does not wait where two connections turn a new database to WAL at once: one of them fails as locked.
        let turn = path.parent().unwrap_or(Path::new("."));
        let turn = File::open(turn)
            .and_then(|turn| turn.lock().map(|()| turn))
            .map_err(|error| Error::from_io(error, "lock the store's directory").with_path(turn))?;
        let open = || -> Outcome<Connection> {
            let mut connection = Connection::open(path)?;
            // A transaction takes milliseconds; whoever waits longer waits for a stopped process.
            connection.busy_timeout(Duration::from_secs(60))?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            // A commit is on the disk when it returns: what names an image must not be lost before its layers are.
            connection.pragma_update(None, "synchronous", "full")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            let sql = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let version: u32 = sql.pragma_query_value(None, "user_version", |row| row.get(0))?;
            match version {
                0 => {
                    sql.execute_batch(include_str!("schema.sql"))?;
                    sql.pragma_update(None, "user_version", SCHEMA)?;
                }
                SCHEMA => {}
                newer => {
                    return Err(Failure::Store(Error::new(
                        ErrorKind::Unsupported,
                        format!(
                            "the store's database has version {newer}, this program knows version {SCHEMA}: use the newer program"
                        ),
                    )));
                }
            }
            sql.commit()?;
            Ok(connection)
        };
        let connection = open().map_err(|failure| translate(failure).with_path(path))?;
        drop(turn);
        Ok(Self { connection: Mutex::new(connection), path: path.to_owned(), driver })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on one consistent state of the database.
    ///
    /// # Errors
    /// What `work` gives, or the database.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Outcome<T>) -> Result<T> {
        self.run(TransactionBehavior::Deferred, work)
    }

    /// Runs `work` with the right to write. All that it does is done when this returns, or nothing of it.
    ///
    /// # Errors
    /// What `work` gives, or the database.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Outcome<T>) -> Result<T> {
        self.run(TransactionBehavior::Immediate, work)
    }

    fn run<T>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Outcome<T>,
    ) -> Result<T> {
        // A thread that panicked left no half transaction: dropping one rolls it back.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || -> Outcome<T> {
            let sql = connection.transaction_with_behavior(behavior)?;
            let transaction = Transaction { sql, driver: self.driver };
            let result = work(&transaction)?;
            transaction.sql.commit()?;
            Ok(result)
        };
        run().map_err(translate)
    }
}

impl Transaction<'_> {
    /// The time of the transaction, in seconds since the epoch.
    pub(crate) fn now(&self) -> Outcome<i64> {
        Ok(self.sql.query_row("SELECT unixepoch()", [], |row| row.get(0))?)
    }

    /// The time of the transaction as RFC 3339 has it.
    pub(crate) fn now_text(&self) -> Outcome<String> {
        Ok(self.sql.query_row("SELECT strftime('%Y-%m-%dT%H:%M:%fZ')", [], |row| row.get(0))?)
    }

    /// A time as RFC 3339 has it in seconds since the epoch; None where it is no such time.
    pub(crate) fn seconds(&self, time: Option<&str>) -> Outcome<Option<i64>> {
        Ok(self.sql.query_row("SELECT unixepoch(?1)", [time], |row| row.get(0))?)
    }

    /// What SQLite finds wrong with its own file, and references that lead nowhere.
    pub(crate) fn problems(&self) -> Outcome<Vec<String>> {
        let mut problems = Vec::new();
        let mut statement = self.sql.prepare("PRAGMA quick_check")?;
        for line in statement.query_map([], |row| row.get::<_, String>(0))? {
            problems.extend(Some(line?).filter(|line| line != "ok"));
        }
        let mut statement = self.sql.prepare("PRAGMA foreign_key_check")?;
        for table in statement.query_map([], |row| row.get::<_, String>(0))? {
            problems.push(format!("a row of the table {} refers to nothing", table?));
        }
        Ok(problems)
    }

    fn count(&self, table: &'static str) -> Outcome<u64> {
        Ok(self.sql.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
    }

    /// How many images, names and containers there are.
    pub(crate) fn counts(&self) -> Outcome<(u64, u64, u64)> {
        Ok((self.count("images")?, self.count("names")?, self.count("containers")?))
    }
}

fn translate(failure: Failure) -> Error {
    let error = match failure {
        Failure::Store(error) => return error,
        Failure::Sql(error) => error,
    };
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::InUse,
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => ErrorKind::PermissionDenied,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        _ => ErrorKind::Other,
    };
    Error::new(kind, "use the store's database").with_source(error)
}

/// A value that a row must hold in a certain form: a digest, an id.
fn parsed<T>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err = Error>,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error: Error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_a_newer_version_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("store.db");
        drop(Database::open(&path, "vfs").unwrap());
        drop(Database::open(&path, "vfs").unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
        let error = Database::open(&path, "vfs").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("version 7"), "{error}");
    }

    #[test]
    fn what_is_no_database_is_corrupt() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("store.db");
        std::fs::write(&path, vec![b'x'; 4096]).unwrap();
        assert_eq!(Database::open(&path, "vfs").unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
