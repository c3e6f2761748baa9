//! A table that the disk has damaged, made anew from what can still be read.
//!
//! SQLite notices damage to its own pages when it meets it. Rows are then read one by one, each by its id;
//! the damaged table stays aside under another name, since even to remove it could fail.

use rusqlite::{Connection, ErrorCode, params};
use uuid::Uuid;

/// How many rows there were, and how many could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salvaged {
    pub(super) rows: u64,
    pub(super) unreadable: u64,
}

/// What is known of a row without reading its batch: its id, executions and bytes.
type Known = (i64, u64, u64);

const KNOWN: &str = concat!("select id, ", said!(totals), " from outbox");
const LAST_ID: &str = "select coalesce(max(seq), 0) from sqlite_sequence where name = 'outbox'";
const ONE: &str = concat!("select ", said!(totals), " from outbox where id = ?1");
const BATCH: &str = "select batch from outbox where id = ?1";
const KEEP: &str =
    "insert into outbox_salvaged (id, executions, bytes, batch) values (?1, ?2, ?3, ?4)";

/// Whether an error means that the file is not as it was written.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// Whether it cannot be read at all.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    is_damage(error) || error.sqlite_error_code() == Some(ErrorCode::NotADatabase)
}

/// Whether the disk takes nothing now; it may later.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

/// Makes the table anew. A row whose batch cannot be read keeps its count and loses its content, so that
/// whoever reads it counts as many spoilt records.
pub(super) fn salvage(connection: &mut Connection) -> rusqlite::Result<Salvaged> {
    // Another one reads: a transaction that has met damage writes nothing any more.
    let reader = Connection::open(connection.path().unwrap_or_default())?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "create table outbox_salvaged (
             id integer primary key autoincrement,
             executions integer not null,
             bytes integer not null,
             batch text not null)",
    )?;
    let mut salvaged = Salvaged { rows: 0, unreadable: 0 };
    for (id, executions, bytes) in known(&reader)? {
        let read = reader.query_row(BATCH, [id], |row| row.get::<_, String>(0));
        salvaged.rows += 1;
        salvaged.unreadable += u64::from(read.is_err());
        let batch = read.unwrap_or_default();
        transaction.prepare_cached(KEEP)?.execute(params![id, executions, bytes, batch])?;
    }
    let name = Uuid::new_v4().simple();
    transaction.execute_batch(&format!(
        "alter table outbox rename to outbox_damaged_{name};
         alter table outbox_salvaged rename to outbox;
         create index outbox_totals_{name} on outbox (executions, bytes)"
    ))?;
    transaction.commit()?;
    Ok(salvaged)
}

/// From the index, which is a second copy of the counts; where it is damaged too, what single rows say.
fn known(connection: &Connection) -> rusqlite::Result<Vec<Known>> {
    let listed = || -> rusqlite::Result<Vec<Known>> {
        connection
            .prepare(KNOWN)?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    };
    match listed() {
        Err(error) if is_damage(&error) => {
            let last: i64 = connection.query_row(LAST_ID, [], |row| row.get(0))?;
            let one =
                |id| connection.query_row(ONE, [id], |row| Ok((id, row.get(0)?, row.get(1)?))).ok();
            // Rows go from the oldest on: behind the first that is there, none is missing but by damage. How
            // many executions were in it nobody knows; at least one was.
            let first = (1..=last).find(|id| one(*id).is_some()).unwrap_or(last);
            Ok((first..=last).map(|id| one(id).unwrap_or((id, 1, 1))).collect())
        }
        listed => listed,
    }
}
