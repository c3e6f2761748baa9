//! Where templates, guardrails, experiments and executions live: PostgreSQL, or one SQLite file.
//!
//! Both speak the same trait with the same rows as JSON, and one contract test suite runs against
//! both. Only this module knows SQL and its drivers (beside the outbox, which has its own file).

pub mod audit;
mod change;
mod columns;
pub mod erasure;
mod migrations;
pub mod outcomes;
mod pages;
mod postgres;
pub mod report;
pub mod snapshot;
pub mod sources;
mod sqlite;
mod tidy;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::catalog::definitions::Definitions;
use crate::config::Retention;
use crate::execution::Execution;
use crate::results::{ArmLatencies, Collected};
use crate::words::ids::{ExperimentId, Tenant};
use crate::words::telling::without_values;
use audit::{AuditQuery, Chained, Head};
use erasure::{Erased, Erasure, Standing};
use outcomes::{Feedback, Heard, Kept};
use report::{Details, Interval, Report, ReportQuery};

pub use change::{Activation, Change, Done, Expect, Move, Phase, Turn};
pub use columns::Table;
pub use migrations::{Migrated, MigrationState, Step};
pub use pages::{BadCursor, Cursor, ExecutionQuery, NameCursor, Row, RowQuery};
pub use postgres::Postgres;
pub use sqlite::Sqlite;
pub use tidy::Tidied;

/// The local file under the data directory: outbox, last known good catalog, embedded store.
pub const LOCAL_FILE: &str = "chaperone.db";

/// Fewer rows are not worth a thread.
const ROWS_A_THREAD: usize = 2_000;

/// Why the store did not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Cannot be reached, is starting or stopping, or took too long.
    #[error("the database is unavailable: {0}")]
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
    /// Something of the kind is there already.
    #[error("it exists already: {0}")]
    Exists(String),
    /// A row moved since it was read.
    #[error("{table} {id} was changed by someone else meanwhile; read it again")]
    Moved {
        /// The table.
        table: &'static str,
        /// The row.
        id: Uuid,
    },
    /// A migration would lose or break something.
    #[error("{0}")]
    Migration(String),
}

/// Definitions as they were read.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// Of the catalog when they were read.
    pub revision: i64,
    /// Those written since the revision asked for.
    pub definitions: Definitions,
    /// How many there are in all, by [`Table::ALL`]: tells that rows were deleted.
    pub counts: [usize; 3],
    /// Of the rows that were read, if the store has any.
    pub marks: Marks,
}

/// What the store itself says of when a row was written, by id. A row with the same mark is the same,
/// also where no trigger told its revision.
#[derive(Debug, Clone, Default)]
pub struct Marks(HashMap<Uuid, i64>);

impl Marks {
    /// These with `newer` in place of the old ones.
    #[must_use]
    pub fn updated(&self, newer: Self) -> Self {
        let mut all = self.clone();
        all.0.extend(newer.0);
        all
    }
}

/// A unit that was served an arm.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Exposure {
    /// The unit as it was received.
    pub unit: String,
    /// The arm's key.
    pub arm: String,
}

