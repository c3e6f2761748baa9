//! PostgreSQL through a small pool.
//!
//! Statements are unnamed, so that a pooler in transaction mode works; every call has a deadline, and
//! a connection that missed it is dropped rather than given back.

mod migrate;
mod sql;

use std::future::{pending, poll_fn};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use serde_json::Value;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{AsyncMessage, Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::migrations::{Migrated, MigrationState};
use super::{ExecutionQuery, Store, StoreError, rows, tls};
use crate::catalog::definitions::Definitions;
use crate::execution::Execution;
use crate::words::secret::Secret;

/// For one statement, connecting included.
const DEADLINE: Duration = Duration::from_secs(5);
/// For a migration, which may wait for another process's.
const MIGRATION_DEADLINE: Duration = Duration::from_mins(10);
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The channel that the migration's trigger announces on.
const LISTEN: &str = "listen chaperone_catalog";

/// The shared authority of many sidecars.
pub struct Postgres {
    pool: Pool,
    config: Config,
    tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Postgres")
    }
}

type Param<'p> = (&'p (dyn ToSql + Sync), Type);

impl Postgres {
    /// Prepares a pool; connects to nothing yet.
    pub fn new(
        url: &Secret,
        connections_max: usize,
        ca_file: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let mut config: Config = url.expose().parse().map_err(|_holds_the_url| {
            StoreError::Unavailable("database.url is not a connection string".to_owned())
        })?;
        config
            .application_name("chaperone")
            .connect_timeout(CONNECT_DEADLINE)
            .keepalives_idle(KEEPALIVE)
            .tcp_user_timeout(DEADLINE);
        // `prefer` falls back to plain text silently; that is for this machine only.
        if config.get_ssl_mode() == SslMode::Prefer && !is_local(&config) {
            config.ssl_mode(SslMode::Require);
        }
        let tls = tls::connector(ca_file)?;
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), tls.clone(), recycling);
        let timeouts = Timeouts {
            wait: Some(CONNECT_DEADLINE),
            create: Some(CONNECT_DEADLINE),
            recycle: Some(CONNECT_DEADLINE),
        };
        let pool = Pool::builder(manager)
            .max_size(connections_max)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { pool, config, tls })
    }

    async fn connection(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => from_driver(&error),
            other => StoreError::Unavailable(other.to_string()),
        })
    }

    async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let connection = self.connection().await?;
        let asked = connection.query_typed(sql, params);
        match tokio::time::timeout(DEADLINE, asked).await {
            Ok(answer) => answer.map_err(|error| from_driver(&error)),
            Err(_late) => {
                drop(Object::take(connection));
                Err(late())
            }
        }
    }

    async fn json_rows(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Value>, StoreError> {
        let rows = self.query(sql, params).await?;
        rows.iter().map(|row| row.try_get(0).map_err(|error| from_driver(&error))).collect()
    }
}

#[async_trait]
impl Store for Postgres {
    fn kind(&self) -> &'static str {
        "postgresql"
    }

    async fn definitions(&self) -> Result<Definitions, StoreError> {
        Ok(Definitions {
            templates: rows("prompt_templates", self.json_rows(sql::TEMPLATES, &[]).await?)?,
            guardrails: rows("prompt_guardrails", self.json_rows(sql::GUARDRAILS, &[]).await?)?,
            experiments: rows("ab_test_experiments", self.json_rows(sql::EXPERIMENTS, &[]).await?)?,
        })
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        let rows = self.query("select revision from catalog_revision", &[]).await?;
        let row = rows.first().ok_or(StoreError::NotMigrated)?;
        row.try_get(0).map_err(|error| from_driver(&error))
    }

    async fn listen(&self, changed: &(dyn Fn() + Send + Sync)) -> Result<(), StoreError> {
        let connecting = self.config.connect(self.tls.clone());
        let (client, mut connection) = within(CONNECT_DEADLINE, connecting).await?;
        let drive = async {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(_) =
                    message.map_err(|error| from_driver(&error))?
                {
                    changed();
                }
            }
            Err::<(), _>(StoreError::Unavailable("the listening connection closed".to_owned()))
        };
        let listen = async {
            client.batch_execute(LISTEN).await.map_err(|error| from_driver(&error))?;
            // What was announced while nobody listened is found now.
            changed();
            pending::<Result<(), StoreError>>().await
        };
        tokio::try_join!(drive, listen).map(drop)
    }

    async fn insert_executions(&self, batch: &[Execution]) -> Result<(), StoreError> {
        let mut rows =
            serde_json::to_value(batch).map_err(|error| StoreError::Refused(error.to_string()))?;
        replace_nul(&mut rows);
        self.query(sql::INSERT_EXECUTIONS, &[(&Json(rows), Type::JSONB)]).await.map(drop)
    }

    async fn executions(&self, query: &ExecutionQuery) -> Result<Vec<Value>, StoreError> {
        let tenant = query.tenant.to_string();
        let limit = i64::from(query.limit);
        let created_at = query.after.map(|cursor| cursor.created_at);
        let id = query.after.map(|cursor| cursor.id);
        self.json_rows(
            sql::EXECUTIONS,
            &[
                (&tenant, Type::TEXT),
                (&created_at, Type::TIMESTAMPTZ),
                (&id, Type::UUID),
                (&query.template, Type::TEXT),
                (&query.user, Type::TEXT),
                (&query.outcome, Type::TEXT),
                (&limit, Type::INT8),
            ],
        )
        .await
    }

    async fn migration_state(&self) -> Result<MigrationState, StoreError> {
        self.read_migration_state().await
    }

    async fn migrate_up(&self) -> Result<Migrated, StoreError> {
        self.run_up().await
    }

    async fn migrate_down(&self) -> Result<Migrated, StoreError> {
        self.run_down().await
    }
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map_err(|error| from_driver(&error)),
        Err(_late) => Err(late()),
    }
}

fn late() -> StoreError {
    StoreError::Unavailable("no answer in time".to_owned())
}

fn is_local(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    })
}

/// Sorts driver errors by what to do about them. A message of the server can quote values of a row,
/// so only its SQLSTATE and constraint leave.
fn from_driver(error: &tokio_postgres::Error) -> StoreError {
    let Some(server) = error.as_db_error() else {
        return StoreError::Unavailable(error.to_string());
    };
    let code = server.code();
    if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_OBJECT]
        .contains(code)
    {
        return StoreError::NotMigrated;
    }
    let constraint = server.constraint().map(|name| format!(" on {name}")).unwrap_or_default();
    let what = format!("SQLSTATE {}{constraint}", code.code());
    // Only what is wrong with the row itself is final: bad data and violated constraints. Deadlocks,
    // permissions, restarts and full disks pass.
    if ["22", "23"].iter().any(|class| code.code().starts_with(class)) {
        StoreError::Refused(what)
    } else {
        StoreError::Unavailable(what)
    }
}

/// `jsonb` refuses U+0000; a record with one keeps its place with U+FFFD instead.
fn replace_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(replace_nul),
        Value::Object(members) => {
            if members.keys().any(|key| key.contains('\0')) {
                *members = std::mem::take(members)
                    .into_iter()
                    .map(|(key, value)| (key.replace('\0', "\u{fffd}"), value))
                    .collect();
            }
            members.values_mut().for_each(replace_nul);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
