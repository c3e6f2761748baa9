//! The embedded default: one SQLite file under the data directory.
//!
//! One connection writes, one reads; calls run on the blocking pool. SQLite announces nothing: this
//! process is the only writer and knows its own changes.

mod details;
mod erasure;
mod migrate;
mod outcomes;
mod report;
mod sql;
mod tidy;
mod write;

use std::future::pending;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value as Field;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params, params_from_iter};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::audit::{self, AuditQuery, Chained, Head};
use super::erasure::{Erased, Erasure, Standing};
use super::migrations::{Migrated, MigrationState};
use super::outcomes::{Feedback, Heard, Kept};
use super::report::{Details, Interval, Report, ReportQuery};
use super::{
    Activation, Change, Changed, Done, ExecutionQuery, Exposure, LOCAL_FILE, Marks, Phase, Row,
    RowQuery, Store, StoreError, Table, Tidied,
};
use crate::config::Retention;
use crate::results::{ArmLatencies, Collected};
use crate::words::ids::{ExperimentId, Tenant};

/// The outbox writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// `SQLITE_CONSTRAINT_PRIMARYKEY` and `SQLITE_CONSTRAINT_UNIQUE`.
const KEY_VIOLATIONS: [i32; 2] = [1555, 2067];

/// The embedded store.
#[derive(Debug, Clone)]
pub struct Sqlite {
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
    /// For the catalog alone: it must not wait for a long list.
    catalog: Arc<Mutex<Connection>>,
}

/// Opens the local file for any of its uses.
pub(super) fn open(data_dir: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open(data_dir.join(LOCAL_FILE)).map_err(|error| from_driver(&error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| from_driver(&error))?;
    connection
        .execute_batch(
            "pragma journal_mode = wal; pragma synchronous = normal; pragma foreign_keys = on;",
        )
        .and_then(|()| add_logarithm(&connection))
        .map_err(|error| from_driver(&error))?;
    Ok(connection)
}

/// The bundled SQLite is built without mathematics; what counts executions takes logarithms.
fn add_logarithm(connection: &Connection) -> rusqlite::Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("ln", 1, pure, |context| Ok(context.get::<f64>(0)?.ln()))
}

impl Sqlite {
    /// Opens the file, making it if need be.
    pub fn new(data_dir: &Path) -> Result<Self, StoreError> {
        let connection = || open(data_dir).map(|one| Arc::new(Mutex::new(one)));
        Ok(Self { writer: connection()?, reader: connection()?, catalog: connection()? })
    }

    async fn on<T: Send + 'static>(
        connection: &Arc<Mutex<Connection>>,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = connection.clone();
        let done = tokio::task::spawn_blocking(move || {
            // A panic while holding it left at most a transaction that was rolled back.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection)
        });
        done.await.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        Self::on(&self.reader, |connection| work(connection).map_err(|error| from_driver(&error)))
            .await
    }
}

#[async_trait]
impl Store for Sqlite {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    async fn changed(&self, since: Option<i64>) -> Result<Changed, StoreError> {
        Self::on(&self.catalog, move |connection| changed(connection, since)).await
    }

    /// Everything: its rows have no marks, and are near.
    async fn differing(&self, _marks: &Marks) -> Result<Changed, StoreError> {
        self.changed(None).await
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        Self::on(&self.catalog, |connection| {
            let revision = connection.query_row(sql::REVISION, [], |row| row.get(0));
            revision.map_err(|error| from_driver(&error))
        })
        .await
    }

    async fn listen(&self, _changed: &(dyn Fn() + Send + Sync)) -> Result<(), StoreError> {
        pending().await
    }

    /// There is one writer.
    fn batches_at_once(&self) -> usize {
        1
    }

    async fn insert_records(&self, records: &[&str]) -> Result<(), StoreError> {
        let rows = records.iter().map(|record| row(record)).collect::<Result<Vec<_>, _>>()?;
        Self::on(&self.writer, move |connection| {
            insert(connection, rows).map_err(|error| from_driver(&error))
        })
        .await
    }

    async fn tidy(&self, retention: &Retention, now: Timestamp) -> Result<Tidied, StoreError> {
        let oldest = super::tidy::oldest_kept(retention, now).map(|at| format!("{at:.6}"));
        let bytes_max = retention.embedded_bytes_max;
        Self::on(&self.writer, move |connection| {
            let tidied = tidy::tidy(connection, oldest.as_deref(), bytes_max);
            tidied.map_err(|error| from_driver(&error))
        })
        .await
    }

    async fn erasures(&self, since: Timestamp) -> Result<Vec<Standing>, StoreError> {
        Self::on(&self.writer, move |connection| {
            erasure::standing(connection, since).map_err(|error| from_driver(&error))
        })
        .await
    }

    async fn erase(&self, erasure: &Erasure) -> Result<Erased, StoreError> {
        let erasure = erasure.clone();
        Self::on(&self.writer, move |connection| {
            erasure::erase(connection, &erasure).map_err(|error| from_driver(&error))
        })
        .await
    }

