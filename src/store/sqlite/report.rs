//! Counting executions in SQLite.

use rusqlite::{Connection, params};

use super::{from_driver, texts};
use crate::store::report::{Report, ReportQuery, VersionFigures, sketched};
use crate::store::{StoreError, counted};

/// Money is text here: whole dollars and the twelve decimals are summed apart, as integers.
const VERSIONS: &str = "
    select json_object(
               'template_id', template_id, 'template_name', template_name,
               'template_version', template_version,
               'executions', executions,
               'success', success,
               'failed', failed,
               'incomplete', incomplete,
               'blocked', blocked,
               'response_blocked', response_blocked,
               'rejected', rejected,
               'client_left', client_left,
               'drained', drained,
               'attempted', attempted,
               'response_time_ms_sum', response_time_ms_sum,
               'prompt_tokens', prompt_tokens,
               'cached_tokens', cached_tokens,
               'thoughts_tokens', thoughts_tokens,
               'candidates_tokens', candidates_tokens,
               'priced', priced,
               'unpriced', unpriced,
               'cost_usd', cost_usd,
               'cost_list_usd', cost_list_usd)
      from (select template_id, template_name, template_version,
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
               iif(count(estimated_cost_usd) > 0, printf('%d.%012d',
                   sum(cast(estimated_cost_usd as integer))
                       + sum(cast(substr(substr(estimated_cost_usd,
                           instr(estimated_cost_usd || '.', '.') + 1) || '000000000000', 1, 12) as integer))
                         / 1000000000000,
                   sum(cast(substr(substr(estimated_cost_usd,
                       instr(estimated_cost_usd || '.', '.') + 1) || '000000000000', 1, 12) as integer))
                       % 1000000000000), null) as cost_usd,
               iif(count(list_usd) > 0, printf('%d.%012d',
                   sum(cast(list_usd as integer))
                       + sum(cast(substr(substr(list_usd,
                           instr(list_usd || '.', '.') + 1) || '000000000000', 1, 12) as integer))
                         / 1000000000000,
                   sum(cast(substr(substr(list_usd,
                       instr(list_usd || '.', '.') + 1) || '000000000000', 1, 12) as integer))
                       % 1000000000000), null) as cost_list_usd
          from (select *, coalesce(cost_list_usd, estimated_cost_usd) as list_usd from prompt_executions)
         where tenant_id = ?1 and created_at >= ?2 and created_at < ?3
           and (?4 is null or model_name = ?4)
           and (?5 is null or template_id = ?5)
           and (?6 is null or template_name = ?6)
         group by template_id, template_name, template_version
         order by count(*) desc, template_name, template_version)";

const TIMES: &str = "
    select json_object(
           'response', json_object(
               'p50', min(execution_time_ms) filter (where response_rank >= 0.5 * response_count),
               'p90', min(execution_time_ms) filter (where response_rank >= 0.9 * response_count),
               'p95', min(execution_time_ms) filter (where response_rank >= 0.95 * response_count),
               'p99', min(execution_time_ms) filter (where response_rank >= 0.99 * response_count),
               'max', max(execution_time_ms)),
           'first_token', json_object(
               'p50', min(time_to_first_token_ms) filter (where first_rank >= 0.5 * first_count),
               'p90', min(time_to_first_token_ms) filter (where first_rank >= 0.9 * first_count),
               'p95', min(time_to_first_token_ms) filter (where first_rank >= 0.95 * first_count),
               'p99', min(time_to_first_token_ms) filter (where first_rank >= 0.99 * first_count),
               'max', max(time_to_first_token_ms)),
           'overhead', json_object(
               'p50', min(overhead_ms) filter (where overhead_rank >= 0.5 * overhead_count),
               'p90', min(overhead_ms) filter (where overhead_rank >= 0.9 * overhead_count),
               'p95', min(overhead_ms) filter (where overhead_rank >= 0.95 * overhead_count),
               'p99', min(overhead_ms) filter (where overhead_rank >= 0.99 * overhead_count),
               'max', max(overhead_ms)))
      from (select execution_time_ms, count(execution_time_ms) over () as response_count,
                    row_number() over (order by execution_time_ms is null, execution_time_ms) as response_rank,
                   time_to_first_token_ms, count(time_to_first_token_ms) over () as first_count,
                    row_number() over (order by time_to_first_token_ms is null, time_to_first_token_ms) as first_rank,
                   overhead_ms, count(overhead_ms) over () as overhead_count,
                    row_number() over (order by overhead_ms is null, overhead_ms) as overhead_rank
          from prompt_executions
         where outcome not in ('blocked', 'rejected')
           and tenant_id = ?1 and created_at >= ?2 and created_at < ?3
           and (?4 is null or model_name = ?4)
           and (?5 is null or template_id = ?5)
           and (?6 is null or template_name = ?6))";

