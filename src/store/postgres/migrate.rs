//! Migrating PostgreSQL: one transaction up or down, serialised over all processes by a lock that ends
//! with it.

use tokio_postgres::Transaction;
use tokio_postgres::types::{Json, ToSql, Type};

use super::{MIGRATION_DEADLINE, Object, Postgres, from_driver, sql};
use crate::catalog::files;
use crate::store::migrations::{Migrated, Migration, MigrationState, POSTGRES};
use crate::store::{StoreError, Table, rows_of};

impl Postgres {
    pub(super) async fn read_migration_state(&self) -> Result<MigrationState, StoreError> {
        let applied: Vec<_> = match self.query(sql::APPLIED, &[]).await {
            Ok(rows) => rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
            Err(StoreError::NotMigrated) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut state = MigrationState::new(&POSTGRES, &applied);
        match self.ask(MIGRATION_DEADLINE, sql::ROW_COUNTS, &[]).await {
            Ok(rows) => {
                if let Some(row) = rows.first() {
                    state.rows = [row.get(0), row.get(1), row.get(2)];
                }
            }
            Err(StoreError::NotMigrated) => {}
            Err(error) => return Err(error),
        }
        Ok(state)
    }

    pub(super) async fn run_up(&self) -> Result<Migrated, StoreError> {
        let running = async {
            let mut connection = self.connection().await?;
            let transaction = locked(&mut connection).await?;
            let mut migrated = Migrated::default();
            for migration in &POSTGRES {
                if step_up(&transaction, migration).await? {
                    migrated.versions.push(migration.version);
                }
            }
            // Only into new tables: what an admin has removed stays away.
            if migrated.versions.contains(&1) {
                seed(&transaction).await?;
            }
            transaction.commit().await.map_err(|error| from_driver(&error))?;
            Ok(migrated)
        };
        tokio::time::timeout(MIGRATION_DEADLINE, running).await.map_err(|_late| super::late())?
    }

    pub(super) async fn run_down(&self, to: i32) -> Result<Migrated, StoreError> {
        let running = async {
            let versions = self.read_migration_state().await?.applied_above(to);
            let mut migrated = Migrated::default();
            let mut connection = self.connection().await?;
            let transaction = locked(&mut connection).await?;
            let driver = |error: tokio_postgres::Error| from_driver(&error);
            if versions.contains(&1) {
                run(&transaction, sql::LOCK_EXECUTIONS).await?;
                let counted = transaction.query_typed(sql::COUNT_EXECUTIONS, &[]).await;
                let counted = counted.map_err(driver)?;
                migrated.archived = counted.first().map_or(0, |row| row.get(0));
            }
            for version in versions {
                let Some(migration) = POSTGRES.iter().find(|one| one.version == version) else {
                    continue;
                };
                run(&transaction, migration.down).await?;
                let params = [(&version as &(dyn ToSql + Sync), Type::INT4)];
                transaction.query_typed(sql::FORGET_MIGRATION, &params).await.map_err(driver)?;
                migrated.versions.push(version);
            }
            transaction.commit().await.map_err(driver)?;
            Ok(migrated)
        };
        tokio::time::timeout(MIGRATION_DEADLINE, running).await.map_err(|_late| super::late())?
    }
}

/// Runs one migration unless it has run; another process may just have done it.
async fn step_up(transaction: &Transaction<'_>, migration: &Migration) -> Result<bool, StoreError> {
    let driver = |error: tokio_postgres::Error| from_driver(&error);
    let params = [(&migration.version as &(dyn ToSql + Sync), Type::INT4)];
    let known = transaction.query_typed(sql::CHECKSUM, &params).await.map_err(driver)?;
    let checksum: Option<String> = known.first().map(|row| row.get(0));
    if migration.has_run(checksum.as_deref())? {
        return Ok(false);
    }
    run(transaction, migration.up).await?;
    let (name, checksum) = (migration.name, migration.checksum());
    let params = [
        (&migration.version as &(dyn ToSql + Sync), Type::INT4),
        (&name, Type::TEXT),
        (&checksum, Type::TEXT),
    ];
    transaction.query_typed(sql::REMEMBER_MIGRATION, &params).await.map_err(driver)?;
    Ok(true)
}

/// A transaction that no other migration runs beside.
async fn locked(connection: &mut Object) -> Result<Transaction<'_>, StoreError> {
    let client: &mut tokio_postgres::Client = connection;
    let transaction = client.transaction().await.map_err(|error| from_driver(&error))?;
    run(&transaction, sql::LOCK_MIGRATIONS).await?;
    Ok(transaction)
}

async fn run(transaction: &Transaction<'_>, sql: &str) -> Result<(), StoreError> {
    transaction.batch_execute(sql).await.map_err(|error| match error.as_db_error() {
        Some(server) => StoreError::Migration(format!(
            "SQLSTATE {}: {}",
            server.code().code(),
            server.message()
        )),
        None => from_driver(&error),
    })
}

async fn seed(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let seeds = files::seeds().map_err(|error| StoreError::Migration(error.to_string()))?;
    for table in Table::ALL {
        let Some(rows) = rows_of(&seeds, table)? else { continue };
        transaction
            .query_typed(&sql::put(table), &[(&Json(rows), Type::JSONB)])
            .await
            .map_err(|error| from_driver(&error))?;
    }
    Ok(())
}
