//! Erasing what was recorded of a user.

use jiff::Timestamp;
use tokio_postgres::types::Type;

use super::{ADMIN_DEADLINE, Param, Postgres};
use crate::store::StoreError;
use crate::store::erasure::{Erased, Erasure, Standing};
use crate::store::tidy::ROWS_MAX;
use crate::words::ids::Tenant;

pub(super) const ORDER: &str = "
    insert into prompt_erasures (id, tenant_id, user_id, user_sha256, requested_at)
    values ($1, $2, $3, $5, $4)";

/// What both statements go by: the order's id, the tenant, the user and the moment.
pub(super) fn order<'p>(erasure: &'p Erasure, tenant: &'p String) -> [Param<'p>; 4] {
    [
        (&erasure.id, Type::UUID),
        (tenant, Type::TEXT),
        (&erasure.user, Type::TEXT),
        (&erasure.requested_at, Type::TIMESTAMPTZ),
    ]
}

const STANDING: &str = "
    with ended as (
        update prompt_erasures set user_id = null
         where user_id is not null and requested_at < $1 and completed_at is not null)
    select id, tenant_id, user_id, requested_at,
           completed_at is null
           or exists (select from prompt_executions call
                       where call.user_id = one.user_id and call.tenant_id = one.tenant_id
                         and call.created_at < one.requested_at)
      from prompt_erasures one
     where user_id is not null and (requested_at >= $1 or completed_at is null)
     order by requested_at";

/// What stays of a unit has a name that leads to nobody, the same wherever the unit stands.
const ERASE: &str = "
    with gone as (
        delete from prompt_executions
         where (id, created_at) in (
               select id, created_at from prompt_executions
                where user_id = $3 and tenant_id = $2 and created_at < $4 limit $5)
        returning id, ab_test_experiment_id as experiment_id, unit_key
    ), units as materialized (
        select experiment_id, unit_key, 'erased-' || gen_random_uuid() as alias
          from (select experiment_id, unit_key from gone
                union
                select id, $3 from ab_test_experiments where tenant_id = $2) unit
    ), counted as (
        update ab_test_units as one set unit_key = units.alias
          from units where one.experiment_id = units.experiment_id and one.unit_key = units.unit_key
    ), said as (
        update ab_test_unit_feedback as one set unit_key = units.alias
          from units where one.experiment_id = units.experiment_id and one.unit_key = units.unit_key
    ), words as (
        update prompt_feedback set unit_key = null
         where id in (
               select id from prompt_feedback where tenant_id = $2 and unit_key = $3
               union all
               select one.id from gone
                 join prompt_feedback one on one.tenant_id = $2 and one.execution_id = gone.id
                where one.unit_key is not null)
    ), kept as (
        update prompt_erasures
           set executions = executions + (select count(*) from gone),
               completed_at = case when (select count(*) from gone) < $5
                                   then coalesce(completed_at, now()) end
         where id = $1
    )
    select count(*) from gone";

impl Postgres {
    pub(super) async fn standing(&self, since: Timestamp) -> Result<Vec<Standing>, StoreError> {
        let rows = self.query(STANDING, &[(&since, Type::TIMESTAMPTZ)]).await?;
        let standing = |row: &tokio_postgres::Row| Standing {
            erasure: Erasure {
                id: row.get(0),
                tenant: Tenant(row.get::<_, &str>(1).into()),
                user: row.get(2),
                requested_at: row.get(3),
            },
            is_due: row.get(4),
        };
        Ok(rows.iter().map(standing).collect())
    }

    pub(super) async fn erase_some(&self, erasure: &Erasure) -> Result<Erased, StoreError> {
        let tenant = erasure.tenant.to_string();
        let [id, tenant, user, at] = order(erasure, &tenant);
        let params = [id, tenant, user, at, (&ROWS_MAX as _, Type::INT8)];
        let rows = self.ask(ADMIN_DEADLINE, ERASE, &params).await?;
        Ok(Erased::of(rows.first().map_or(0, |row| row.get(0))))
    }
}