    async fn executions(&self, query: &ExecutionQuery) -> Result<Vec<Value>, StoreError> {
        let query = query.clone();
        self.read(move |connection| {
            let after = query.after;
            json_rows(
                connection,
                sql::EXECUTIONS,
                params![
                    query.tenant.to_string(),
                    after.map(|cursor| format!("{:.6}", cursor.created_at)),
                    after.map(|cursor| cursor.id.to_string()),
                    query.template,
                    query.user,
                    query.outcome,
                    query.id.map(|id| id.to_string()),
                    query.limit,
                ],
            )
        })
        .await
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, StoreError> {
        let query = query.clone();
        let texts = self
            .read(move |connection| {
                let params = params![
                    query.tenant.to_string(),
                    query.id.map(|id| id.to_string()),
                    query.name,
                    query.state,
                    query.group,
                    query.tag,
                    query.after.as_ref().map(|after| &after.name),
                    query.after.as_ref().map(|after| after.version),
                    query.limit,
                ];
                texts(connection, &sql::rows(&query), params)
            })
            .await?;
        texts.iter().map(|json| Row::read(json)).collect()
    }

    async fn commit(&self, change: &Change) -> Result<(), StoreError> {
        let change = change.clone();
        Self::on(&self.writer, move |connection| write::write(connection, &change)).await
    }

    async fn activations(
        &self,
        tenant: &Tenant,
        name: &str,
        limit: u32,
    ) -> Result<Vec<Activation>, StoreError> {
        let (tenant, name) = (tenant.to_string(), name.to_owned());
        let rows = self
            .read(move |connection| {
                texts(connection, sql::ACTIVATIONS, params![tenant, name, limit])
            })
            .await?;
        super::counted(&rows)
    }

    async fn phases(&self, experiment: ExperimentId) -> Result<Vec<Phase>, StoreError> {
        let id = experiment.to_string();
        super::counted(&self.read(move |one| texts(one, sql::PHASES, [id])).await?)
    }

    async fn exposures(
        &self,
        experiment: ExperimentId,
        limit: u32,
    ) -> Result<Vec<Exposure>, StoreError> {
        let id = experiment.to_string();
        let rows = self.read(move |one| texts(one, sql::EXPOSURES, params![id, limit])).await?;
        super::counted(&rows)
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<Chained>, StoreError> {
        let query = query.clone();
        self.read(move |connection| {
            let params = params![
                query.tenant.as_ref().map(ToString::to_string),
                query.object_type,
                query.object_id,
                query.actor,
                query.before,
                query.after,
                query.limit,
            ];
            let mut statement = connection.prepare_cached(&sql::audit(&query))?;
            let rows = statement.query_map(params, chained)?;
            rows.collect()
        })
        .await
    }

    async fn audit_head(&self) -> Result<Option<Head>, StoreError> {
        let read = self.read(|connection| {
            let head = |row: &rusqlite::Row<'_>| {
                Ok(Head { entries: row.get(0)?, sequence: row.get(1)?, hash: row.get(2)? })
            };
            connection.query_row(audit::HEAD, [], head).optional()
        });
        match read.await {
            Err(StoreError::NotMigrated) => Ok(None),
            read => read,
        }
    }

    async fn done(&self, actor: &str, key: &str) -> Result<Option<Done>, StoreError> {
        let (actor, key) = (actor.to_owned(), key.to_owned());
        self.read(move |connection| {
            connection
                .query_row(sql::DONE, [&actor, &key], |row| {
                    Ok(Done {
                        actor: actor.clone(),
                        key: key.clone(),
                        fingerprint: row.get(0)?,
                        status: row.get(1)?,
                        object_id: row.get(2)?,
                    })
                })
                .optional()
        })
        .await
    }

    async fn report(&self, query: &ReportQuery) -> Result<Report, StoreError> {
        let query = query.clone();
        Self::on(&self.reader, move |connection| report::count(connection, &query)).await
    }

    async fn details(
        &self,
        query: &ReportQuery,
        interval: Option<Interval>,
    ) -> Result<Details, StoreError> {
        let query = query.clone();
        Self::on(&self.reader, move |connection| details::detail(connection, &query, interval))
            .await
    }

    async fn feedback(&self, feedback: &Feedback) -> Result<Heard, StoreError> {
        let feedback = feedback.clone();
        Self::on(&self.writer, move |connection| outcomes::hear(connection, &feedback)).await
    }

    async fn collected(&self, experiment: Uuid) -> Result<Collected, StoreError> {
        Self::on(&self.reader, move |connection| outcomes::collect(connection, experiment)).await
    }

    async fn latencies(
        &self,
        experiment: Uuid,
        limit: u32,
    ) -> Result<Vec<ArmLatencies>, StoreError> {
        Self::on(&self.reader, move |one| outcomes::sample(one, experiment, limit)).await
    }

    async fn keep_results(&self, kept: &Kept) -> Result<(), StoreError> {
        let kept = kept.clone();
        Self::on(&self.writer, move |connection| {
            outcomes::keep(connection, &kept).map_err(|error| from_driver(&error))
        })
        .await
    }

    async fn under_way(&self, since: Timestamp) -> Result<Vec<Row>, StoreError> {
        let rows = self
            .read(move |connection| texts(connection, &sql::under_way(), [format!("{since:.6}")]))
            .await?;
        rows.iter().map(|json| Row::read(json)).collect()
    }

    async fn roll_up(&self) -> Result<(), StoreError> {
        Self::on(&self.writer, |connection| {
            outcomes::count_up(connection).map_err(|error| from_driver(&error))
        })
        .await
    }

    async fn migration_state(&self) -> Result<MigrationState, StoreError> {
        Self::on(&self.writer, |connection| migrate::state(connection)).await
    }

    async fn migrate_up(&self) -> Result<Migrated, StoreError> {
        Self::on(&self.writer, migrate::up).await
    }

    async fn migrate_down(&self, to: i32) -> Result<Migrated, StoreError> {
        Self::on(&self.writer, move |connection| migrate::down(connection, to)).await
    }
}

/// Reads in one transaction, and so as of one moment.
fn changed(connection: &mut Connection, since: Option<i64>) -> Result<Changed, StoreError> {
    let driver = |error: rusqlite::Error| from_driver(&error);
    let transaction = connection.transaction().map_err(driver)?;
    let mut changed = Changed {
        revision: transaction.query_row(sql::REVISION, [], |row| row.get(0)).map_err(driver)?,
        ..Changed::default()
    };
    for (table, count) in Table::ALL.into_iter().zip(0..) {
        let since = [since.unwrap_or(-1)];
        let rows = texts(&transaction, &sql::changed(table), since).map_err(driver)?;
        changed.take(table, &rows)?;
        let counted = transaction.query_row(&sql::count(table), [], |row| row.get(0));
        if let Some(place) = changed.counts.get_mut::<usize>(count) {
            *place = counted.map_err(driver)?;
        }
    }
    Ok(changed)
}

fn chained(row: &rusqlite::Row<'_>) -> rusqlite::Result<Chained> {
    let id: String = row.get(1)?;
    Ok(Chained {
        sequence: row.get(0)?,
        id: id.parse().unwrap_or_default(),
        tenant_id: row.get(2)?,
        at: row.get(3)?,
        actor: row.get(4)?,
        action: row.get(5)?,
        object_type: row.get(6)?,
        object_id: row.get(7)?,
        before: audit::raw(row.get(8)?),
        after: audit::raw(row.get(9)?),
        reason: row.get(10)?,
        request_id: row.get(11)?,
        previous_hash: row.get(12)?,
        hash: row.get(13)?,
    })
}

fn insert(connection: &mut Connection, rows: Vec<Vec<Field>>) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut statement = transaction.prepare_cached(sql::INSERT_EXECUTION)?;
        for row in rows {
            statement.execute(params_from_iter(row))?;
        }
    }
    transaction.commit()
}

