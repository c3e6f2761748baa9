//! Counting executions in PostgreSQL.

use super::Postgres;
use super::{ADMIN_DEADLINE, Param, from_driver};
use crate::store::report::{Report, ReportQuery, VersionFigures, sketched};
use crate::store::{StoreError, counted};
use tokio_postgres::types::Type;

const VERSIONS: &str = "
    select row_to_json(one)::text from (
        select template_id, template_name, template_version,
               count(*) as executions,
               count(*) filter (where outcome = 'success') as success,
               count(*) filter (where outcome = 'failed') as failed,
               count(*) filter (where outcome = 'incomplete') as incomplete,
               count(*) filter (where outcome = 'blocked') as blocked,
               count(*) filter (where outcome = 'response_blocked') as response_blocked,
               count(*) filter (where outcome = 'rejected') as rejected,
               count(*) filter (where outcome = 'client_left') as client_left,
               count(*) filter (where outcome = 'drained') as drained,
               count(*) filter (where outcome not in ('blocked', 'rejected')) as attempted,
               coalesce(sum(execution_time_ms) filter (where outcome not in ('blocked', 'rejected')), 0)
                   as response_time_ms_sum,
               coalesce(sum(prompt_tokens), 0) as prompt_tokens,
               coalesce(sum(cached_tokens), 0) as cached_tokens,
               coalesce(sum(thoughts_tokens), 0) as thoughts_tokens,
               coalesce(sum(candidates_tokens), 0) as candidates_tokens,
               count(estimated_cost_usd) as priced,
               count(*) filter (where estimated_cost_usd is null and token_count is not null)
                   as unpriced,
               sum(estimated_cost_usd)::text as cost_usd,
               sum(coalesce(cost_list_usd, estimated_cost_usd))::text as cost_list_usd
          from prompt_executions
         where tenant_id = $1 and created_at >= $2 and created_at < $3
           and ($4::text is null or model_name = $4)
           and ($5::uuid is null or template_id = $5)
           and ($6::text is null or template_name = $6)
         group by template_id, template_name, template_version
         order by count(*) desc, template_name, template_version) one";

const TIMES: &str = "
    select json_build_object(
           'response', json_build_object(
               'p50', percentile_disc(0.5) within group (order by execution_time_ms),
               'p90', percentile_disc(0.9) within group (order by execution_time_ms),
               'p95', percentile_disc(0.95) within group (order by execution_time_ms),
               'p99', percentile_disc(0.99) within group (order by execution_time_ms),
               'max', max(execution_time_ms)),
           'first_token', json_build_object(
               'p50', percentile_disc(0.5) within group (order by time_to_first_token_ms),
               'p90', percentile_disc(0.9) within group (order by time_to_first_token_ms),
               'p95', percentile_disc(0.95) within group (order by time_to_first_token_ms),
               'p99', percentile_disc(0.99) within group (order by time_to_first_token_ms),
               'max', max(time_to_first_token_ms)),
           'overhead', json_build_object(
               'p50', percentile_disc(0.5) within group (order by overhead_ms),
               'p90', percentile_disc(0.9) within group (order by overhead_ms),
               'p95', percentile_disc(0.95) within group (order by overhead_ms),
               'p99', percentile_disc(0.99) within group (order by overhead_ms),
               'max', max(overhead_ms)))::text
      from prompt_executions
     where outcome not in ('blocked', 'rejected')
       and tenant_id = $1 and created_at >= $2 and created_at < $3
           and ($4::text is null or model_name = $4)
           and ($5::uuid is null or template_id = $5)
           and ($6::text is null or template_name = $6)";

/// Buckets as `statistics::sketch` has them.
const SKETCH: &str = "
    select row_to_json(one)::text from (
        select of, ceil(ln(greatest(ms, 0.001)) / 0.02000066670666943)::integer as bucket,
               count(*) as count, max(ms) as max
          from prompt_executions
         cross join lateral (values ('response', execution_time_ms),
                                    ('first_token', time_to_first_token_ms),
                                    ('overhead', overhead_ms)) as measured (of, ms)
         where outcome not in ('blocked', 'rejected') and ms is not null
           and tenant_id = $1 and created_at >= $2 and created_at < $3
           and ($4::text is null or model_name = $4)
           and ($5::uuid is null or template_id = $5)
           and ($6::text is null or template_name = $6)
         group by 1, 2) one";

const GUARDRAILS: &str = "
    select row_to_json(one)::text from (
        select evaluation ->> 'rule_name' as rule_name,
               count(*) as evaluations,
               count(*) filter (where not (evaluation ->> 'passed')::boolean) as violations,
               count(*) filter (where exists (
                   select 1 from jsonb_array_elements(guardrail_violations) violation
                    where violation ->> 'rule_name' = evaluation ->> 'rule_name'
                      and violation ->> 'action' = 'block')) as blocks
          from prompt_executions, jsonb_array_elements(guardrails_evaluated) evaluation
         where evaluation ->> 'rule_name' <> '*' and tenant_id = $1 and created_at >= $2 and created_at < $3
           and ($4::text is null or model_name = $4)
           and ($5::uuid is null or template_id = $5)
           and ($6::text is null or template_name = $6)
         group by 1 order by 1) one";

const SOURCES: &str = "
    select row_to_json(one)::text from (
        select catalog_source as source, count(*) as executions
          from prompt_executions
         where tenant_id = $1 and created_at >= $2 and created_at < $3
           and ($4::text is null or model_name = $4)
           and ($5::uuid is null or template_id = $5)
           and ($6::text is null or template_name = $6)
         group by 1 order by 1) one";

impl Postgres {
    pub(super) async fn count(&self, query: &ReportQuery) -> Result<Report, StoreError> {
        let tenant = query.tenant.to_string();
        let params: [Param<'_>; 6] = [
            (&tenant, Type::TEXT),
            (&query.from, Type::TIMESTAMPTZ),
            (&query.to, Type::TIMESTAMPTZ),
            (&query.model, Type::TEXT),
            (&query.template_id, Type::UUID),
            (&query.template_name, Type::TEXT),
        ];
        let ask = async |sql: &str| -> Result<Vec<String>, StoreError> {
            let rows = self.ask(ADMIN_DEADLINE, sql, &params).await?;
            rows.iter().map(|row| row.try_get(0).map_err(|error| from_driver(&error))).collect()
        };
        let versions: Vec<VersionFigures> = counted(&ask(VERSIONS).await?)?;
        let rows: u64 = versions.iter().map(|one| one.attempted).sum();
        let exact = rows <= query.exact_rows_max;
        let times = if exact {
            counted(&ask(TIMES).await?)?.pop().unwrap_or_default()
        } else {
            sketched(&counted(&ask(SKETCH).await?)?)
        };
        Ok(Report {
            versions,
            times,
            exact,
            guardrails: counted(&ask(GUARDRAILS).await?)?,
            sources: counted(&ask(SOURCES).await?)?,
        })
    }
}
