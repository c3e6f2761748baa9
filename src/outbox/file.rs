//! The part of the local file that holds executions not yet in the store.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, params};
use serde_json::value::RawValue;

use super::dead::{self, bury};
use super::ledger::{Ledger, Totals};
use super::letter::{self, DeadLetter};
use super::line;
use super::mend;
use super::salvage::{is_damage, is_full, is_unreadable, salvage};
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
        at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
    create index if not exists outbox_dead_letters_totals on outbox_dead_letters (octet_length(execution))";
const APPEND: &str = "insert into outbox (executions, bytes, batch) values (?1, ?2, ?3)";
const OLDEST: &str =
    concat!("select id, ", said!(totals), ", batch from outbox where id > ?1 order by id");
const REMOVE: &str = "delete from outbox where id between ?1 and ?2";
const TOTALS: &str = concat!(
    "select coalesce(sum(",
    said!(executions),
    "), 0), coalesce(sum(",
    said!(bytes),
    "), 0) from outbox"
);

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
    /// Whether more than the outbox is in the file: then it is not given up for another.
    pub(super) is_shared: bool,
}

/// Some rows of the table, oldest first.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) first: i64,
    pub(super) last: i64,
    /// By what the rows say of themselves.
    pub(super) claimed: Totals,
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
            Err(error) if is_unreadable(&error) && !file.place.is_shared => file.mend(&path)?,
            opened => opened,
        };
        file.ledger.set_aside(mend::aside(&path));
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

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Opens a file that cannot be opened as it is: with the first page that it had, else a new one in its
    /// place.
    fn mend(&self, path: &Path) -> Result<rusqlite::Result<Connection>, StoreError> {
        if mend::restore_head(path).is_ok()
            && let Ok(connection) = self.connect()
        {
            telemetry::events::local_file_mended();
            return Ok(Ok(connection));
        }
        let aside = mend::set_aside(path)
            .map_err(|error| StoreError::Local(format!("{}: {error}", path.display())))?;
        telemetry::events::local_file_set_aside(&aside.display().to_string());
        Ok(self.connect())
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let path = self.place.data_dir.join(LOCAL_FILE);
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.execute_batch(TABLES)?;
        // Every commit is on the disk when the journal lets go of what was in it: a power cut takes no more
        // than what the journal has gathered meanwhile.
        connection.pragma_update(None, "synchronous", "full")?;
        // What was in it is in no free page of it: of a user who was erased nothing is left.
        connection.pragma_update(None, "secure_delete", true)?;
        let (filed, dead) = mended(&mut connection, |one| Ok((totals(one)?, dead::totals(one)?)))?;
        if !self.place.is_shared {
            // What is in the log of the first page is in the file then. Where it fails, an older copy stays.
            drop(connection.query_row(dead::CLEAR_LOG, [], |_row| Ok(())));
            drop(mend::keep_head(&path));
        }
        self.ledger.found_filed(filed);
        self.ledger.found_dead(dead);
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
            let aside = bury(&transaction, spoilt)?;
            append(&transaction, records)?;
            transaction.commit()?;
            Ok(aside)
        };
        self.moving(write, |ledger, aside| {
            let spoilt = Totals { count: spoilt.len() as u64, bytes: spoilt_bytes };
            ledger.filed(records.len() as u64, spoilt, *aside);
        })
        .map(drop)
    }

    /// The oldest rows behind one: of so many bytes, or a single one that has more.
    pub(super) fn oldest(&self, behind: i64, bytes_max: usize) -> Result<Load, StoreError> {
        let read = |connection: &mut Connection| {
            let mut statement = connection.prepare_cached(OLDEST)?;
            let mut rows = statement.query([behind])?;
            let (mut load, mut bytes) = (Load::default(), 0);
            while let Some(row) = rows.next()? {
                let batch = row.get_ref(3)?.as_bytes()?;
                bytes += batch.len();
                if !load.is_empty() && bytes > bytes_max {
                    break;
                }
                load.add(row.get(0)?, Totals { count: row.get(1)?, bytes: row.get(2)? }, batch);
            }
            Ok(load)
        };
        self.moving(read, |ledger, load| {
            if behind == 0 && load.is_empty() {
                match ledger.missing() {
                    0 => {}
                    missing => telemetry::events::executions_missing(missing),
                }
            }
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
            let aside = bury(&transaction, dead)?;
            transaction.prepare_cached(REMOVE)?.execute([load.first, load.last])?;
            transaction.commit()?;
            Ok(aside)
        };
        let dead = dead.len() as u64;
        self.moving(write, |ledger, aside| ledger.shipped(load.claimed, stored, dead, *aside))
            .map(drop)
    }

    pub(super) fn with<T>(
        &self,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.moving(work, |_ledger, _worked| {})
    }

    /// The same of work that moves records. The ledger follows before anybody else sees the file: whoever ships
    /// what was just filed must find it counted.
    pub(super) fn moving<T>(
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
fn totals(connection: &Connection) -> rusqlite::Result<Totals> {
    connection.query_row(TOTALS, [], |row| Ok(Totals { count: row.get(0)?, bytes: row.get(1)? }))
}

impl Load {
    pub(super) fn is_empty(&self) -> bool {
        self.claimed.count == 0
    }

    fn add(&mut self, id: i64, claimed: Totals, batch: &[u8]) {
        if self.is_empty() {
            self.first = id;
        }
        self.last = id;
        self.claimed.count += claimed.count;
        self.claimed.bytes += claimed.bytes;
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
        let said = claimed.count.saturating_sub((self.records.len() - before) as u64);
        // Of a row that could not be read, nothing but its count is left.
        let missing = if batch.is_empty() { said } else { letter::spoilt_count(said, &rest) };
        self.spoilt.extend(letter::spoilt(&format!("row-{id}"), missing, &rest));
    }
}

/// Adds records in rows of a bounded size.
pub(super) fn append(connection: &Connection, records: &[&str]) -> rusqlite::Result<()> {
    for batch in batches(records) {
        let text = batch.concat();
        let params = params![batch.len() as u64, text.len() as u64, text];
        connection.prepare_cached(APPEND)?.execute(params)?;
    }
    Ok(())
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

fn from_driver(error: &rusqlite::Error) -> StoreError {
    StoreError::Local(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::Execution;
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
        let place = Place { data_dir: dir.to_owned(), is_shared: false };
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
            self.1.ledger.found_journaled(Totals { count: records.len() as u64, bytes });
            self.1.append(records, spoilt, spoilt_bytes)
        }

        fn settle(&self, load: &Load, dead: &[DeadLetter]) -> Result<(), StoreError> {
            self.1.settle(load, load.records.len() as u64, dead)
        }

        fn totals(&self) -> Totals {
            self.1.with(|connection| totals(connection)).unwrap()
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
        assert_eq!(totals, Totals { count: 1_000, bytes });
        let mut seen = 0;
        loop {
            let load = fixture.1.oldest(0, 300_000).unwrap();
            if load.is_empty() {
                break;
            }
            assert!(load.claimed.bytes <= 300_000);
            assert_eq!(ids(&load)[0], format!("r-{seen}"));
            seen += load.records.len();
            fixture.settle(&load, &[]).unwrap();
        }
        assert_eq!(seen, 1_000);
        assert_eq!(fixture.totals(), Totals::default());
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
        let load = fixture.1.oldest(0, 1).unwrap();
        assert_eq!(ids(&load), ["r-0", "r-1", "r-3", "r-4"]);
        assert_eq!(load.spoilt.len(), 1);
        assert!(load.spoilt[0].execution.contains("\"r-9\""), "{:?}", load.spoilt);
        // Line breaks that come or go change no count.
        spoil("\"outcome\"", "\"\n\"");
        let load = fixture.1.oldest(0, 1).unwrap();
        assert_eq!((load.records.len(), load.spoilt.len()), (0, 5));
        spoil("\n", " ");
        let load = fixture.1.oldest(0, 1).unwrap();
        assert_eq!((load.records.len(), load.spoilt.len()), (0, 5));
    }

    #[test]
    fn what_a_row_says_of_itself_is_only_believed_as_far_as_it_can_be() {
        let records = records(5);
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let spoilt = [
            "executions = -88",
            "executions = 97",
            "executions = 20000000",
            "executions = null",
            "executions = 2.5",
            "executions = 'five'",
            "bytes = 1 << 50",
            "bytes = -1",
        ];
        for spoilt in spoilt {
            let fixture = Fixture::new();
            fixture.append(&records, &[], 0).unwrap();
            // As a disk would: a column that is not null takes no null.
            let sql = format!(
                "alter table outbox rename to old;
                 create table outbox (id integer primary key autoincrement, executions integer, bytes integer, batch text);
                 insert into outbox select * from old; update outbox set {spoilt}"
            );
            fixture.1.with(|connection| connection.execute_batch(&sql)).unwrap();
            assert!(fixture.totals().count <= 97, "{spoilt}");
            let load = fixture.1.oldest(0, 1).unwrap();
            assert_eq!((load.records.len(), load.spoilt.len()), (5, 0), "{spoilt}");
            fixture.settle(&load, &[]).unwrap();
            assert!(fixture.1.oldest(0, 1).unwrap().is_empty());
            let now = fixture.1.ledger.standing();
            assert_eq!(now.stored + now.lost, now.accepted, "{spoilt}: {now:?}");
            assert_eq!((now.stored, now.waiting()), (5, 0), "{spoilt}");
        }
    }

    #[test]
    fn nothing_that_was_removed_is_left_in_the_file() {
        let fixture = Fixture::new();
        let execution = Execution { user_id: Some("x".repeat(9_000)), ..Execution::default() };
        let record = String::from_utf8(line::encode(&execution)).unwrap();
        fixture.append(&[record.as_str(); 40], &[], 0).unwrap();
        let load = fixture.1.oldest(0, usize::MAX).unwrap();
        fixture.settle(&load, &[]).unwrap();
        let sql = "pragma wal_checkpoint(truncate)";
        fixture.1.with(|connection| connection.query_row(sql, [], |_| Ok(()))).unwrap();
        for name in std::fs::read_dir(&fixture.0).unwrap() {
            let bytes = std::fs::read(name.unwrap().path()).unwrap();
            assert!(!bytes.windows(8).any(|window| window == b"xxxxxxxx"));
        }
    }

    #[test]
    fn rows_of_older_versions_are_read() {
        let fixture = Fixture::new();
        let old = r#"[{"request_id":"old-1","outcome":"success"},{"request_id":"old-2"}]"#;
        let sql = "insert into outbox (executions, bytes, batch) values (2, 70, ?1)";
        fixture.1.with(|connection| connection.execute(sql, [old])).unwrap();
        assert_eq!(ids(&fixture.1.oldest(0, 1).unwrap()), ["old-1", "old-2"]);
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
        for name in std::fs::read_dir(&dir).unwrap().map(|name| name.unwrap().path()) {
            if !name.to_string_lossy().ends_with("-head") {
                std::fs::remove_file(name).unwrap();
            }
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
        assert_eq!(fixture.totals().count, 60);
        let load = fixture.1.oldest(0, usize::MAX).unwrap();
        assert_eq!(load.records.len() + load.spoilt.len(), 60);
        assert!((1..8).contains(&load.spoilt.len()), "{}", load.spoilt.len());
        assert!(!ids(&load).contains(&"r-30-".to_owned()));
        fixture.settle(&load, &load.spoilt).unwrap();
        let record = records(1);
        fixture.append(&[&record[0]], &[], 0).unwrap();
        assert_eq!(ids(&fixture.1.oldest(0, 1).unwrap()), ["r-0"]);
    }

    #[test]
    fn a_file_that_was_cut_keeps_what_is_left_and_counts_the_rest() {
        let (dir, bytes) = on_the_disk();
        std::fs::remove_dir_all(&dir).unwrap();
        for part in [30, 50, 70, 90, 99] {
            std::fs::create_dir(&dir).unwrap();
            let cut = bytes.len() * part / 100;
            let fixture = reopened(dir.clone(), &bytes[..cut]);
            let counted = fixture.totals().count;
            let load = fixture.1.oldest(0, usize::MAX).unwrap();
            assert_eq!((load.records.len() + load.spoilt.len()) as u64, counted, "{part} %");
            assert_eq!(counted, 60, "{part} %");
            let kept = ids(&load).len();
            assert!(kept * 100 > 60 * (part - 15) && kept < 60, "{part} %: {kept}");
            fixture.settle(&load, &load.spoilt).unwrap();
            let record = records(1);
            fixture.append(&[&record[0]], &[], 0).unwrap();
            assert_eq!(ids(&fixture.1.oldest(0, 1).unwrap()), ["r-0"]);
        }
    }

    #[test]
    fn a_flipped_byte_anywhere_costs_what_it_is_in_and_every_record_is_counted() {
        let (dir, bytes) = on_the_disk();
        for step in 0..150_usize {
            let at = step * 7919 * 4099 % bytes.len();
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 0x55;
            let mut fixture = reopened(dir.clone(), &spoilt);
            let load = fixture.1.oldest(0, usize::MAX).unwrap();
            let kept = load.records.len();
            assert!(kept >= 52, "byte {at}: {kept}");
            fixture.settle(&load, &load.spoilt).unwrap();
            assert!(fixture.1.oldest(0, usize::MAX).unwrap().is_empty());
            let now = fixture.1.ledger.standing();
            assert_eq!((now.stored, now.waiting()), (kept as u64, 0), "byte {at}: {now:?}");
            assert_eq!(now.stored + now.dead + now.lost, 60, "byte {at}: {now:?}");
            fixture.0 = PathBuf::new();
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn whatever_happens_to_the_first_page_costs_nothing() {
        let (dir, bytes) = on_the_disk();
        for at in (0..4096).step_by(128) {
            let mut spoilt = bytes.clone();
            spoilt[at..at + 128].fill(0x7f);
            let mut fixture = reopened(dir.clone(), &spoilt);
            let load = fixture.1.oldest(0, usize::MAX).unwrap();
            assert_eq!((load.records.len(), load.spoilt.len()), (60, 0), "byte {at}");
            assert_eq!(fixture.1.ledger.standing().filed, 60, "byte {at}");
            fixture.settle(&load, &[]).unwrap();
            fixture.0 = PathBuf::new();
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_that_is_none_is_set_aside() {
        let (dir, mut bytes) = on_the_disk();
        std::fs::remove_file(dir.join("chaperone.db-head")).unwrap();
        bytes[..200].fill(0x7f);
        let fixture = reopened(dir, &bytes);
        assert_eq!((fixture.totals().count, fixture.1.ledger.standing().set_aside), (0, 1));
        let aside = std::fs::read_dir(&fixture.0).unwrap().map(|one| one.unwrap());
        let aside: Vec<_> =
            aside.filter(|one| one.file_name().to_string_lossy().contains("damaged")).collect();
        assert_eq!(std::fs::read(aside[0].path()).unwrap(), bytes);
        let data_dir = fixture.0.join("other");
        std::fs::create_dir(&data_dir).unwrap();
        std::fs::write(data_dir.join(LOCAL_FILE), &bytes).unwrap();
        let shared = Place { data_dir, is_shared: true };
        let refused = OutboxFile::open(shared, fixture.1.ledger.clone()).unwrap_err().to_string();
        assert!(refused.contains("chaperone.db is damaged"), "{refused}");
    }
}
