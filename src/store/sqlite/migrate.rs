//! Migrating the embedded store: one transaction up or down, taken before looking.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{from_driver, sql};
use crate::catalog::files;
use crate::store::migrations::{Migrated, MigrationState, SQLITE};
use crate::store::{StoreError, Table, rows_of};

pub(super) fn state(connection: &Connection) -> Result<MigrationState, StoreError> {
    let driver = |error: rusqlite::Error| from_driver(&error);
    let applied: Vec<_> = match connection.prepare(sql::APPLIED) {
        Ok(mut statement) => statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(driver)?,
        Err(_no_table) => Vec::new(),
    };
    let mut state = MigrationState::new(&SQLITE, &applied);
    if let Ok(mut statement) = connection.prepare(sql::ROW_COUNTS) {
        state.rows = statement
            .query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
            .map_err(driver)?;
    }
    Ok(state)
}

pub(super) fn up(connection: &mut Connection) -> Result<Migrated, StoreError> {
    let driver = |error: rusqlite::Error| from_driver(&error);
    let mut migrated = Migrated::default();
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(driver)?;
    transaction.execute_batch(sql::MIGRATIONS_TABLE).map_err(driver)?;
    for migration in &SQLITE {
        let known: Option<String> = transaction
            .query_row(sql::CHECKSUM, [migration.version], |row| row.get(0))
            .optional()
            .map_err(driver)?;
        if migration.has_run(known.as_deref())? {
            continue;
        }
        transaction
            .execute_batch(migration.up)
            .map_err(|error| StoreError::Migration(error.to_string()))?;
        let row = (migration.version, migration.name, migration.checksum());
        transaction.execute(sql::REMEMBER_MIGRATION, row).map_err(driver)?;
        migrated.versions.push(migration.version);
    }
    // Only into new tables: what an admin has removed stays away.
    if migrated.versions.contains(&1) {
        seed(&transaction)?;
    }
    transaction.commit().map_err(driver)?;
    Ok(migrated)
}

pub(super) fn down(connection: &mut Connection, to: i32) -> Result<Migrated, StoreError> {
    let driver = |error: rusqlite::Error| from_driver(&error);
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(driver)?;
    let state = state(&transaction)?;
    let mut migrated = Migrated::default();
    for version in state.applied_above(to) {
        let Some(migration) = SQLITE.iter().find(|one| one.version == version) else { continue };
        if version == 1 {
            migrated.archived = state.rows[2];
        }
        transaction
            .execute_batch(migration.down)
            .map_err(|error| StoreError::Migration(error.to_string()))?;
        transaction.execute(sql::FORGET_MIGRATION, [version]).map_err(driver)?;
        migrated.versions.push(version);
    }
    transaction.commit().map_err(driver)?;
    Ok(migrated)
}

fn seed(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let seeds = files::seeds().map_err(|error| StoreError::Migration(error.to_string()))?;
    for table in Table::ALL {
        if let Some(rows) = rows_of(&seeds, table)? {
            transaction
                .execute(&sql::put(table), [rows.to_string()])
                .map_err(|error| from_driver(&error))?;
        }
    }
    Ok(())
}