/// The fields of an execution in the order of the columns.
fn row(record: &str) -> Result<Vec<Field>, StoreError> {
    let mut members: Map<String, Value> = serde_json::from_str(record)
        .map_err(|_quotes_it| StoreError::Refused("it is no JSON object".to_owned()))?;
    let field = |name: &&str| {
        let value = members.get_mut(*name).map(Value::take).unwrap_or_default();
        if value.is_null() {
            Field::Null
        } else if sql::JSON_COLUMNS.contains(name) {
            Field::Text(value.to_string())
        } else {
            plain(value)
        }
    };
    Ok(sql::EXECUTION_COLUMNS.iter().map(field).collect())
}

fn plain(value: Value) -> Field {
    match value {
        Value::Null => Field::Null,
        Value::Bool(flag) => Field::Integer(flag.into()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Field::Integer(whole),
            None => Field::Real(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Field::Text(text),
        json @ (Value::Array(_) | Value::Object(_)) => Field::Text(json.to_string()),
    }
}

fn texts(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(params, |row| row.get(0))?.collect()
}

fn json_rows(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Value>> {
    let texts = texts(connection, sql, params)?;
    texts
        .iter()
        .map(|text| {
            serde_json::from_str(text).map_err(|error| {
                let kind = rusqlite::types::Type::Text;
                rusqlite::Error::FromSqlConversionFailure(0, kind, error.into())
            })
        })
        .collect()
}

/// SQLite names the columns of a key and quotes no value.
fn refused(error: &rusqlite::Error) -> StoreError {
    let is_key =
        error.sqlite_error().is_some_and(|code| KEY_VIOLATIONS.contains(&code.extended_code));
    if is_key {
        StoreError::Exists(error.to_string())
    } else {
        StoreError::Refused("a constraint is violated".to_owned())
    }
}

/// Sorts driver errors by what to do about them.
pub(super) fn from_driver(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => refused(error),
        Some(ErrorCode::TooBig | ErrorCode::TypeMismatch) => StoreError::Refused(error.to_string()),
        _ if ["no such table", "no such column"]
            .iter()
            .any(|what| error.to_string().contains(what)) =>
        {
            StoreError::NotMigrated
        }
        // The driver's own words, without the statement.
        _ => match error.sqlite_error() {
            Some(code) => StoreError::Local(code.to_string()),
            None => StoreError::Local(error.to_string()),
        },
    }
}
