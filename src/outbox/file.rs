//! The part of the local file that holds executions not yet in the store.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::execution::Execution;
use crate::store::{LOCAL_FILE, StoreError};

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const TABLES: &str = "
    pragma journal_mode = wal;
    create table if not exists outbox (
        id integer primary key autoincrement,
        executions integer not null,
        bytes integer not null,
        batch text not null);
    create table if not exists outbox_dead_letters (
        id text primary key,
        reason text not null,
        execution text not null,
        at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))";
const APPEND: &str = "insert into outbox (executions, bytes, batch) values (?1, ?2, ?3)";
const OLDEST: &str = "select id, executions, bytes, batch from outbox order by id limit ?1";
const REMOVE: &str = "delete from outbox where id between ?1 and ?2";
const TOTALS: &str = "select coalesce(sum(executions), 0), coalesce(sum(bytes), 0) from outbox";
const BURY: &str =
    "insert or replace into outbox_dead_letters (id, reason, execution) values (?1, ?2, ?3)";

/// The open file.
#[derive(Debug)]
pub struct OutboxFile(Mutex<Connection>);

/// How much waits in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Executions.
    pub executions: u64,
    /// Bytes of their batches.
    pub bytes: u64,
}

/// Rows of the file, oldest first.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) bytes: u64,
    pub(super) executions: Vec<Execution>,
    /// Rows that do not read as executions, with how many they hold.
    pub(super) unreadable: Vec<(u64, String)>,
}

impl OutboxFile {
    /// Opens or makes it. With `survives_power_cut` every batch is synced to the disk.
    pub fn open(data_dir: &Path, survives_power_cut: bool) -> Result<Self, StoreError> {
        let open = || {
            let connection = Connection::open(data_dir.join(LOCAL_FILE))?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.execute_batch(TABLES)?;
            // NORMAL hands every commit to the kernel, FULL to the disk.
            let synchronous = if survives_power_cut { "full" } else { "normal" };
            connection.pragma_update(None, "synchronous", synchronous)?;
            Ok(connection)
        };
        open().map(|connection| Self(Mutex::new(connection))).map_err(|error| from_driver(&error))
    }

    /// What waits.
    pub fn totals(&self) -> Result<Totals, StoreError> {
        self.with(|connection| {
            connection.query_row(TOTALS, [], |row| {
                Ok(Totals { executions: row.get(0)?, bytes: row.get(1)? })
            })
        })
    }

    /// Adds a batch as one row; gives its bytes.
    pub(super) fn append(&self, batch: &[Execution]) -> Result<u64, StoreError> {
        let json =
            serde_json::to_string(batch).map_err(|error| StoreError::Refused(error.to_string()))?;
        let bytes = json.len() as u64;
        self.with(|connection| {
            connection
                .prepare_cached(APPEND)?
                .execute(params![batch.len() as u64, bytes, json])
                .map(drop)
        })?;
        Ok(bytes)
    }

    /// The oldest rows, at most `rows_max` of them.
    pub(super) fn oldest(&self, rows_max: u32) -> Result<Load, StoreError> {
        let rows: Vec<(i64, u64, u64, String)> = self.with(|connection| {
            connection
                .prepare_cached(OLDEST)?
                .query_map([rows_max], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })?
                .collect()
        })?;
        let mut load = Load::default();
        for (id, count, bytes, batch) in rows {
            if load.bytes == 0 {
                load.first = id;
            }
            load.last = id;
            load.bytes += bytes;
            match serde_json::from_str::<Vec<Execution>>(&batch) {
                Ok(executions) => load.executions.extend(executions),
                Err(_) => load.unreadable.push((count, batch)),
            }
        }
        Ok(load)
    }

    /// Removes what was stored and keeps aside what was refused, in one transaction.
    pub(super) fn settle(
        &self,
        load: &Load,
        dead: &[(String, String, String)],
    ) -> Result<(), StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction()?;
            for (id, reason, execution) in dead {
                transaction.prepare_cached(BURY)?.execute(params![id, reason, execution])?;
            }
            transaction.prepare_cached(REMOVE)?.execute([load.first, load.last])?;
            transaction.commit()
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        // A panic while holding it left at most a transaction that was rolled back.
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut connection).map_err(|error| from_driver(&error))
    }
}

fn from_driver(error: &rusqlite::Error) -> StoreError {
    StoreError::Local(error.to_string())
}
