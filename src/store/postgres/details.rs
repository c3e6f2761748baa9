//! What is counted of one template in PostgreSQL, beside its figures.

use tokio_postgres::types::Type;

use super::{Param, Postgres};
use crate::store::report::{Details, Interval, ReportQuery};
use crate::store::{StoreError, counted};

/// Everything in one statement, and so as of one moment.
const DETAILS: &str = "
    with call as (
        select outcome, error_type, execution_time_ms, candidates_tokens, estimated_cost_usd,
               ab_test_experiment_id, created_at
          from prompt_executions
         where tenant_id = $1 and created_at >= $2 and created_at < $3
           and ($4::text is null or model_name = $4)
           and ($5::uuid is null or template_id = $5)
           and ($6::text is null or template_name = $6))
    select json_build_object(
        'errors', (select coalesce(json_agg(one), '[]') from (
            select outcome, error_type, count(*) as executions
              from call group by 1, 2 order by 3 desc, 1, 2 limit 100) one),
        'bands', (select coalesce(json_agg(one), '[]') from (
            select case when candidates_tokens < 100 then 0 when candidates_tokens < 500 then 100
                    when candidates_tokens < 2000 then 500 when candidates_tokens < 8000 then 2000
                    else 8000 end as tokens_min, count(*) as executions,
                   avg(execution_time_ms) as avg_response_time_ms,
                   percentile_disc(0.5) within group (order by execution_time_ms) as p50,
                   percentile_disc(0.95) within group (order by execution_time_ms) as p95
              from call where outcome = 'success' and candidates_tokens is not null
             group by 1 order by 1) one),
        'series', (select coalesce(json_agg(one), '[]') from (
            select date_trunc($7, created_at at time zone 'utc') at time zone 'utc' as at,
                   count(*) as executions,
                   count(*) filter (where outcome = 'success') as success,
                   count(*) filter (where outcome in ('failed', 'incomplete')) as failure,
                   count(*) filter (where outcome in ('blocked', 'response_blocked')) as blocked,
                   count(*) filter (where outcome not in ('blocked', 'rejected')) as attempted,
                   coalesce(sum(execution_time_ms)
                       filter (where outcome not in ('blocked', 'rejected')), 0) as response_time_ms_sum,
                   sum(estimated_cost_usd) as cost_usd
              from call where $7::text is not null group by 1 order by 1) one),
        'cause', (select row_to_json(one) from (
            select count(*) filter (where ab_test_experiment_id is null) as outside,
                   count(distinct ab_test_experiment_id) as experiments
              from call) one))::text";

impl Postgres {
    pub(super) async fn detail(
        &self,
        query: &ReportQuery,
        interval: Option<Interval>,
    ) -> Result<Details, StoreError> {
        let tenant = query.tenant.to_string();
        let width = interval.map(|interval| match interval {
            Interval::Hour => "hour",
            Interval::Day => "day",
        });
        let params: [Param<'_>; 7] = [
            (&tenant, Type::TEXT),
            (&query.from, Type::TIMESTAMPTZ),
            (&query.to, Type::TIMESTAMPTZ),
            (&query.model, Type::TEXT),
            (&query.template_id, Type::UUID),
            (&query.template_name, Type::TEXT),
            (&width, Type::TEXT),
        ];
        Ok(counted(&self.texts(DETAILS, &params).await?)?.pop().unwrap_or_default())
    }
}
