//! The part of the local file that holds executions not yet in the store.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, params};
use serde_json::value::RawValue;

use super::dead::{Letter, Retried};
use super::ledger::Ledger;
use super::line;
use super::mend;
use super::salvage::{is_damage, is_full, is_unreadable, salvage};
use crate::execution::Execution;
use crate::store::erasure::Erasure;
use crate::store::{LOCAL_FILE, StoreError};
use crate::telemetry;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the records of one row, unless a single one is longer.
const ROW_BYTES: usize = 256 * 1024;

// The index answers how much waits without reading what waits.
const TABLES: &str = "
    pragma journal_mode = wal;
    create table if not exists outbox (
        id integer primary key autoincrement,
        executions integer not null,
        bytes integer not null,
        batch text not null);
    create index if not exists outbox_totals on outbox (executions, bytes);
    create table if not exists outbox_dead_letters (
        id text primary key,
        reason text not null,
        execution text not null,
        at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))";
const APPEND: &str = "insert into outbox (executions, bytes, batch) values (?1, ?2, ?3)";
const OLDEST: &str = "select id, executions, bytes, batch from outbox order by id";
const REMOVE: &str = "delete from outbox where id between ?1 and ?2";
const TOTALS: &str = "select coalesce(sum(executions), 0), coalesce(sum(bytes), 0) from outbox";
const BURY: &str =
    "insert or replace into outbox_dead_letters (id, reason, execution) values (?1, ?2, ?3)";

const LETTERS: &str = "select id, reason, execution, at from outbox_dead_letters
     where ?1 is null or id > ?1 order by id limit ?2";
const LETTERS_OF: &str =
    "select id, execution from outbox_dead_letters where ?1 is null or id = ?1 order by id";
const RAISE: &str = "delete from outbox_dead_letters where id = ?1";

/// The file, opened when the disk lets it be.
#[derive(Debug)]
pub struct OutboxFile {
    place: Place,
    ledger: Arc<Ledger>,
    connection: Mutex<Option<Connection>>,
}

/// Where the file is, and what it has to survive.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) data_dir: PathBuf,
    /// Whether every batch is synced to the disk.
    pub(super) survives_power_cut: bool,
    /// Whether more than the outbox is in the file: then it is not given up for another.
    pub(super) is_shared: bool,
}

/// How much waits in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Totals {
    /// Executions.
    executions: u64,
    /// Bytes of their batches.
    bytes: u64,
}

/// An execution that will not be stored, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadLetter {
    pub(super) id: String,
    pub(super) reason: String,
    /// Its JSON, or what is left of it.
    pub(super) execution: String,
}

/// Some rows of the table, oldest first.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) bytes: u64,
    /// Their JSON.
    pub(super) records: Vec<String>,
    /// What was spoilt.
    pub(super) spoilt: Vec<DeadLetter>,
}

impl OutboxFile {
    /// Opens or makes it, and counts what waits in it. On a disk that is full it is opened later: records
    /// wait in the journal, or are counted as lost.
    pub(super) fn open(place: Place, ledger: Arc<Ledger>) -> Result<Self, StoreError> {
        let path = place.data_dir.join(LOCAL_FILE);
        let missing = mend::lengthen(&path);
        if let Ok(missing @ 1..) = missing {
            telemetry::events::local_file_cut(missing);
        }
        let file = Self { place, ledger, connection: Mutex::default() };
        let opened = match file.connect() {
            Err(error) if is_unreadable(&error) && !file.place.is_shared => {
                let aside = mend::set_aside(&path)
                    .map_err(|error| StoreError::Local(format!("{}: {error}", path.display())))?;
                telemetry::events::local_file_set_aside(&aside.display().to_string());
                file.connect()
            }
            opened => opened,
        };
        match opened {
            Ok(connection) => *file.lock() = Some(connection),
            Err(error) if is_full(&error) => telemetry::events::outbox_failed(&error.to_string()),
            Err(error) if is_unreadable(&error) => {
                return Err(StoreError::Local(format!(
                    "{} is damaged ({error}); moved away, it is made anew and nothing in it is in use",
                    path.display()
                )));
            }
            Err(error) => return Err(from_driver(&error)),
        }
        Ok(file)
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let mut connection = Connection::open(self.place.data_dir.join(LOCAL_FILE))?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.execute_batch(TABLES)?;
        // NORMAL hands every commit to the kernel, FULL to the disk.
        let synchronous = if self.place.survives_power_cut { "full" } else { "normal" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        let left_over = mended(&mut connection, totals)?;
        self.ledger.found_filed(left_over.executions, left_over.bytes);
        Ok(connection)
    }

    /// Adds records, and keeps aside what is none, in one transaction. `spoilt_bytes`: of what is none, as it
    /// stood in the journal.
    pub(super) fn append(
        &self,
        records: &[&str],
        spoilt: &[DeadLetter],
        spoilt_bytes: u64,
    ) -> Result<(), StoreError> {
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            bury(&transaction, spoilt)?;
            for batch in batches(records) {
                let text = batch.concat();
                let params = params![batch.len() as u64, text.len() as u64, text];
                transaction.prepare_cached(APPEND)?.execute(params)?;
            }
            transaction.commit()
        };
        self.moving(write, |ledger, ()| {
            ledger.filed(records.len() as u64, spoilt.len() as u64, spoilt_bytes);
        })
    }

