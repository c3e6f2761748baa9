//! A change of the catalog in one transaction.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{erasure, from_driver, sql};
use crate::store::audit::Entry;
use crate::store::{Change, Done, Expect, StoreError, Table, Turn, rows_of};

pub(super) fn write(connection: &mut Connection, change: &Change) -> Result<(), StoreError> {
    let driver = |error: rusqlite::Error| from_driver(&error);
    // Immediate: what is checked below cannot move before it is written.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(driver)?;
    for expect in &change.expects {
        check(&transaction, expect)?;
    }
    for table in Table::ALL {
        if let Some(rows) = rows_of(&change.puts, table)? {
            transaction.execute(&sql::put(table), [rows.to_string()]).map_err(driver)?;
        }
    }
    for turn in &change.turns {
        take(&transaction, turn)?;
    }
    if !change.activations.is_empty() {
        let rows = serde_json::to_string(&change.activations)
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        transaction.execute(sql::INSERT_ACTIVATION, [rows]).map_err(driver)?;
    }
    for erasure in &change.erasures {
        erasure::order(&transaction, erasure).map_err(driver)?;
    }
    chain(&transaction, &change.audit).map_err(driver)?;
    if let Some(done) = &change.done {
        remember(&transaction, done).map_err(driver)?;
    }
    transaction.commit().map_err(driver)
}

fn check(transaction: &Transaction<'_>, expect: &Expect) -> Result<(), StoreError> {
    let revision: Option<i64> = transaction
        .query_row(&sql::revision(expect.table), [expect.id.to_string()], |row| row.get(0))
        .optional()
        .map_err(|error| from_driver(&error))?;
    if revision == expect.revision {
        Ok(())
    } else {
        Err(StoreError::Moved { table: expect.table.name(), id: expect.id })
    }
}

/// A turn in the life of an experiment.
fn take(transaction: &Transaction<'_>, turn: &Turn) -> Result<(), StoreError> {
    let driver = |error: rusqlite::Error| from_driver(&error);
    let end = params![turn.experiment.to_string(), turn.at.to_string()];
    transaction.execute(sql::END_PHASE, end).map_err(driver)?;
    let Some(phase) = &turn.begins else { return Ok(()) };
    let rows =
        serde_json::to_string(&[phase]).map_err(|error| StoreError::Refused(error.to_string()))?;
    transaction.execute(sql::BEGIN_PHASE, [rows]).map(drop).map_err(driver)
}

/// Hangs the entries onto the chain; the transaction keeps its end still.
fn chain(transaction: &Transaction<'_>, entries: &[Entry]) -> rusqlite::Result<()> {
    let last: Option<Option<String>> =
        transaction.query_row(sql::LAST_HASH, [], |row| row.get(0)).optional()?;
    let mut previous = last.flatten();
    let mut statement = transaction.prepare_cached(sql::INSERT_AUDIT)?;
    for entry in entries {
        let hash = entry.hash(previous.as_deref());
        statement.execute(params![
            entry.id.to_string(),
            entry.tenant_id.to_string(),
            entry.time(),
            entry.actor,
            entry.action,
            entry.object_type,
            entry.object_id,
            entry.before,
            entry.after,
            entry.reason,
            entry.request_id,
            previous,
            hash,
        ])?;
        previous = Some(hash);
    }
    Ok(())
}

fn remember(transaction: &Transaction<'_>, done: &Done) -> rusqlite::Result<()> {
    transaction.execute(sql::FORGET_DONE, [])?;
    transaction
        .execute(
            sql::REMEMBER_DONE,
            params![done.actor, done.key, done.fingerprint, done.status, done.object_id],
        )
        .map(drop)
}