/// Buckets as `statistics::sketch` has them.
const SKETCH: &str = "
    select json_object('of', of, 'bucket', bucket, 'count', count, 'max', max) from (
        select of,
               -- Upwards, as there is no function for it here.
               cast(ln(max(ms, 0.001)) / 0.02000066670666943 as integer) + (ln(max(ms, 0.001)) > 0) as bucket,
               count(*) as count, max(ms) as max
          from (select of, case of when 'response' then execution_time_ms
                                   when 'first_token' then time_to_first_token_ms
                                   else overhead_ms end as ms
                  from prompt_executions
                  join (select 'response' as of union all select 'first_token' union all select 'overhead')
                 where outcome not in ('blocked', 'rejected')
                   and tenant_id = ?1 and created_at >= ?2 and created_at < ?3
                   and (?4 is null or model_name = ?4)
                   and (?5 is null or template_id = ?5)
                   and (?6 is null or template_name = ?6))
         where ms is not null
         group by 1, 2)";

const GUARDRAILS: &str = "
    select json_object('rule_name', rule_name, 'evaluations', evaluations,
                       'violations', violations, 'blocks', blocks)
      from (select evaluation.value ->> 'rule_name' as rule_name,
               count(*) as evaluations,
               count(*) filter (where not (evaluation.value ->> 'passed')) as violations,
               count(*) filter (where exists (
                   select 1 from json_each(guardrail_violations) violation
                    where violation.value ->> 'rule_name' = evaluation.value ->> 'rule_name'
                      and violation.value ->> 'action' = 'block')) as blocks
          from prompt_executions, json_each(guardrails_evaluated) evaluation
         where evaluation.value ->> 'rule_name' <> '*' and tenant_id = ?1 and created_at >= ?2 and created_at < ?3
           and (?4 is null or model_name = ?4)
           and (?5 is null or template_id = ?5)
           and (?6 is null or template_name = ?6)
         group by 1 order by 1)";

const SOURCES: &str = "
    select json_object('source', source, 'executions', executions)
      from (select catalog_source as source, count(*) as executions
          from prompt_executions
         where tenant_id = ?1 and created_at >= ?2 and created_at < ?3
           and (?4 is null or model_name = ?4)
           and (?5 is null or template_id = ?5)
           and (?6 is null or template_name = ?6)
         group by 1 order by 1)";

pub(super) fn count(connection: &Connection, query: &ReportQuery) -> Result<Report, StoreError> {
    let ask = |sql: &str| {
        let params = params![
            query.tenant.to_string(),
            format!("{:.6}", query.from),
            format!("{:.6}", query.to),
            query.model,
            query.template_id.map(|id| id.to_string()),
            query.template_name,
        ];
        texts(connection, sql, params).map_err(|error| from_driver(&error))
    };
    let versions: Vec<VersionFigures> = counted(&ask(VERSIONS)?)?;
    let rows: u64 = versions.iter().map(|one| one.attempted).sum();
    let exact = rows <= query.exact_rows_max;
    let times = if exact {
        counted(&ask(TIMES)?)?.pop().unwrap_or_default()
    } else {
        sketched(&counted(&ask(SKETCH)?)?)
    };
    Ok(Report {
        versions,
        times,
        exact,
        guardrails: counted(&ask(GUARDRAILS)?)?,
        sources: counted(&ask(SOURCES)?)?,
    })
}
