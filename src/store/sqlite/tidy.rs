//! Old executions of the embedded store, in small steps: the pages that become free are filled again, so the
//! file stops to grow.

use rusqlite::Connection;

use crate::store::tidy::{ROWS_MAX, Tidied};

/// Too old, of every tenant by its index.
const PRUNE_OLD: &str = "
    with recursive tenants (tenant_id) as (
        select min(tenant_id) from prompt_executions
        union all
        select (select min(tenant_id) from prompt_executions where tenant_id > tenants.tenant_id)
          from tenants where tenant_id is not null)
    delete from prompt_executions where rowid in (
        select e.rowid from tenants join prompt_executions e
            on e.tenant_id = tenants.tenant_id and e.created_at < ?1
         limit ?2)";
/// Those stored first.
const PRUNE_FIRST: &str = "
    delete from prompt_executions where rowid in (
        select rowid from prompt_executions order by rowid limit ?1)";
const BYTES: &str = "
    select (page_count - freelist_count) * page_size
      from pragma_page_count, pragma_freelist_count, pragma_page_size";
/// Those of the outbox, also the ones that were damaged.
const OUTBOX: &str = "
    select name from sqlite_schema
     where type = 'table' and (name in ('outbox', 'outbox_dead_letters') or name like 'outbox_damaged_%')";

/// One step: executions that are too old, else the first ones of a store that is too big.
pub(super) fn tidy(
    connection: &Connection,
    oldest: Option<&str>,
    bytes_max: u64,
) -> rusqlite::Result<Tidied> {
    let mut rows = match oldest {
        Some(oldest) => connection.execute(PRUNE_OLD, (oldest, ROWS_MAX))?,
        None => 0,
    };
    if rows == 0 && bytes(connection)? > bytes_max {
        rows = connection.execute(PRUNE_FIRST, [ROWS_MAX])?;
    }
    Ok(Tidied { rows: rows as u64, more: rows > 0, ..Tidied::default() })
}

/// Of what the store holds; the outbox has a budget of its own.
fn bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let all: u64 = connection.query_row(BYTES, [], |row| row.get(0))?;
    let mut statement = connection.prepare_cached(OUTBOX)?;
    let tables: Vec<String> =
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let outbox: u64 = tables
        .iter()
        .map(|table| {
            let bytes =
                if table == "outbox_dead_letters" { "octet_length(execution)" } else { "bytes" };
            let sum = format!("select coalesce(sum({bytes}), 0) from {table}");
            // Of a damaged one the index may be damaged too.
            connection.query_row(&sum, [], |row| row.get::<_, u64>(0)).unwrap_or_default()
        })
        .sum();
    Ok(all.saturating_sub(outbox))
}