    /// The oldest rows: of so many bytes, or a single one that has more.
    pub(super) fn oldest(&self, bytes_max: u64) -> Result<Load, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(OLDEST)?;
            let mut rows = statement.query([])?;
            let mut load = Load::default();
            while let Some(row) = rows.next()? {
                let (id, bytes): (i64, u64) = (row.get(0)?, row.get(2)?);
                if load.bytes > 0 && load.bytes + bytes > bytes_max {
                    break;
                }
                let batch = row.get_ref(3)?.as_bytes()?;
                load.add(id, row.get(1)?, bytes, batch);
            }
            Ok(load)
        })
    }

    /// Removes what was stored, so many, and keeps aside what was refused, in one transaction.
    pub(super) fn settle(
        &self,
        load: &Load,
        stored: u64,
        dead: &[DeadLetter],
    ) -> Result<(), StoreError> {
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            bury(&transaction, dead)?;
            transaction.prepare_cached(REMOVE)?.execute([load.first, load.last])?;
            transaction.commit()
        };
        self.moving(write, |ledger, ()| ledger.shipped(stored, dead.len() as u64, load.bytes))
    }

    /// Dead letters in the order of their ids, from behind one.
    pub(super) fn letters(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Letter>, StoreError> {
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
    pub(super) fn retry(&self, id: Option<&str>) -> Result<Retried, StoreError> {
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            let mut retried = Retried { sent: 0, kept: 0, bytes: 0 };
            for (id, json) in letters_of(&transaction, id)? {
                if serde_json::from_str::<Execution>(&json).is_err() {
                    retried.kept += 1;
                    continue;
                }
                let line = String::from_utf8_lossy(&line::of_json(&json)).into_owned();
                let bytes = line.len() as u64;
                transaction.prepare_cached(APPEND)?.execute(params![1, bytes, line])?;
                transaction.prepare_cached(RAISE)?.execute([id])?;
                retried.sent += 1;
                retried.bytes += bytes;
            }
            transaction.commit()?;
            Ok(retried)
        };
        self.moving(write, |ledger, retried| ledger.found_filed(retried.sent, retried.bytes))
    }

    /// Removes dead letters of a user from before an order.
    pub(super) fn erase(&self, erasure: &Erasure) -> Result<u64, StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction()?;
            let mut erased = 0;
            for (id, json) in letters_of(&transaction, None)? {
                if concerns(&json, erasure) {
                    transaction.prepare_cached(RAISE)?.execute([id])?;
                    erased += 1;
                }
            }
            transaction.commit()?;
            Ok(erased)
        })
    }

    fn with<T>(
        &self,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.moving(work, |_ledger, _worked| {})
    }

    /// The same of work that moves records. The ledger follows before anybody else sees the file: whoever ships
    /// what was just filed must find it counted.
    fn moving<T>(
        &self,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T>,
        moved: impl FnOnce(&Ledger, &T),
    ) -> Result<T, StoreError> {
        let mut open = self.lock();
        let worked = match &mut *open {
            Some(connection) => mended(connection, work),
            None => self.connect().and_then(|connection| mended(open.insert(connection), work)),
        };
        if let Ok(worked) = &worked {
            moved(&self.ledger, worked);
        }
        worked.map_err(|error| from_driver(&error))
    }

    /// A panic while holding it left at most a transaction that was rolled back.
    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works on the file; where it turns out to be damaged, once more on what could be saved of it.
