//! Executions that the store refused, or that the disk spoilt: seen, sent again, or removed by an admin.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::file::{OutboxFile, append};
use super::ledger::Totals;
use super::letter::{DeadLetter, concerns};
use super::line;
use crate::execution::Execution;
use crate::store::StoreError;
use crate::store::erasure::Erasure;

/// Letters of one transaction: whoever records waits no longer than for so many.
const PAGE: usize = 256;

const TOTALS: &str =
    "select count(*), coalesce(sum(octet_length(execution)), 0) from outbox_dead_letters";
const BURY: &str =
    "insert or ignore into outbox_dead_letters (id, reason, execution) values (?1, ?2, ?3)";
const LETTERS: &str = "select id, reason, execution, at from outbox_dead_letters
     where id > ?1 order by id limit ?2";
const SOME: &str = "select id, execution from outbox_dead_letters
     where id > ?1 and (?2 is null or id = ?2) order by id limit ?3";
const REMOVE: &str = "delete from outbox_dead_letters where id = ?1";
const DISCARD: &str = "delete from outbox_dead_letters where id in (
         select id from outbox_dead_letters
          where (?1 is null or id = ?1) and (?2 is null or at < ?2) limit ?3)
     returning octet_length(execution)";
pub(super) const CLEAR_LOG: &str = "pragma wal_checkpoint(truncate)";

/// The dead letters of this process's local file.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    file: Arc<OutboxFile>,
    filled: Arc<Notify>,
    /// How many had been buried when an order was carried out last.
    erased: Arc<Mutex<HashMap<Uuid, u64>>>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// The execution's id, or a place where the disk spoilt one.
    pub id: String,
    /// Why it was kept aside.
    pub reason: String,
    /// Its JSON, or what is left of it.
    pub execution: String,
    /// When, in UTC.
    pub at: String,
}

/// What became of those that were to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retried {
    /// Back in the outbox.
    pub sent: u64,
    /// Spoilt: they stay.
    pub kept: u64,
}

/// Which are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discard {
    /// The one with an id.
    One(String),
    /// All that were kept aside before a moment.
    Before(Timestamp),
}

impl DeadLetters {
    pub(super) fn new(file: Arc<OutboxFile>, filled: Arc<Notify>) -> Self {
        Self { file, filled, erased: Arc::default() }
    }

    /// The oldest after the one with an id, at most `limit` of them.
    pub async fn list(&self, after: Option<String>, limit: u32) -> Result<Vec<Letter>, StoreError> {
        self.on_file(move |file| file.letters(after.as_deref().unwrap_or_default(), limit)).await
    }

    /// Puts one, or all, back into the outbox.
    pub async fn retry(&self, id: Option<String>) -> Result<Retried, StoreError> {
        let retried = self.on_file(move |file| file.retry(id.as_deref())).await?;
        if retried.sent > 0 {
            self.filled.notify_one();
        }
        Ok(retried)
    }

    /// Removes some for good; gives how many.
    pub async fn discard(&self, which: Discard) -> Result<u64, StoreError> {
        self.on_file(move |file| file.discard(&which)).await
    }

    /// Removes those of a user from before the order, and what the disk has spoilt that names the user;
    /// gives how many. None is read where none was buried since this was done for the order last.
    pub async fn erase(&self, erasure: &Erasure) -> Result<u64, StoreError> {
        let buried = self.file.ledger().standing().dead;
        let was_seen = self.erased().insert(erasure.id, buried) == Some(buried);
        let order = erasure.clone();
        let erased = self
            .on_file(move |file| {
                let erased = if was_seen { 0 } else { file.erase(&order)? };
                file.clear_log()?;
                Ok(erased)
            })
            .await;
        if erased.is_err() {
            self.erased().remove(&erasure.id);
        }
        erased
    }

    fn erased(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, u64>> {
        self.erased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn on_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OutboxFile) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        spawn_blocking(move || work(&file))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
    }
}

impl OutboxFile {
    /// In the order of their ids, from behind one.
    fn letters(&self, after: &str, limit: u32) -> Result<Vec<Letter>, StoreError> {
        self.with(|connection| {
            connection
                .prepare_cached(LETTERS)?
                .query_map(params![after, limit], |row| {
                    let (id, reason) = (row.get(0)?, row.get(1)?);
                    Ok(Letter { id, reason, execution: row.get(2)?, at: row.get(3)? })
                })?
                .collect()
        })
    }

