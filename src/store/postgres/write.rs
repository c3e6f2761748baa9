//! A change of the catalog in one transaction.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Transaction;
use tokio_postgres::types::{Json, ToSql, Type};
use uuid::Uuid;

use super::{Object, Param, Postgres, erasure, from_driver, limits, sql};
use crate::catalog::definitions::Definitions;
use crate::store::audit::Entry;
use crate::store::erasure::Erasure;
use crate::store::{Activation, Change, Done, Expect, StoreError, Table, Turn, rows_of};

impl Postgres {
    pub(super) async fn write(
        &self,
        connection: &mut Object,
        change: &Change,
        deadline: Duration,
    ) -> Result<(), StoreError> {
        let client: &mut tokio_postgres::Client = connection;
        let transaction = client.transaction().await.map_err(|error| from_driver(&error))?;
        let writing = Writing(transaction);
        let lock = format!("{}; {}", limits::set(deadline), sql::LOCK_CATALOG);
        writing.0.batch_execute(&lock).await.map_err(|error| from_driver(&error))?;
        for table in Table::ALL {
            writing.check(table, &change.expects).await?;
        }
        writing.put(&change.puts).await?;
        for turn in &change.turns {
            writing.turn(turn).await?;
        }
        writing.activate(&change.activations).await?;
        writing.order(&change.erasures).await?;
        writing.chain(&change.audit).await?;
        if let Some(done) = &change.done {
            writing.remember(done).await?;
        }
        writing.0.commit().await.map_err(|error| from_driver(&error))
    }
}

struct Writing<'t>(Transaction<'t>);

impl Writing<'_> {
    async fn ask(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        self.0.query_typed(sql, params).await.map_err(|error| from_driver(&error))
    }

    async fn check(&self, table: Table, expects: &[Expect]) -> Result<(), StoreError> {
        let expects: Vec<&Expect> = expects.iter().filter(|one| one.table == table).collect();
        if expects.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = expects.iter().map(|one| one.id).collect();
        let rows = self.ask(&sql::revisions(table), &[(&ids, Type::UUID_ARRAY)]).await?;
        for expect in expects {
            let row = rows.iter().find(|row| row.get::<_, Uuid>(0) == expect.id);
            if row.map(|row| row.get::<_, i64>(1)) != expect.revision {
                return Err(StoreError::Moved { table: table.name(), id: expect.id });
            }
        }
        Ok(())
    }

    async fn put(&self, definitions: &Definitions) -> Result<(), StoreError> {
        for table in Table::ALL {
            if let Some(rows) = rows_of(definitions, table)? {
                self.ask(&sql::put(table), &[(&Json(rows), Type::JSONB)]).await?;
            }
        }
        Ok(())
    }

    async fn turn(&self, turn: &Turn) -> Result<(), StoreError> {
        let params: [Param<'_>; 2] =
            [(&turn.experiment.0, Type::UUID), (&turn.at, Type::TIMESTAMPTZ)];
        self.ask(sql::END_PHASE, &params).await?;
        let Some(phase) = &turn.begins else { return Ok(()) };
        let rows = serde_json::to_value([phase])
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        self.ask(sql::BEGIN_PHASE, &[(&Json(rows), Type::JSONB)]).await.map(drop)
    }

    async fn activate(&self, activations: &[Activation]) -> Result<(), StoreError> {
        if activations.is_empty() {
            return Ok(());
        }
        let rows = serde_json::to_value(activations)
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        self.ask(sql::INSERT_ACTIVATIONS, &[(&Json(rows), Type::JSONB)]).await.map(drop)
    }

    async fn order(&self, erasures: &[Erasure]) -> Result<(), StoreError> {
        for erasure in erasures {
            let (tenant, sha256) = (erasure.tenant.to_string(), erasure.user_sha256());
            let [id, tenant, user, at] = erasure::order(erasure, &tenant);
            self.ask(erasure::ORDER, &[id, tenant, user, at, (&sha256, Type::TEXT)]).await?;
        }
        Ok(())
    }

    /// Hangs the entries onto the chain; the lock on the catalog keeps its end still.
    async fn chain(&self, entries: &[Entry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let last = self.ask(sql::LAST_HASH, &[]).await?;
        let mut previous: Option<String> = last.first().and_then(|row| row.get(0));
        let mut links = Vec::with_capacity(entries.len());
        for entry in entries {
            let hash = entry.hash(previous.as_deref());
            links.push((previous.replace(hash.clone()), hash));
        }
        let (before_hashes, hashes): (Vec<Option<String>>, Vec<String>) = links.into_iter().unzip();
        let column = |one: fn(&Entry) -> Option<&str>| -> Vec<Option<&str>> {
            entries.iter().map(one).collect()
        };
        let ids: Vec<Uuid> = entries.iter().map(|entry| entry.id).collect();
        let times: Vec<Timestamp> = entries.iter().map(|entry| entry.at).collect();
        let texts = [
            column(|entry| Some(&entry.tenant_id.0)),
            column(|entry| Some(&entry.actor)),
            column(|entry| Some(&entry.action)),
            column(|entry| Some(entry.object_type)),
            column(|entry| Some(&entry.object_id)),
            column(|entry| entry.before.as_deref()),
            column(|entry| entry.after.as_deref()),
            column(|entry| entry.reason.as_deref()),
            column(|entry| entry.request_id.as_deref()),
        ];
        let [tenants, actors, actions, types, objects, before, after, reasons, requests] = &texts;
        let text = |column| (column as &(dyn ToSql + Sync), Type::TEXT_ARRAY);
        let params = [
            (&ids as &(dyn ToSql + Sync), Type::UUID_ARRAY),
            text(tenants),
            (&times, Type::TIMESTAMPTZ_ARRAY),
            text(actors),
            text(actions),
            text(types),
            text(objects),
            text(before),
            text(after),
            text(reasons),
            text(requests),
            (&before_hashes, Type::TEXT_ARRAY),
            (&hashes, Type::TEXT_ARRAY),
        ];
        self.ask(sql::INSERT_AUDIT, &params).await.map(drop)
    }

    async fn remember(&self, done: &Done) -> Result<(), StoreError> {
        self.ask(sql::FORGET_DONE, &[]).await?;
        let status = i32::from(done.status);
        let params: [Param<'_>; 5] = [
            (&done.actor, Type::TEXT),
            (&done.key, Type::TEXT),
            (&done.fingerprint, Type::TEXT),
            (&status, Type::INT4),
            (&done.object_id, Type::TEXT),
        ];
        self.ask(sql::REMEMBER_DONE, &params).await.map(drop)
    }
}
