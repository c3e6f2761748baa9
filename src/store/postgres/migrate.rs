//! Migrating PostgreSQL: one transaction a step, serialised over all processes by a lock that ends
//! with it.

use tokio_postgres::Transaction;
use tokio_postgres::types::{Json, Type};

use super::{MIGRATION_DEADLINE, Postgres, from_driver, sql};
use crate::catalog::definitions::Definitions;
use crate::catalog::files;
use crate::store::migrations::{Migrated, Migration, MigrationState, POSTGRES};
use crate::store::{Store, StoreError};

impl Postgres {
    pub(super) async fn read_migration_state(&self) -> Result<MigrationState, StoreError> {
        let applied: Vec<_> = match self.query(sql::APPLIED, &[]).await {
            Ok(rows) => rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
            Err(StoreError::NotMigrated) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut state = MigrationState::new(&POSTGRES, &applied);
        match self.query(sql::ROW_COUNTS, &[]).await {
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
            let mut migrated = Migrated::default();
            for migration in &POSTGRES {
                if self.step_up(migration).await? {
                    migrated.versions.push(migration.version);
                }
            }
            Ok(migrated)
        };
        tokio::time::timeout(MIGRATION_DEADLINE, running).await.map_err(|_late| super::late())?
    }

    pub(super) async fn run_down(&self) -> Result<Migrated, StoreError> {
        let state = self.migration_state().await?;
        let newest = state.steps.iter().rev().find(|step| step.applied_at.is_some());
        let migration =
            newest.and_then(|step| POSTGRES.iter().find(|one| one.version == step.version));
        let Some(migration) = migration else { return Ok(Migrated::default()) };
        let mut connection = self.connection().await?;
        let transaction = locked(&mut connection).await?;
        run(&transaction, migration.down).await?;
        transaction
            .query_typed(sql::FORGET_MIGRATION, &[(&migration.version, Type::INT4)])
            .await
            .map_err(|error| from_driver(&error))?;
        transaction.commit().await.map_err(|error| from_driver(&error))?;
        Ok(Migrated { versions: vec![migration.version], archived: state.rows[2] })
    }

    /// Runs one migration unless it has run; another process may just have done it.
    async fn step_up(&self, migration: &Migration) -> Result<bool, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = locked(&mut connection).await?;
        let driver = |error: tokio_postgres::Error| from_driver(&error);
        let known = transaction
            .query_typed(sql::CHECKSUM, &[(&migration.version, Type::INT4)])
            .await
            .map_err(driver)?;
        if let Some(row) = known.first() {
            let checksum: String = row.get(0);
            if checksum != migration.checksum() {
                let version = migration.version;
                return Err(StoreError::Migration(format!(
                    "migration {version} ran here with another text than this binary's"
                )));
            }
            return Ok(false);
        }
        run(&transaction, migration.up).await?;
        if migration.version == 1 {
            seed(&transaction).await?;
        }
        let (name, checksum) = (migration.name, migration.checksum());
        let params = [
            (&migration.version as &(dyn tokio_postgres::types::ToSql + Sync), Type::INT4),
            (&name, Type::TEXT),
            (&checksum, Type::TEXT),
        ];
        transaction.query_typed(sql::REMEMBER_MIGRATION, &params).await.map_err(driver)?;
        transaction.commit().await.map_err(driver)?;
        Ok(true)
    }
}

/// A transaction that no other migration runs beside.
async fn locked(connection: &mut deadpool_postgres::Object) -> Result<Transaction<'_>, StoreError> {
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
    let Definitions { templates, guardrails, .. } =
        files::seeds().map_err(|error| StoreError::Migration(error.to_string()))?;
    for (sql, rows) in [
        (sql::SEED_TEMPLATES, serde_json::to_value(templates)),
        (sql::SEED_GUARDRAILS, serde_json::to_value(guardrails)),
    ] {
        let rows = rows.map_err(|error| StoreError::Migration(error.to_string()))?;
        transaction
            .query_typed(sql, &[(&Json(rows), Type::JSONB)])
            .await
            .map_err(|error| from_driver(&error))?;
    }
    Ok(())
}