    /// Makes records of dead letters again, those that still read as executions.
    fn retry(&self, id: Option<&str>) -> Result<Retried, StoreError> {
        let (mut retried, mut after) = (Retried::default(), String::new());
        loop {
            let raised = self.moving(
                |connection| raise(connection, &after, id),
                |ledger, raised| ledger.raised(raised.letters, raised.bytes),
            )?;
            retried.sent += raised.letters.count;
            retried.kept += raised.kept;
            match raised.last {
                Some(last) => after = last,
                None => return Ok(retried),
            }
        }
    }

    /// Removes those that go by an order.
    fn erase(&self, erasure: &Erasure) -> Result<u64, StoreError> {
        let (mut erased, mut after) = (0, String::new());
        loop {
            let work = |connection: &mut Connection| {
                let transaction = connection.transaction()?;
                let (mut gone, mut last) = (Totals::default(), None);
                for (id, json) in some(&transaction, &after, None)? {
                    if concerns(&json, erasure) {
                        transaction.prepare_cached(REMOVE)?.execute([&id])?;
                        gone.add(json.len());
                    }
                    last = Some(id);
                }
                transaction.commit()?;
                Ok((gone, last))
            };
            let (gone, last) = self.moving(work, |ledger, (gone, _)| ledger.removed(*gone))?;
            erased += gone.count;
            match last {
                Some(last) => after = last,
                None => return Ok(erased),
            }
        }
    }

    fn discard(&self, which: &Discard) -> Result<u64, StoreError> {
        let (id, before) = match which {
            Discard::One(id) => (Some(id), None),
            Discard::Before(at) => (None, Some(format!("{at:.3}"))),
        };
        let mut discarded = 0;
        loop {
            let work = |connection: &mut Connection| {
                let mut gone = Totals::default();
                let mut statement = connection.prepare_cached(DISCARD)?;
                for bytes in
                    statement.query_map(params![id, before, PAGE], |row| row.get::<_, usize>(0))?
                {
                    gone.add(bytes?);
                }
                Ok(gone)
            };
            let gone = self.moving(work, |ledger, gone| ledger.removed(*gone))?;
            discarded += gone.count;
            if gone.count == 0 {
                return Ok(discarded);
            }
        }
    }

    /// Empties SQLite's log, which holds pages as they were. Who reads keeps it from that for now.
    fn clear_log(&self) -> Result<(), StoreError> {
        self.with(|connection| connection.query_row(CLEAR_LOG, [], |_row| Ok(())))
    }
}

/// How many there are.
pub(super) fn totals(connection: &Connection) -> rusqlite::Result<Totals> {
    connection.query_row(TOTALS, [], |row| Ok(Totals { count: row.get(0)?, bytes: row.get(1)? }))
}

/// Keeps some aside; gives what is there more than before.
pub(super) fn bury(transaction: &Transaction<'_>, dead: &[DeadLetter]) -> rusqlite::Result<Totals> {
    let mut statement = transaction.prepare_cached(BURY)?;
    let mut buried = Totals::default();
    for letter in dead {
        if statement.execute(params![letter.id, letter.reason, letter.execution])? > 0 {
            buried.add(letter.execution.len());
        }
    }
    Ok(buried)
}

/// A page of letters that went back into the outbox.
struct Raised {
    /// As they were kept.
    letters: Totals,
    /// As records.
    bytes: u64,
    kept: u64,
    /// The last of the page; none, if it was empty.
    last: Option<String>,
}

fn raise(connection: &mut Connection, after: &str, id: Option<&str>) -> rusqlite::Result<Raised> {
    let transaction = connection.transaction()?;
    let mut raised = Raised { letters: Totals::default(), bytes: 0, kept: 0, last: None };
    let mut lines = Vec::new();
    for (id, json) in some(&transaction, after, id)? {
        if serde_json::from_str::<Execution>(&json).is_ok() {
            lines.push(String::from_utf8_lossy(&line::of_json(&json)).into_owned());
            transaction.prepare_cached(REMOVE)?.execute([&id])?;
            raised.letters.add(json.len());
        } else {
            raised.kept += 1;
        }
        raised.last = Some(id);
    }
    raised.bytes = lines.iter().map(|line| line.len() as u64).sum();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    append(&transaction, &lines)?;
    transaction.commit()?;
    Ok(raised)
}

/// Ids and texts of a page of letters behind an id: of one, or all.
fn some(
    transaction: &Transaction<'_>,
    after: &str,
    id: Option<&str>,
) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = transaction.prepare_cached(SOME)?;
    statement.query_map(params![after, id, PAGE], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
