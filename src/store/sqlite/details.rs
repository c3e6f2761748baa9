//! What is counted of one template in SQLite, beside its figures.

use rusqlite::{Connection, params};

use super::{from_driver, texts};
use crate::store::report::{Details, Interval, ReportQuery};
use crate::store::{StoreError, counted};

const DETAILS: &str = "
    with call as (
        select outcome, error_type, execution_time_ms, candidates_tokens, estimated_cost_usd,
               ab_test_experiment_id, created_at
          from prompt_executions
         where tenant_id = ?1 and created_at >= ?2 and created_at < ?3
           and (?4 is null or model_name = ?4)
           and (?5 is null or template_id = ?5)
           and (?6 is null or template_name = ?6))
    select json_object(
        'errors', json((select json_group_array(json_object('outcome', outcome,
                'error_type', error_type, 'executions', executions)
                order by executions desc, outcome, error_type)
              from (select outcome, error_type, count(*) as executions
                      from call group by 1, 2 order by 3 desc, 1, 2 limit 100))),
        'bands', json((select json_group_array(json_object('tokens_min', tokens_min,
                'executions', executions, 'avg_response_time_ms', mean, 'p50', p50, 'p95', p95)
                order by tokens_min)
              from (select tokens_min, count(*) as executions, avg(execution_time_ms) as mean,
                           min(execution_time_ms) filter (where rank >= 0.5 * count) as p50,
                           min(execution_time_ms) filter (where rank >= 0.95 * count) as p95
                      from (select tokens_min, execution_time_ms,
                                   row_number() over (partition by tokens_min
                                                      order by execution_time_ms) as rank,
                                   count(*) over (partition by tokens_min) as count
                              from (select case when candidates_tokens < 100 then 0 when candidates_tokens < 500 then 100
                    when candidates_tokens < 2000 then 500 when candidates_tokens < 8000 then 2000
                    else 8000 end as tokens_min, execution_time_ms
                                      from call
                                     where outcome = 'success' and candidates_tokens is not null))
                     group by tokens_min))),
        'series', json((select json_group_array(json_object('at', at, 'executions', executions,
                'success', success, 'failure', failure, 'blocked', blocked, 'attempted', attempted,
                'response_time_ms_sum', response_time_ms_sum, 'cost_usd', cost_usd) order by at)
              from (select iif(?7 = 'hour', substr(created_at, 1, 13) || ':00:00Z',
                               substr(created_at, 1, 10) || 'T00:00:00Z') as at,
                           count(*) as executions,
                           count(*) filter (where outcome = 'success') as success,
                           count(*) filter (where outcome in ('failed', 'incomplete')) as failure,
                           count(*) filter (where outcome in ('blocked', 'response_blocked')) as blocked,
                           count(*) filter (where outcome not in ('blocked', 'rejected')) as attempted,
                           coalesce(sum(execution_time_ms)
                               filter (where outcome not in ('blocked', 'rejected')), 0)
                               as response_time_ms_sum,
                           sum(cast(estimated_cost_usd as real)) as cost_usd
                      from call where ?7 is not null group by 1))),
        'cause', json((select json_object(
                'outside', count(*) filter (where ab_test_experiment_id is null),
                'experiments', count(distinct ab_test_experiment_id)) from call)))";

pub(super) fn detail(
    connection: &Connection,
    query: &ReportQuery,
    interval: Option<Interval>,
) -> Result<Details, StoreError> {
    let width = interval.map(|interval| match interval {
        Interval::Hour => "hour",
        Interval::Day => "day",
    });
    let params = params![
        query.tenant.to_string(),
        format!("{:.6}", query.from),
        format!("{:.6}", query.to),
        query.model,
        query.template_id.map(|id| id.to_string()),
        query.template_name,
        width,
    ];
    let rows = texts(connection, DETAILS, params).map_err(|error| from_driver(&error))?;
    Ok(counted(&rows)?.pop().unwrap_or_default())
}
