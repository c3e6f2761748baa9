//! PostgreSQL through a small pool.
//!
//! Statements are unnamed, so that a pooler in transaction mode works; every call has a deadline, here
//! and on the server, and a connection that missed it is dropped rather than given back.

mod connector;
mod details;
mod erasure;
mod limits;
mod listen;
mod migrate;
mod outcomes;
mod refused;
mod report;
mod sql;
mod tidy;
mod write;

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use connector::{Connector, Object, Pool};
use deadpool::Runtime;
use deadpool::managed::{PoolError, Timeouts};
use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres_rustls::MakeRustlsConnect;

use uuid::Uuid;

use super::audit::{self, AuditQuery, Chained, Head};
use super::erasure::{Erased, Erasure, Standing};
use super::migrations::{Migrated, MigrationState};
use super::outcomes::{Feedback, Heard, Kept};
use super::report::{Details, Interval, Report, ReportQuery};
use super::{
    Activation, Change, Changed, Done, ExecutionQuery, Exposure, Marks, Phase, Row, RowQuery,
    Store, StoreError, Table, Tidied, tls,
};
use crate::config::Retention;
use crate::results::{ArmLatencies, Collected};
use crate::words::ids::{ExperimentId, Tenant};
use crate::words::secret::Secret;
use refused::{from_driver, is_stale};