/// What every store can do.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// `postgresql` or `sqlite`, for status and logs.
    fn kind(&self) -> &'static str;

    /// The definitions written after `since` (`None`: all), as of one moment.
    async fn changed(&self, since: Option<i64>) -> Result<Changed, StoreError>;

    /// All definitions but those that are as these marks say, as of one moment.
    async fn differing(&self, marks: &Marks) -> Result<Changed, StoreError>;

    /// A number that grows with every change of a definition.
    async fn revision(&self) -> Result<i64, StoreError>;

    /// Calls `changed` for every announced change until the connection is lost. A store that
    /// announces nothing waits for ever.
    async fn listen(&self, changed: &(dyn Fn() + Send + Sync)) -> Result<(), StoreError>;

    /// A page of definitions by name and version, counters included.
    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, StoreError>;

    /// Carries out a change whole, or not at all: [`StoreError::Moved`] when a row is not as it was
    /// read, [`StoreError::Exists`] when a name is taken.
    async fn commit(&self, change: &Change) -> Result<(), StoreError>;

    /// The moves of a name's pointer to its active version, newest first.
    async fn activations(
        &self,
        tenant: &Tenant,
        name: &str,
        limit: u32,
    ) -> Result<Vec<Activation>, StoreError>;

    /// The phases of an experiment, oldest first.
    async fn phases(&self, experiment: ExperimentId) -> Result<Vec<Phase>, StoreError>;

    /// Which unit was served which arm of an experiment, by the executions that count: at most `limit`.
    async fn exposures(
        &self,
        experiment: ExperimentId,
        limit: u32,
    ) -> Result<Vec<Exposure>, StoreError>;

    /// Entries of the audit.
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<Chained>, StoreError>;

    /// Where the audit's chain ends; `None` on a schema that does not note it yet.
    async fn audit_head(&self) -> Result<Option<Head>, StoreError>;

    /// What was done under an `Idempotency-Key`.
    async fn done(&self, actor: &str, key: &str) -> Result<Option<Done>, StoreError>;

    /// Batches of records that it takes at once, at most.
    fn batches_at_once(&self) -> usize;

    /// Stores executions, each given as its JSON; those already there stay as they are.
    async fn insert_records(&self, records: &[&str]) -> Result<(), StoreError>;

    /// The same of executions.
    async fn insert_executions(&self, batch: &[Execution]) -> Result<(), StoreError> {
        let json = |one: &Execution| {
            serde_json::to_string(one).map_err(|error| StoreError::Refused(error.to_string()))
        };
        let records = batch.iter().map(json).collect::<Result<Vec<_>, _>>()?;
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        self.insert_records(&records).await
    }

    /// Makes room for the executions to come and drops what is too old, or a part of it. Nothing that was
    /// counted is taken back.
    async fn tidy(&self, retention: &Retention, now: Timestamp) -> Result<Tidied, StoreError>;

    /// The orders to erase that stand, oldest first. Those from before `since` end with this: their users
    /// are forgotten.
    async fn erasures(&self, since: Timestamp) -> Result<Vec<Standing>, StoreError>;

    /// Carries out a part of an order that was committed. What was counted stays counted, of nobody.
    async fn erase(&self, erasure: &Erasure) -> Result<Erased, StoreError>;

    /// A page of executions, newest first, as JSON rows.
    async fn executions(&self, query: &ExecutionQuery) -> Result<Vec<Value>, StoreError>;

    /// Executions counted.
    async fn report(&self, query: &ReportQuery) -> Result<Report, StoreError>;

    /// What is counted of executions beside their figures, with a time series if asked for.
    async fn details(
        &self,
        query: &ReportQuery,
        interval: Option<Interval>,
    ) -> Result<Details, StoreError>;

    /// Takes in a word on an execution. The last one on an execution and a key counts.
    async fn feedback(&self, feedback: &Feedback) -> Result<Heard, StoreError>;

    /// What was counted of an experiment.
    async fn collected(&self, experiment: Uuid) -> Result<Collected, StoreError>;

    /// How long the latest calls of an experiment took that count, at most `limit` of all arms together.
    async fn latencies(
        &self,
        experiment: Uuid,
        limit: u32,
    ) -> Result<Vec<ArmLatencies>, StoreError>;

    /// Keeps what an experiment has shown, unless its one look was taken before.
    async fn keep_results(&self, kept: &Kept) -> Result<(), StoreError>;

    /// Experiments of all tenants that run, or that ended after `since`.
    async fn under_way(&self, since: Timestamp) -> Result<Vec<Row>, StoreError>;

    /// Brings the counters of templates and guardrails up to what was counted.
    async fn roll_up(&self) -> Result<(), StoreError>;

    /// Which migrations have run.
    async fn migration_state(&self) -> Result<MigrationState, StoreError>;

    /// Runs what is missing, each migration in one transaction, and puts in the seeds.
    async fn migrate_up(&self) -> Result<Migrated, StoreError>;

    /// Undoes the migrations above `to`, newest first, all in one transaction, after archiving what
    /// would be lost.
    async fn migrate_down(&self, to: i32) -> Result<Migrated, StoreError>;
}

/// Reads a JSON row as a definition, naming it when it does not fit.
fn read<T: serde::de::DeserializeOwned>(table: Table, json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| {
        let row: Value = serde_json::from_str(json).unwrap_or_default();
        let name = row.get("name").and_then(Value::as_str).unwrap_or("without name");
        let id = row.get("id").and_then(Value::as_str).unwrap_or("without id");
        let why = without_values(&error.to_string());
        StoreError::Row { table: table.name(), id: format!("{id} ({name})"), why }
    })
}

impl Changed {
    /// Takes in the rows of a table.
    fn take(&mut self, table: Table, rows: &[impl AsRef<str> + Sync]) -> Result<(), StoreError> {
        match table {
            Table::Templates => self.definitions.templates = read_all(table, rows)?,
            Table::Guardrails => self.definitions.guardrails = read_all(table, rows)?,
            Table::Experiments => self.definitions.experiments = read_all(table, rows)?,
        }
        Ok(())
    }
}

/// Reads rows on all processors: a hundred thousand take half a second on one.
fn read_all<T: serde::de::DeserializeOwned + Send + Sync>(
    table: Table,
    rows: &[impl AsRef<str> + Sync],
) -> Result<Vec<Arc<T>>, StoreError> {
    let read_some = |rows: &[_]| -> Result<Vec<Arc<T>>, StoreError> {
        rows.iter().map(|row: &_| read(table, AsRef::<str>::as_ref(row)).map(Arc::new)).collect()
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let share = rows.len().div_ceil(workers).max(ROWS_A_THREAD);
    if rows.len() <= share {
        return read_some(rows);
    }
    let parts: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            rows.chunks(share).map(|some| scope.spawn(move || read_some(some))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut all = Vec::with_capacity(rows.len());
    for part in parts {
        let failed = |_panicked| StoreError::Refused("reading rows failed".to_owned());
        all.extend(part.map_err(failed)??);
    }
    Ok(all)
}

/// The rows of a table in a set of definitions, as one JSON list.
fn rows_of(puts: &Definitions, table: Table) -> Result<Option<Value>, StoreError> {
    let list = match table {
        Table::Templates => serde_json::to_value(&puts.templates),
        Table::Guardrails => serde_json::to_value(&puts.guardrails),
        Table::Experiments => serde_json::to_value(&puts.experiments),
    };
    let list = list.map_err(|error| StoreError::Refused(error.to_string()))?;
    Ok(Some(list).filter(|list| list.as_array().is_some_and(|rows| !rows.is_empty())))
}

/// Rows from their JSON.
fn counted<T: serde::de::DeserializeOwned>(rows: &[String]) -> Result<Vec<T>, StoreError> {
    rows.iter()
        .map(|json| {
            serde_json::from_str(json).map_err(|error| StoreError::Refused(error.to_string()))
        })
        .collect()
}
