//! Erasing what was recorded of a user, also from the free pages of the file.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use crate::store::erasure::{Erased, Erasure, Standing};
use crate::store::tidy::ROWS_MAX;
use crate::words::ids::Tenant;

const ORDER: &str = "
    insert into prompt_erasures (id, tenant_id, user_id, user_sha256, requested_at)
    values (?1, ?2, ?3, ?4, ?5)";

const END: &str = "
    update prompt_erasures set user_id = null
     where user_id is not null and requested_at < ?1 and completed_at is not null";

const STANDING: &str = "
    select id, tenant_id, user_id, requested_at,
           completed_at is null
           or exists (select 1 from prompt_executions call
                       where call.user_id = one.user_id and call.tenant_id = one.tenant_id
                         and call.created_at < one.requested_at)
      from prompt_erasures one
     where user_id is not null
     order by requested_at";

const FOUND: &str = "
    create temp table erased as
    select id, ab_test_experiment_id as experiment_id, unit_key
      from prompt_executions
     where user_id = ?1 and tenant_id = ?2 and created_at < ?3 limit ?4";

/// What stays of a unit has a name that leads to nobody, the same wherever the unit stands.
const UNITS: &str = "
    select experiment_id, unit_key from temp.erased
     where experiment_id is not null and unit_key is not null
    union
    select id, ?1 from ab_test_experiments where tenant_id = ?2";
const RENAME: [&str; 2] = [
    "update ab_test_units set unit_key = ?3 where experiment_id = ?1 and unit_key = ?2",
    "update ab_test_unit_feedback set unit_key = ?3 where experiment_id = ?1 and unit_key = ?2",
];

const WORDS: &str = "
    update prompt_feedback set unit_key = null
     where tenant_id = ?2 and (unit_key = ?1 or execution_id in (select id from temp.erased))
       and unit_key is not null";

const DELETE: &str = "
    delete from prompt_executions where id in (select id from temp.erased)";

const KEEP: &str = "
    update prompt_erasures
       set executions = executions + ?2,
           completed_at = iif(?3, null, coalesce(completed_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))
     where id = ?1";

pub(super) fn order(transaction: &Transaction<'_>, erasure: &Erasure) -> rusqlite::Result<()> {
    let Erasure { id, tenant, user, requested_at } = erasure;
    let at = format!("{requested_at:.6}");
    let params = params![id.to_string(), tenant.to_string(), user, erasure.user_sha256(), at];
    transaction.execute(ORDER, params).map(drop)
}

pub(super) fn standing(
    connection: &Connection,
    since: Timestamp,
) -> rusqlite::Result<Vec<Standing>> {
    connection.execute(END, [format!("{since:.6}")])?;
    let mut statement = connection.prepare_cached(STANDING)?;
    let rows = statement.query_map([], |row| {
        let (id, tenant, at): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(3)?);
        Ok(Standing {
            erasure: Erasure {
                id: id.parse().unwrap_or_default(),
                tenant: Tenant(tenant.into()),
                user: row.get(2)?,
                requested_at: at.parse().unwrap_or_default(),
            },
            is_due: row.get(4)?,
        })
    })?;
    rows.collect()
}

pub(super) fn erase(connection: &mut Connection, erasure: &Erasure) -> rusqlite::Result<Erased> {
    connection.pragma_update(None, "secure_delete", true)?;
    let erased = erase_some(connection, erasure);
    connection.pragma_update(None, "secure_delete", false)?;
    let erased = erased?;
    if !erased.more {
        // Out of the log as well. Who reads keeps it from that for now; the log comes round by itself.
        connection.query_row("pragma wal_checkpoint(truncate)", [], |_row| Ok(()))?;
    }
    Ok(erased)
}

fn erase_some(connection: &mut Connection, erasure: &Erasure) -> rusqlite::Result<Erased> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (user, tenant) = (&erasure.user, erasure.tenant.to_string());
    let before = format!("{:.6}", erasure.requested_at);
    transaction.execute(FOUND, params![user, tenant, before, ROWS_MAX])?;
    for (experiment, unit) in units(&transaction, user, &tenant)? {
        let alias = format!("erased-{}", Uuid::new_v4());
        for statement in RENAME {
            transaction.prepare_cached(statement)?.execute([&experiment, &unit, &alias])?;
        }
    }
    transaction.execute(WORDS, [user, &tenant])?;
    let gone = transaction.execute(DELETE, [])?;
    transaction.execute_batch("drop table temp.erased")?;
    let erased = Erased::of(i64::try_from(gone).unwrap_or(i64::MAX));
    transaction.execute(KEEP, params![erasure.id.to_string(), erased.executions, erased.more])?;
    transaction.commit()?;
    Ok(erased)
}

fn units(
    transaction: &Transaction<'_>,
    user: &str,
    tenant: &str,
) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = transaction.prepare_cached(UNITS)?;
    statement.query_map([user, tenant], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
