//! Migrating the embedded store: one transaction a step, taken before looking.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{from_driver, sql};
use crate::catalog::definitions::Definitions;
use crate::catalog::files;
use crate::store::StoreError;
use crate::store::migrations::{Migrated, MigrationState, SQLITE};

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
    for migration in &SQLITE {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(driver)?;
        transaction.execute_batch(sql::MIGRATIONS_TABLE).map_err(driver)?;
        let known: Option<String> = transaction
            .query_row(sql::CHECKSUM, [migration.version], |row| row.get(0))
            .optional()
            .map_err(driver)?;
        if let Some(checksum) = known {
            if checksum != migration.checksum() {
                let version = migration.version;
                return Err(StoreError::Migration(format!(
                    "migration {version} ran here with another text than this binary's"
                )));
            }
            continue;
        }
        transaction
            .execute_batch(migration.up)
            .map_err(|error| StoreError::Migration(error.to_string()))?;
        if migration.version == 1 {
            seed(&transaction)?;
        }
        transaction
            .execute(
                sql::REMEMBER_MIGRATION,
                (migration.version, migration.name, migration.checksum()),
            )
            .map_err(driver)?;
        transaction.commit().map_err(driver)?;
        migrated.versions.push(migration.version);
    }
    Ok(migrated)
}

pub(super) fn down(connection: &mut Connection) -> Result<Migrated, StoreError> {
    let driver = |error: rusqlite::Error| from_driver(&error);
    let state = state(connection)?;
    let newest = state.steps.iter().rev().find(|step| step.applied_at.is_some());
    let migration = newest.and_then(|step| SQLITE.iter().find(|one| one.version == step.version));
    let Some(migration) = migration else { return Ok(Migrated::default()) };
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(driver)?;
    transaction
        .execute_batch(migration.down)
        .map_err(|error| StoreError::Migration(error.to_string()))?;
    transaction.execute(sql::FORGET_MIGRATION, [migration.version]).map_err(driver)?;
    transaction.commit().map_err(driver)?;
    Ok(Migrated { versions: vec![migration.version], archived: state.rows[2] })
}

fn seed(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let Definitions { templates, guardrails, .. } =
        files::seeds().map_err(|error| StoreError::Migration(error.to_string()))?;
    for (sql, rows) in [
        (sql::SEED_TEMPLATES, serde_json::to_string(&templates)),
        (sql::SEED_GUARDRAILS, serde_json::to_string(&guardrails)),
    ] {
        let rows = rows.map_err(|error| StoreError::Migration(error.to_string()))?;
        transaction.execute(sql, [rows]).map_err(|error| from_driver(&error))?;
    }
    Ok(())
}