/// For one statement of the background, and for connecting before it.
const DEADLINE: Duration = Duration::from_secs(5);
/// For a batch of executions, which takes three turns: of a slow database too, records get through.
const BATCH_DEADLINE: Duration = Duration::from_secs(15);
/// For what an admin waits for: the answer must be there within two seconds, whatever it says.
const ADMIN_DEADLINE: Duration = Duration::from_millis(1_400);
/// A change of many rows is given this much more for each.
const ROW_ALLOWANCE: Duration = Duration::from_millis(2);
/// For a migration, which may wait for another process's.
const MIGRATION_DEADLINE: Duration = Duration::from_mins(10);
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The shared authority of many sidecars.
pub struct Postgres {
    pool: Pool,
    config: Config,
    tls: MakeRustlsConnect,
    /// The channel on which this process tells itself that it hears.
    echo: String,
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
        let timeouts =
            Timeouts { wait: Some(DEADLINE), create: Some(DEADLINE), recycle: Some(DEADLINE) };
        let pool = Pool::builder(Connector::new(manager))
            .max_size(connections_max)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let echo = format!("chaperone_echo_{}", Uuid::new_v4().simple());
        Ok(Self { pool, config, tls, echo })
    }

    async fn connection(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) => late(),
            other => StoreError::Unavailable(other.to_string()),
        })
    }

    /// One statement of the background. Connecting has a deadline of its own: of a slow database, what is
    /// recorded still gets through.
    async fn query(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let attempt = async || {
            let lent = Lent::new(self.connection().await?);
            let asking = lent.ask(DEADLINE, sql, params);
            tokio::time::timeout(DEADLINE, asking).await.map_err(|_late| late())?
        };
        let answer = match attempt().await? {
            // Of another time: a new session may find the server that takes writes.
            Err(error) if is_stale(&error) => attempt().await?,
            answer => answer,
        };
        answer.map_err(|error| from_driver(&error))
    }

    async fn copy(&self, records: &[Cow<'_, str>], insert: &str) -> Result<(), StoreError> {
        let attempt = async || {
            let lent = Lent::new(self.connection().await?);
            let copying = lent.copy(BATCH_DEADLINE, records, insert);
            tokio::time::timeout(BATCH_DEADLINE, copying).await.map_err(|_late| late())?
        };
        let answer = match attempt().await? {
            Err(error) if is_stale(&error) => attempt().await?,
            answer => answer,
        };
        answer.map_err(|error| from_driver(&error))
    }

    /// One statement that must have answered by the deadline, connecting included.
    async fn ask(
        &self,
        deadline: Duration,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let asking = async {
            let lent = Lent::new(self.connection().await?);
            lent.ask(deadline, sql, params).await?.map_err(|error| from_driver(&error))
        };
        tokio::time::timeout(deadline, asking).await.map_err(|_late| late())?
    }

    /// Rows of one text for an admin.
    async fn texts(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<String>, StoreError> {
        let rows = self.ask(ADMIN_DEADLINE, sql, params).await?;
        rows.iter().map(|row| row.try_get(0).map_err(|error| from_driver(&error))).collect()
    }
}

/// A connection of the pool. Dropped in the middle of a statement it is closed rather than given back:
/// the next one to get it would wait for an answer that nobody wants.
struct Lent(Option<Object>);

impl Lent {
    fn new(connection: Object) -> Self {
        Self(Some(connection))
    }

    async fn ask(
        self,
        deadline: Duration,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Result<Vec<tokio_postgres::Row>, tokio_postgres::Error>, StoreError> {
        let client = self.0.as_ref().ok_or_else(late)?;
        let answer = limits::query(client, deadline, sql, params).await;
        self.end(&answer);
        Ok(answer)
    }

    async fn copy(
        self,
        deadline: Duration,
        records: &[Cow<'_, str>],
        insert: &str,
    ) -> Result<Result<(), tokio_postgres::Error>, StoreError> {
        let client = self.0.as_ref().ok_or_else(late)?;
        let answer = limits::copy(client, deadline, records, insert).await;
        self.end(&answer);
        Ok(answer)
    }

    fn end<T>(self, answer: &Result<T, tokio_postgres::Error>) {
        if answer.as_ref().is_err_and(is_stale) {
            self.give_up();
        } else {
            self.give_back();
        }
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }

    /// Closes it, and those that wait in the pool: what is wrong with it is wrong with them.
    fn give_up(self) {
        if let Some(pool) = self.0.as_ref().and_then(Object::pool) {
            pool.retain(|_, _| false);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

#[async_trait]
impl Store for Postgres {
    fn kind(&self) -> &'static str {
        "postgresql"
    }

    async fn changed(&self, since: Option<i64>) -> Result<Changed, StoreError> {
        let since = since.unwrap_or(-1);
        told(&self.query(&sql::changed(), &[(&since, Type::INT8)]).await?)
    }

    async fn differing(&self, marks: &Marks) -> Result<Changed, StoreError> {
        let (ids, marks): (Vec<Uuid>, Vec<i64>) = marks.0.iter().unzip();
        let params: [Param<'_>; 2] = [(&ids, Type::UUID_ARRAY), (&marks, Type::INT8_ARRAY)];
        told(&self.query(&sql::differing(), &params).await?)
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        let rows = self.query("select revision from catalog_revision", &[]).await?;
        let row = rows.first().ok_or(StoreError::NotMigrated)?;
        row.try_get(0).map_err(|error| from_driver(&error))
    }

    async fn listen(&self, changed: &(dyn Fn() + Send + Sync)) -> Result<(), StoreError> {
        self.hear(changed).await
    }

    /// Half of the pool: the catalog and admins have a turn meanwhile.
    fn batches_at_once(&self) -> usize {
        self.pool.status().max_size / 2
    }

    async fn insert_records(&self, records: &[&str]) -> Result<(), StoreError> {
        let records: Vec<Cow<'_, str>> = records.iter().map(|record| without_nul(record)).collect();
        match self.copy(&records, &sql::insert_executions(true)).await {
            // Of the schema before, perhaps.
            Err(StoreError::NotMigrated) => {
                self.copy(&records, &sql::insert_executions(false)).await
            }
            copied => copied,
        }
    }

    async fn tidy(&self, retention: &Retention, now: Timestamp) -> Result<Tidied, StoreError> {
        self.tidy_up(retention, now).await
    }

    async fn erasures(&self, since: Timestamp) -> Result<Vec<Standing>, StoreError> {
        self.standing(since).await
    }

    async fn erase(&self, erasure: &Erasure) -> Result<Erased, StoreError> {
        self.erase_some(erasure).await
    }

    async fn executions(&self, query: &ExecutionQuery) -> Result<Vec<Value>, StoreError> {
        let tenant = query.tenant.to_string();
        let limit = i64::from(query.limit);
        let created_at = query.after.map(|cursor| cursor.created_at);
        let id = query.after.map(|cursor| cursor.id);
        let params: [Param<'_>; 8] = [
            (&tenant, Type::TEXT),
            (&created_at, Type::TIMESTAMPTZ),
            (&id, Type::UUID),
            (&query.template, Type::TEXT),
            (&query.user, Type::TEXT),
            (&query.outcome, Type::TEXT),
            (&query.id, Type::UUID),
            (&limit, Type::INT8),
        ];
        let rows = self.ask(ADMIN_DEADLINE, sql::EXECUTIONS, &params).await?;
        rows.iter().map(|row| row.try_get(0).map_err(|error| from_driver(&error))).collect()
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, StoreError> {
        let (tenant, limit) = (query.tenant.to_string(), i64::from(query.limit));
        let name = query.after.as_ref().map(|after| &after.name);
        let version = query.after.as_ref().map(|after| after.version);
        let params: [Param<'_>; 9] = [
            (&tenant, Type::TEXT),
            (&query.id, Type::UUID),
            (&query.name, Type::TEXT),
            (&query.state, Type::TEXT),
            (&query.group, Type::TEXT),
            (&query.tag, Type::TEXT),
            (&name, Type::TEXT),
            (&version, Type::INT8),
            (&limit, Type::INT8),
        ];
        let texts = self.texts(&sql::rows(query.table), &params).await?;
        texts.iter().map(|json| Row::read(json)).collect()
    }

    async fn commit(&self, change: &Change) -> Result<(), StoreError> {
        let rows = u32::try_from(change.rows()).unwrap_or(u32::MAX);
        let deadline = ADMIN_DEADLINE + ROW_ALLOWANCE * rows;
        let writing = async {
            let mut lent = Lent::new(self.connection().await?);
            let connection = lent.0.as_mut().ok_or_else(late)?;
            let written = self.write(connection, change, deadline).await;
            if matches!(written, Err(StoreError::Unavailable(_))) {
                lent.give_up();
            } else {
                lent.give_back();
            }
            written
        };
        tokio::time::timeout(deadline, writing).await.map_err(|_late| late())?
    }

    async fn activations(
        &self,
        tenant: &Tenant,
        name: &str,
        limit: u32,
    ) -> Result<Vec<Activation>, StoreError> {
        let (tenant, limit) = (tenant.to_string(), i64::from(limit));
        let params: [Param<'_>; 3] =
            [(&tenant, Type::TEXT), (&name, Type::TEXT), (&limit, Type::INT8)];
        super::counted(&self.texts(sql::ACTIVATIONS, &params).await?)
    }

    async fn phases(&self, experiment: ExperimentId) -> Result<Vec<Phase>, StoreError> {
        super::counted(&self.texts(sql::PHASES, &[(&experiment.0, Type::UUID)]).await?)
    }

    async fn exposures(
        &self,
        experiment: ExperimentId,
        limit: u32,
    ) -> Result<Vec<Exposure>, StoreError> {
        let limit = i64::from(limit);
        let params: [Param<'_>; 2] = [(&experiment.0, Type::UUID), (&limit, Type::INT8)];
        super::counted(&self.texts(sql::EXPOSURES, &params).await?)
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<Chained>, StoreError> {
        let (tenant, limit) =
            (query.tenant.as_ref().map(ToString::to_string), i64::from(query.limit));
        let params: [Param<'_>; 7] = [
            (&tenant, Type::TEXT),
            (&query.object_type, Type::TEXT),
            (&query.object_id, Type::TEXT),
            (&query.actor, Type::TEXT),
            (&query.before, Type::INT8),
            (&query.after, Type::INT8),
            (&limit, Type::INT8),
        ];
        let rows = self.ask(ADMIN_DEADLINE, &sql::audit(query), &params).await?;
        rows.iter().map(|row| chained(row).map_err(|error| from_driver(&error))).collect()
    }

    async fn audit_head(&self) -> Result<Option<Head>, StoreError> {
        let rows = match self.ask(ADMIN_DEADLINE, audit::HEAD, &[]).await {
            Err(StoreError::NotMigrated) => return Ok(None),
            asked => asked?,
        };
        let head = |row: &tokio_postgres::Row| {
            Ok(Head { entries: row.try_get(0)?, sequence: row.try_get(1)?, hash: row.try_get(2)? })
        };
        rows.first().map(head).transpose().map_err(|error| from_driver(&error))
    }

    async fn done(&self, actor: &str, key: &str) -> Result<Option<Done>, StoreError> {
        let params: [Param<'_>; 2] = [(&actor, Type::TEXT), (&key, Type::TEXT)];
        let rows = self.ask(ADMIN_DEADLINE, sql::DONE, &params).await?;
        Ok(rows.first().map(|row| Done {
            actor: actor.to_owned(),
            key: key.to_owned(),
            fingerprint: row.get(0),
            status: u16::try_from(row.get::<_, i32>(1)).unwrap_or(500),
            object_id: row.get(2),
        }))
    }

    async fn report(&self, query: &ReportQuery) -> Result<Report, StoreError> {
        self.count(query).await
    }

    async fn details(
        &self,
        query: &ReportQuery,
        interval: Option<Interval>,
    ) -> Result<Details, StoreError> {
        self.detail(query, interval).await
    }

    async fn feedback(&self, feedback: &Feedback) -> Result<Heard, StoreError> {
        self.listen_to(feedback).await
    }

    async fn collected(&self, experiment: Uuid) -> Result<Collected, StoreError> {
        self.collect(experiment).await
    }

    async fn latencies(
        &self,
        experiment: Uuid,
        limit: u32,
    ) -> Result<Vec<ArmLatencies>, StoreError> {
        self.sample(experiment, limit).await
    }

    async fn keep_results(&self, kept: &Kept) -> Result<(), StoreError> {
        self.keep(kept).await
    }

    async fn under_way(&self, since: Timestamp) -> Result<Vec<Row>, StoreError> {
        self.unfinished(since).await
    }

    async fn roll_up(&self) -> Result<(), StoreError> {
        self.count_up().await
    }

    async fn migration_state(&self) -> Result<MigrationState, StoreError> {
        self.read_migration_state().await
    }

    async fn migrate_up(&self) -> Result<Migrated, StoreError> {
        self.run_up().await
    }

    async fn migrate_down(&self, to: i32) -> Result<Migrated, StoreError> {
        self.run_down(to).await
    }
}

/// Definitions from rows of what they are, their JSON, their id and their mark.
fn told(rows: &[tokio_postgres::Row]) -> Result<Changed, StoreError> {
    let driver = |error: tokio_postgres::Error| from_driver(&error);
    let mut changed = Changed::default();
    let mut of_table: [Vec<&str>; 3] = Default::default();
    for row in rows {
        let (what, json): (&str, &str) =
            (row.try_get(0).map_err(driver)?, row.try_get(1).map_err(driver)?);
        let table = Table::ALL.into_iter().zip(&mut of_table);
        match (what, table.into_iter().find(|(table, _)| table.name() == what)) {
            (_, Some((_, rows))) => {
                rows.push(json);
                let (id, mark) = (row.try_get(2).map_err(driver)?, row.try_get(3).map_err(driver)?);
                changed.marks.0.insert(id, mark);
            }
            ("counts", None) => changed.counts = serde_json::from_str(json).unwrap_or_default(),
            (_, None) => changed.revision = json.parse().unwrap_or_default(),
        }
    }
    for (table, rows) in Table::ALL.into_iter().zip(&of_table) {
        changed.take(table, rows)?;
    }
    Ok(changed)
}

fn chained(row: &tokio_postgres::Row) -> Result<Chained, tokio_postgres::Error> {
    Ok(Chained {
        sequence: row.try_get(0)?,
        id: row.try_get(1)?,
        tenant_id: row.try_get(2)?,
        at: audit::time(row.try_get(3)?),
        actor: row.try_get(4)?,
        action: row.try_get(5)?,
        object_type: row.try_get(6)?,
        object_id: row.try_get(7)?,
        before: audit::raw(row.try_get(8)?),
        after: audit::raw(row.try_get(9)?),
        reason: row.try_get(10)?,
        request_id: row.try_get(11)?,
        previous_hash: row.try_get(12)?,
        hash: row.try_get(13)?,
    })
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

/// `jsonb` refuses U+0000; a record with one keeps its place with U+FFFD instead.
fn without_nul(record: &str) -> Cow<'_, str> {
    if !record.contains("\\u0000") {
        return record.into();
    }
    let Ok(mut value) = serde_json::from_str(record) else { return record.into() };
    replace_nul(&mut value);
    value.to_string().into()
}

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
