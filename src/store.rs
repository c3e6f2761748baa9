//! Where templates, guardrails, experiments and executions live: PostgreSQL, or one SQLite file.
//!
//! Both speak the same trait with the same rows as JSON, and one contract test suite runs against
//! both. Only this module knows SQL and its drivers (beside the outbox, which has its own file).

mod migrations;
mod pages;
mod postgres;
pub mod snapshot;
pub mod sources;
mod sqlite;
mod tls;

use async_trait::async_trait;
use serde_json::Value;

use crate::catalog::definitions::Definitions;
use crate::execution::Execution;

pub use migrations::{Migrated, MigrationState, Step};
pub use pages::{BadCursor, Cursor, ExecutionQuery};
pub use postgres::Postgres;
pub use sqlite::Sqlite;

/// The local file under the data directory: outbox, last known good catalog, embedded store.
pub const LOCAL_FILE: &str = "chaperone.db";

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Cannot be reached, is starting or stopping, or took too long.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// The local file cannot be used.
    #[error("the local file: {0}")]
    Local(String),
    /// Its tables are not there.
    #[error("the database is not migrated; run `chaperone migrate up`")]
    NotMigrated,
    /// One row does not read as what it should be.
    #[error("{table} {id}: {why}")]
    Row {
        /// The table.
        table: &'static str,
        /// The row.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// It refused a statement.
    #[error("the database refused: {0}")]
    Refused(String),
    /// A migration would lose or break something.
    #[error("{0}")]
    Migration(String),
}

/// What every store can do.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// `postgresql` or `sqlite`, for status and logs.
    fn kind(&self) -> &'static str;

    /// Everything a catalog is compiled from.
    async fn definitions(&self) -> Result<Definitions, StoreError>;

    /// A number that grows with every change of a definition.
    async fn revision(&self) -> Result<i64, StoreError>;

    /// Calls `changed` for every announced change until the connection is lost. A store that
    /// announces nothing waits for ever.
    async fn listen(&self, changed: &(dyn Fn() + Send + Sync)) -> Result<(), StoreError>;

    /// Stores executions; those already there stay as they are.
    async fn insert_executions(&self, batch: &[Execution]) -> Result<(), StoreError>;

    /// A page of executions, newest first, as JSON rows.
    async fn executions(&self, query: &ExecutionQuery) -> Result<Vec<Value>, StoreError>;

    /// Which migrations have run.
    async fn migration_state(&self) -> Result<MigrationState, StoreError>;

    /// Runs what is missing, each migration in one transaction, and puts in the seeds.
    async fn migrate_up(&self) -> Result<Migrated, StoreError>;

    /// Undoes the newest migration after archiving what would be lost.
    async fn migrate_down(&self) -> Result<Migrated, StoreError>;
}

/// Reads JSON rows as definitions, naming the first that does not fit.
fn rows<T: serde::de::DeserializeOwned>(
    table: &'static str,
    rows: impl IntoIterator<Item = Value>,
) -> Result<Vec<T>, StoreError> {
    rows.into_iter()
        .map(|row| {
            let id = row.get("id").and_then(Value::as_str).unwrap_or("without id").to_owned();
            serde_json::from_value(row).map_err(|error| StoreError::Row {
                table,
                id,
                why: error.to_string(),
            })
        })
        .collect()
}