fn mended<T>(
    connection: &mut Connection,
    work: impl Fn(&mut Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    match work(connection) {
        Err(error) if is_damage(&error) => salvage(connection).and_then(|salvaged| {
            telemetry::events::outbox_salvaged(salvaged.rows, salvaged.unreadable);
            work(connection)
        }),
        worked => worked,
    }
}

/// What waits.
fn totals(connection: &mut Connection) -> rusqlite::Result<Totals> {
    connection
        .query_row(TOTALS, [], |row| Ok(Totals { executions: row.get(0)?, bytes: row.get(1)? }))
}

impl Load {
    fn add(&mut self, id: i64, count: u64, bytes: u64, batch: &[u8]) {
        if self.bytes == 0 {
            self.first = id;
        }
        self.last = id;
        self.bytes += bytes;
        let before = self.records.len();
        let mut rest: Vec<&[u8]> = Vec::new();
        if batch.starts_with(b"[") {
            // As it was written before records had checksums.
            match serde_json::from_slice::<Vec<&RawValue>>(batch) {
                Ok(records) => self.records.extend(records.iter().map(|one| one.get().to_owned())),
                Err(_) => rest.push(batch),
            }
        } else {
            for line in line::lines(batch) {
                match line::decode(line) {
                    Some(record) => self.records.push(record.to_owned()),
                    None => rest.push(line),
                }
            }
        }
        let read = (self.records.len() - before) as u64;
        self.spoilt.extend(letters(&format!("row-{id}"), count.saturating_sub(read), &rest));
    }
}

/// As many letters as records are missing, of what is left in their place.
fn letters(place: &str, missing: u64, rest: &[&[u8]]) -> Vec<DeadLetter> {
    let last = missing.saturating_sub(1);
    (0..missing)
        .map(|index| {
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            let upto = if index == last { rest.len().max(at) } else { at + 1 };
            let left = rest.get(at..upto).unwrap_or_default().concat();
            DeadLetter {
                id: format!("{place}-{index}"),
                reason: "it was spoilt on the disk".to_owned(),
                execution: String::from_utf8_lossy(&left).trim_end().to_owned(),
            }
        })
        .collect()
}

/// Records in groups of [`ROW_BYTES`].
fn batches<'r>(records: &'r [&'r str]) -> impl Iterator<Item = &'r [&'r str]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |record: &&&str| {
            let first = bytes == 0;
            bytes += record.len();
            first || bytes <= ROW_BYTES
        };
        let (row, after) = rest.split_at(rest.iter().take_while(fits).count());
        rest = after;
        (!row.is_empty()).then_some(row)
    })
}

fn bury(transaction: &Transaction<'_>, dead: &[DeadLetter]) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(BURY)?;
    for letter in dead {
        statement.execute(params![letter.id, letter.reason, letter.execution])?;
    }
    Ok(())
}

/// Ids and texts of dead letters: of one, or all.
fn letters_of(
    transaction: &Transaction<'_>,
    id: Option<&str>,
) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = transaction.prepare_cached(LETTERS_OF)?;
    statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Whether a dead letter goes by an order. What is left of a spoilt one may name the user anywhere.
fn concerns(json: &str, erasure: &Erasure) -> bool {
    match serde_json::from_str::<Execution>(json) {
        Ok(execution) => {
            execution.user_id.as_ref() == Some(&erasure.user)
                && execution.tenant_id == erasure.tenant
                && execution.created_at < erasure.requested_at
        }
        Err(_) => json.contains(&serde_json::Value::from(erasure.user.as_str()).to_string()),
    }
}

