//! The embedded default: one SQLite file under the data directory.
//!
//! One connection writes, one reads; calls run on the blocking pool. SQLite announces nothing: this
//! process is the only writer and knows its own changes.

mod migrate;
mod sql;

use std::future::pending;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::types::Value as Field;
use rusqlite::{Connection, ErrorCode, params, params_from_iter};
use serde_json::Value;

use super::migrations::{Migrated, MigrationState};
use super::{ExecutionQuery, LOCAL_FILE, Store, StoreError, rows};
use crate::catalog::definitions::Definitions;
use crate::execution::Execution;

/// The outbox writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The embedded store.
#[derive(Debug, Clone)]
pub struct Sqlite {
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
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
        .map_err(|error| from_driver(&error))?;
    Ok(connection)
}

impl Sqlite {
    /// Opens the file, making it if need be.
    pub fn new(data_dir: &Path) -> Result<Self, StoreError> {
        let connection = || open(data_dir).map(|one| Arc::new(Mutex::new(one)));
        Ok(Self { writer: connection()?, reader: connection()? })
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

    async fn definitions(&self) -> Result<Definitions, StoreError> {
        let (templates, guardrails, experiments) = self
            .read(|connection| {
                Ok((
                    json_rows(connection, sql::TEMPLATES, [])?,
                    json_rows(connection, sql::GUARDRAILS, [])?,
                    json_rows(connection, sql::EXPERIMENTS, [])?,
                ))
            })
            .await?;
        Ok(Definitions {
            templates: rows("prompt_templates", templates)?,
            guardrails: rows("prompt_guardrails", guardrails)?,
            experiments: rows("ab_test_experiments", experiments)?,
        })
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        self.read(|connection| {
            connection.query_row("select revision from catalog_revision", [], |row| row.get(0))
        })
        .await
    }

    async fn listen(&self, _changed: &(dyn Fn() + Send + Sync)) -> Result<(), StoreError> {
        pending().await
    }

    async fn insert_executions(&self, batch: &[Execution]) -> Result<(), StoreError> {
        let rows = batch.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        Self::on(&self.writer, move |connection| {
            insert(connection, rows).map_err(|error| from_driver(&error))
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
                    query.limit,
                ],
            )
        })
        .await
    }

    async fn migration_state(&self) -> Result<MigrationState, StoreError> {
        Self::on(&self.writer, |connection| migrate::state(connection)).await
    }

    async fn migrate_up(&self) -> Result<Migrated, StoreError> {
        Self::on(&self.writer, migrate::up).await
    }

    async fn migrate_down(&self) -> Result<Migrated, StoreError> {
        Self::on(&self.writer, migrate::down).await
    }
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
fn row(execution: &Execution) -> Result<Vec<Field>, StoreError> {
    let refused = |error: serde_json::Error| StoreError::Refused(error.to_string());
    let Value::Object(mut members) = serde_json::to_value(execution).map_err(refused)? else {
        return Err(StoreError::Refused("an execution is an object".to_owned()));
    };
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

fn json_rows(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Value>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params, |row| {
        let text: String = row.get(0)?;
        serde_json::from_str(&text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
        })
    })?;
    rows.collect()
}

/// Sorts driver errors by what to do about them.
pub(super) fn from_driver(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => {
            StoreError::Refused("a constraint is violated".to_owned())
        }
        Some(ErrorCode::TooBig | ErrorCode::TypeMismatch) => StoreError::Refused(error.to_string()),
        _ if error.to_string().contains("no such table") => StoreError::NotMigrated,
        _ => StoreError::Local(error.to_string()),
    }
}
