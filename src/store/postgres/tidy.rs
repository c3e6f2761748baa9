//! Partitions of executions: made ahead, dropped whole when all that is in them is old.
//!
//! Every step is a transaction of its own that gives up a lock within a quarter of a second: whoever waits
//! behind it waits no longer, and the next round tries again. `detach concurrently` would need no such lock,
//! but PostgreSQL refuses it beside a default partition.

use jiff::Timestamp;
use tokio_postgres::types::Type;

use super::{DEADLINE, Lent, Param, Postgres, from_driver, late, limits};
use crate::config::{PartitionBy, Retention};
use crate::store::StoreError;
use crate::store::tidy::{Period, ROWS_MAX, Tidied, oldest_kept, part};

/// Of all sidecars, one at a time; the lock ends with its transaction, as a pooler asks for.
const ALONE: &str = "select pg_try_advisory_xact_lock(7267733013)";
const LOCK_PATIENCE: &str = "set local lock_timeout = 250";
/// Bounds come out in the session's time zone, with its offset; the default partition has none.
const PARTITIONS: &str = "
    select c.oid::regclass::text,
           (regexp_match(b.bound, 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz,
           (regexp_match(b.bound, 'TO \\(''([^'']+)''\\)'))[1]::timestamptz
      from pg_inherits i
      join pg_class c on c.oid = i.inhrelid
     cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as bound) b
     where i.inhparent = 'prompt_executions'::regclass";
const PRUNE_DEFAULT: &str = "
    with gone as (
        delete from prompt_executions_default
         where ctid = any (array(select ctid from prompt_executions_default where created_at < $1 limit $2))
        returning 1)
    select count(*) from gone";

/// A partition with bounds. The name is quoted where it must be.
#[derive(Debug, Clone)]
struct Partition {
    name: String,
    period: Period,
}

impl Postgres {
    /// Of what fails, the first is told, and the rest is done. Where the server's clock is behind `now`, it is
    /// believed: a sidecar whose clock is ahead would drop what others have just written.
    pub(super) async fn tidy_up(
        &self,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Tidied, StoreError> {
        let mut tidied = Tidied::default();
        let clock = self.query("select clock_timestamp()", &[]).await?;
        let now = clock.first().map_or(now, |row| now.min(row.get(0)));
        let partitions = self.partitions().await?;
        let kept = self.drop_unfit(partitions, retention.partition_by, now, &mut tidied).await;
        self.make_coming(&kept, retention.partition_by, now, &mut tidied).await;
        let Some(oldest) = oldest_kept(retention, now) else { return Ok(tidied) };
        for one in kept.into_iter().filter(|one| one.period.to <= oldest) {
            let dropped = self.alone(&format!("drop table if exists {}", one.name)).await;
            if tidied.noted(dropped) {
                tidied.dropped.push(one.name);
            }
        }
        let params: [Param<'_>; 2] = [(&oldest, Type::TIMESTAMPTZ), (&ROWS_MAX, Type::INT8)];
        let rows = self.query(PRUNE_DEFAULT, &params).await?;
        let count = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        tidied.rows = u64::try_from(count).unwrap_or_default();
        tidied.more = count == ROWS_MAX;
        Ok(tidied)
    }

    /// Drops months to come where days are asked for now, or days where months are, if nothing is in them;
    /// gives the others. Only what looks empty is locked: reports wait for it.
    async fn drop_unfit(
        &self,
        partitions: Vec<Partition>,
        by: PartitionBy,
        now: Timestamp,
        tidied: &mut Tidied,
    ) -> Vec<Partition> {
        let mut kept = Vec::new();
        for one in partitions {
            let is_unfit = one.period.from > now && !one.period.is_of(by);
            if is_unfit && tidied.noted(self.drop_if_empty(&one).await) {
                tidied.dropped.push(one.name);
            } else {
                kept.push(one);
            }
        }
        kept
    }

    async fn drop_if_empty(&self, partition: &Partition) -> Result<bool, StoreError> {
        let filled = format!("select exists (select from {})", partition.name);
        let rows = self.query(&filled, &[]).await?;
        if rows.first().is_none_or(|row| row.get(0)) {
            return Ok(false);
        }
        Ok(self.alone(&drop_empty(&partition.name)).await? && !self.is_there(partition).await?)
    }

    async fn make_coming(
        &self,
        kept: &[Partition],
        by: PartitionBy,
        now: Timestamp,
        tidied: &mut Tidied,
    ) {
        let taken: Vec<Period> = kept.iter().map(|one| one.period).collect();
        for (name, period) in Period::coming(by, now) {
            for free in period.without(&taken) {
                let name = part(&name, &period, &free);
                if tidied.noted(self.alone(&make(&name, &free)).await) {
                    tidied.made.push(name);
                }
            }
        }
    }

    async fn partitions(&self) -> Result<Vec<Partition>, StoreError> {
        let rows = self.query(PARTITIONS, &[]).await?;
        let bounded = rows.iter().filter_map(|row| {
            let (from, to): (Option<Timestamp>, Option<Timestamp>) = (row.get(1), row.get(2));
            Some(Partition { name: row.get(0), period: Period { from: from?, to: to? } })
        });
        Ok(bounded.collect())
    }

    async fn is_there(&self, partition: &Partition) -> Result<bool, StoreError> {
        let found = "select to_regclass($1) is not null";
        let rows = self.query(found, &[(&partition.name, Type::TEXT)]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Runs a change of the schema unless another sidecar is at it. Whether it ran.
    async fn alone(&self, sql: &str) -> Result<bool, StoreError> {
        let working = async {
            let mut lent = Lent::new(self.connection().await?);
            let connection = lent.0.as_mut().ok_or_else(late)?;
            let client: &mut tokio_postgres::Client = connection;
            let driver = |error: tokio_postgres::Error| from_driver(&error);
            let transaction = client.transaction().await.map_err(driver)?;
            let begin = format!("{}; {LOCK_PATIENCE}", limits::set(DEADLINE));
            transaction.batch_execute(&begin).await.map_err(driver)?;
            let locked = transaction.query_typed(ALONE, &[]).await.map_err(driver)?;
            let is_alone = locked.first().is_some_and(|row| row.get(0));
            if is_alone {
                transaction.batch_execute(sql).await.map_err(driver)?;
            }
            transaction.commit().await.map_err(driver)?;
            lent.give_back();
            Ok(is_alone)
        };
        tokio::time::timeout(DEADLINE, working).await.map_err(|_late| late())?
    }
}

/// Made beside the table and attached, which lets readers and writers go on. What the default partition
/// has of its time is moved, in the same transaction; triggers have counted it already.
fn make(name: &str, Period { from, to }: &Period) -> String {
    format!(
        "create table {name} (like prompt_executions including all);
         do $$
         begin
             if exists (select from prompt_executions_default where created_at >= '{from}' and created_at < '{to}') then
                 lock table prompt_executions_default in access exclusive mode;
                 with moved as (
                     delete from prompt_executions_default
                      where created_at >= '{from}' and created_at < '{to}' returning *)
                 insert into {name} select * from moved;
             end if;
         end
         $$;
         alter table prompt_executions attach partition {name} for values from ('{from}') to ('{to}')"
    )
}

/// A month in the future, where days are asked for now, or days where a month is.
fn drop_empty(name: &str) -> String {
    format!(
        "lock table only prompt_executions in access exclusive mode;
         do $$
         begin
             if to_regclass('{name}') is not null and not exists (select from {name}) then
                 drop table {name};
             end if;
         end
         $$"
    )
}