fn from_driver(error: &rusqlite::Error) -> StoreError {
    StoreError::Local(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::ledger::Rules;

    /// A file in a directory that goes with the test.
    struct Fixture(std::path::PathBuf, OutboxFile);

    impl Fixture {
        fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("outbox-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir(&dir).unwrap();
            let file = opened(&dir);
            Self(dir, file)
        }
    }

    fn opened(dir: &std::path::Path) -> OutboxFile {
        let place = Place { data_dir: dir.to_owned(), survives_power_cut: false, is_shared: false };
        let ledger = Ledger::new(Rules { bytes_max: u64::MAX, refuses: false });
        OutboxFile::open(place, Arc::new(ledger)).unwrap()
    }

    impl Fixture {
        /// As if they had come by the journal.
        fn append(
            &self,
            records: &[&str],
            spoilt: &[DeadLetter],
            spoilt_bytes: u64,
        ) -> Result<(), StoreError> {
            let bytes = records.iter().map(|record| record.len() as u64).sum();
            self.1.ledger.found_journaled(records.len() as u64, bytes);
            self.1.append(records, spoilt, spoilt_bytes)
        }

        fn settle(&self, load: &Load, dead: &[DeadLetter]) -> Result<(), StoreError> {
            self.1.settle(load, load.records.len() as u64, dead)
        }

        fn totals(&self) -> Totals {
            self.1.with(totals).unwrap()
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn records(count: usize) -> Vec<String> {
        (0..count)
            .map(|number| {
                let request_id = format!("r-{number}");
                let execution = Execution { request_id, ..Execution::default() };
                String::from_utf8(line::encode(&execution)).unwrap()
            })
            .collect()
    }

    fn ids(load: &Load) -> Vec<String> {
        let id = |record: &String| serde_json::from_str::<Execution>(record).unwrap().request_id;
        load.records.iter().map(id).collect()
    }

    #[test]
    fn rows_come_back_in_order_and_within_bounds() {
        let fixture = Fixture::new();
        let records = records(1_000);
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        fixture.append(&records, &[], 0).unwrap();
        let totals = fixture.totals();
        let bytes = records.iter().map(|record| record.len() as u64).sum();
        assert_eq!(totals, Totals { executions: 1_000, bytes });
        let mut seen = 0;
        loop {
            let load = fixture.1.oldest(300_000).unwrap();
            if load.bytes == 0 {
                break;
            }
            assert!(load.bytes <= 300_000);
            assert_eq!(ids(&load)[0], format!("r-{seen}"));
            seen += load.records.len();
            fixture.settle(&load, &[]).unwrap();
        }
        assert_eq!(seen, 1_000);
        assert_eq!(fixture.totals(), Totals { executions: 0, bytes: 0 });
    }

    #[test]
    fn a_spoilt_record_costs_itself_and_is_counted() {
        let fixture = Fixture::new();
        let records = records(5);
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        fixture.append(&records, &[], 0).unwrap();
        let spoil = |from: &str, to: &str| {
            let sql = "update outbox set batch = replace(batch, ?1, ?2)";
            fixture.1.with(|connection| connection.execute(sql, [from, to])).unwrap();
        };
        spoil("\"r-2\"", "\"r-9\"");
        let load = fixture.1.oldest(1).unwrap();
        assert_eq!(ids(&load), ["r-0", "r-1", "r-3", "r-4"]);
        assert_eq!(load.spoilt.len(), 1);
        assert!(load.spoilt[0].execution.contains("\"r-9\""), "{:?}", load.spoilt);
        // A lost line break spoils two; they are still two.
        spoil("\n", " ");
        let load = fixture.1.oldest(1).unwrap();
        assert_eq!((load.records.len(), load.spoilt.len()), (0, 5));
    }

    #[test]
    fn rows_of_older_versions_are_read() {
        let fixture = Fixture::new();
        let old = r#"[{"request_id":"old-1","outcome":"success"},{"request_id":"old-2"}]"#;
        let sql = "insert into outbox (executions, bytes, batch) values (2, 70, ?1)";
        fixture.1.with(|connection| connection.execute(sql, [old])).unwrap();
        assert_eq!(ids(&fixture.1.oldest(1).unwrap()), ["old-1", "old-2"]);
    }

    /// Sixty rows on the disk, of one record each, long enough for pages of their own; gives the bytes.
    fn on_the_disk() -> (std::path::PathBuf, Vec<u8>) {
        let mut fixture = Fixture::new();
        for number in 0..60 {
            let execution = Execution {
                request_id: format!("r-{number}-"),
                user_id: Some("x".repeat(20_000)),
                ..Execution::default()
            };
            let record = String::from_utf8(line::encode(&execution)).unwrap();
            fixture.append(&[&record], &[], 0).unwrap();
        }
        let sql = "pragma wal_checkpoint(truncate)";
        fixture.1.with(|connection| connection.query_row(sql, [], |_| Ok(()))).unwrap();
        let dir = std::mem::take(&mut fixture.0);
        drop(fixture);
        let bytes = std::fs::read(dir.join(LOCAL_FILE)).unwrap();
        (dir, bytes)
    }

    fn reopened(dir: std::path::PathBuf, bytes: &[u8]) -> Fixture {
        for name in std::fs::read_dir(&dir).unwrap() {
            std::fs::remove_file(name.unwrap().path()).unwrap();
        }
        std::fs::write(dir.join(LOCAL_FILE), bytes).unwrap();
        let file = opened(&dir);
        Fixture(dir, file)
    }

    #[test]
    fn a_damaged_page_costs_the_rows_on_it_and_they_are_counted() {
        let (dir, mut bytes) = on_the_disk();
        let at = bytes.windows(6).position(|window| window == b"r-30-\"").unwrap();
        // The page of that row's beginning, header and all.
        let page = at / 4096 * 4096;
        bytes[page..page + 4096].fill(0xff);
        let fixture = reopened(dir, &bytes);
        assert_eq!(fixture.totals().executions, 60);
        let load = fixture.1.oldest(u64::MAX).unwrap();
        assert_eq!(load.records.len() + load.spoilt.len(), 60);
        assert!((1..8).contains(&load.spoilt.len()), "{}", load.spoilt.len());
        assert!(!ids(&load).contains(&"r-30-".to_owned()));
        fixture.settle(&load, &load.spoilt).unwrap();
        let record = records(1);
        fixture.append(&[&record[0]], &[], 0).unwrap();
        assert_eq!(ids(&fixture.1.oldest(1).unwrap()), ["r-0"]);
    }

    #[test]
    fn a_file_that_was_cut_keeps_what_is_left_and_counts_the_rest() {
        let (dir, bytes) = on_the_disk();
        std::fs::remove_dir_all(&dir).unwrap();
        for part in [30, 50, 70, 90, 99] {
            std::fs::create_dir(&dir).unwrap();
            let cut = bytes.len() * part / 100;
            let fixture = reopened(dir.clone(), &bytes[..cut]);
            let counted = fixture.totals().executions;
            let load = fixture.1.oldest(u64::MAX).unwrap();
            assert_eq!((load.records.len() + load.spoilt.len()) as u64, counted, "{part} %");
            assert_eq!(counted, 60, "{part} %");
            let kept = ids(&load).len();
            assert!(kept * 100 > 60 * (part - 15) && kept < 60, "{part} %: {kept}");
            fixture.settle(&load, &load.spoilt).unwrap();
            let record = records(1);
            fixture.append(&[&record[0]], &[], 0).unwrap();
            assert_eq!(ids(&fixture.1.oldest(1).unwrap()), ["r-0"]);
        }
    }

    #[test]
    fn a_file_that_is_none_is_set_aside() {
        let (dir, mut bytes) = on_the_disk();
        bytes[..200].fill(0x7f);
        let fixture = reopened(dir, &bytes);
        assert_eq!(fixture.totals().executions, 0);
        let aside = std::fs::read_dir(&fixture.0).unwrap().map(|one| one.unwrap());
        let aside: Vec<_> =
            aside.filter(|one| one.file_name().to_string_lossy().contains("damaged")).collect();
        assert_eq!(std::fs::read(aside[0].path()).unwrap(), bytes);
        let data_dir = fixture.0.join("other");
        std::fs::create_dir(&data_dir).unwrap();
        std::fs::write(data_dir.join(LOCAL_FILE), &bytes).unwrap();
        let shared = Place { data_dir, survives_power_cut: false, is_shared: true };
        let refused = OutboxFile::open(shared, fixture.1.ledger.clone()).unwrap_err().to_string();
        assert!(refused.contains("chaperone.db is damaged"), "{refused}");
    }
}
