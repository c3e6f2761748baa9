//! Outcomes in SQLite: feedback in, sums out, results kept.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::{from_driver, texts};
use crate::results::{ArmLatencies, Collected, Milestone};
use crate::store::outcomes::{Exposure, Feedback, Heard, Kept};
use crate::store::{StoreError, counted};

const EXPOSURE: &str = "
    select created_at, ab_test_experiment_id, ab_test_group
      from prompt_executions where tenant_id = ?1 and id = ?2";

const KEY: &str =
    "select fingerprint from prompt_feedback_keys where tenant_id = ?1 and idempotency_key = ?2";

const PUT_KEY: &str = "
    insert into prompt_feedback_keys (tenant_id, idempotency_key, fingerprint) values (?1, ?2, ?3)";

const PUT: &str = "
    insert into prompt_feedback
          (id, tenant_id, execution_id, key, value, idempotency_key, created_by, experiment_id, phase,
           arm, unit_key)
    select ?3, tenant_id, id, ?4, ?5, ?6, ?7,
           iif(analysed, experiment_id, null),
           iif(analysed, (select coalesce(max(phase), 1) from ab_test_phases phase
                           where phase.experiment_id = exposure.experiment_id
                             and rtrim(phase.started_at, 'Z') <= rtrim(exposure.created_at, 'Z')), null),
           iif(analysed, arm, null), iif(analysed, unit_key, null)
      from (select tenant_id, id, created_at, ab_test_experiment_id as experiment_id,
                   ab_test_group as arm, unit_key,
                   ab_test_experiment_id is not null and ab_test_group is not null
                       and unit_key is not null and coalesce(assignment_reason, 'assigned')
                       not in ('forced', 'left', 'paused', 'excluded') as analysed
              from prompt_executions where tenant_id = ?1 and id = ?2) exposure
     where true
        on conflict (tenant_id, execution_id, key) do update set
           value = excluded.value, idempotency_key = excluded.idempotency_key,
           created_by = excluded.created_by, updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";

const COLLECTED: &str = "
    select json_object(
        'parameters', json((select json_object('target_units', target_units, 'latency_cap_ms', latency_cap_ms,
                'cost_cap_usd', cast(cost_cap_usd as real), 'calls', calls, 'frozen_at', frozen_at)
              from ab_test_parameters where experiment_id = ?1)),
        'phases', json((select json_group_array(json_object('phase', phase, 'mode', mode, 'arms', json(arms),
                'started_at', started_at, 'ended_at', ended_at) order by phase)
              from ab_test_phases where experiment_id = ?1)),
        'sums', json((select json_group_array(json_object(
                'phase', phase, 'arm', arm, 'units', units, 'crossed_units', crossed_units,
                'executions', executions, 'attempted', attempted, 'successes', successes,
                'blocked', blocked, 'quota', quota, 'client_left', client_left, 'unpriced', unpriced,
                'prompt_tokens', prompt_tokens, 'cached_tokens', cached_tokens,
                'executions_sq', executions_sq, 'successes_sq', successes_sq,
                'successes_executions', successes_executions, 'blocked_sq', blocked_sq,
                'blocked_executions', blocked_executions, 'latency_units', latency_units,
                'attempted_sq', attempted_sq, 'latency_ms', latency_ms, 'latency_ms_sq', latency_ms_sq,
                'latency_ms_attempted', latency_ms_attempted, 'latency_log', latency_log,
                'latency_log_sq', latency_log_sq, 'cost_units', cost_units, 'priced_sq', priced_sq,
                'cost_usd', cost_usd, 'cost_usd_sq', cost_usd_sq, 'cost_usd_priced', cost_usd_priced,
                'cost_usd_successes', cost_usd_successes, 'first_seen_at', first_seen_at,
                'last_seen_at', last_seen_at) order by phase, arm)
              from ab_test_sums where experiment_id = ?1)),
        'feedback', json((select json_group_array(json_object('phase', phase, 'arm', arm, 'key', key,
                'units', units, 'count', count, 'mean_sum', mean_sum, 'mean_sq_sum', mean_sq_sum)
                order by phase, arm, key)
              from (select f.phase, f.arm, f.key, count(*) as units, sum(f.count) as count,
                           sum(f.sum / f.count) as mean_sum,
                           sum((f.sum / f.count) * (f.sum / f.count)) as mean_sq_sum
                      from ab_test_unit_feedback f
                      left join ab_test_units u
                        on u.experiment_id = f.experiment_id and u.phase = f.phase and u.arm = f.arm
                       and u.unit_key = f.unit_key
                     where f.experiment_id = ?1 and f.count > 0 and not coalesce(u.crossed, 0)
                     group by f.phase, f.arm, f.key))),
        'models', json((select json_group_array(json_object('phase', phase, 'arm', arm, 'model', model,
                'executions', executions, 'first_seen_at', first_seen_at, 'last_seen_at', last_seen_at)
                order by phase, arm, first_seen_at, model)
              from ab_test_models where experiment_id = ?1)),
        'reasons', json((select json_group_object(reason, executions)
              from ab_test_reasons where experiment_id = ?1)),
        'milestones', json((select json_group_array(json_object('metric', metric, 'arm', arm, 'kind', kind,
                'p', p, 'at', at) order by at)
              from ab_test_milestones where experiment_id = ?1)))";

const PUT_MILESTONE: &str = "
    insert or ignore into ab_test_milestones (experiment_id, metric, arm, kind, p, at)
    values (?1, ?2, ?3, ?4, ?5, ?6)";

const LATENCIES: &str = "
    with call as materialized (
        select created_at, ab_test_group as arm, unit_key, execution_time_ms as ms
          from prompt_executions
         where ab_test_experiment_id = ?1 and ab_test_group is not null and unit_key is not null
           and coalesce(assignment_reason, 'assigned') not in ('forced', 'left', 'paused', 'excluded')
           and outcome not in ('blocked', 'rejected')
         order by created_at desc
         limit ?2
    ), unit as (
        select phase, arm, unit_key, json_group_array(ms) as ms
          from (select (select coalesce(max(phase), 1) from ab_test_phases p
                         where p.experiment_id = ?1
                           and rtrim(p.started_at, 'Z') <= rtrim(call.created_at, 'Z')) as phase,
                       arm, unit_key, ms
                  from call)
         group by phase, arm, unit_key
    )
    select json_object('phase', phase, 'arm', arm, 'units', json_group_array(json(ms)))
      from unit
     where not exists (
            select 1 from ab_test_units u
             where u.experiment_id = ?1 and u.phase = unit.phase and u.arm = unit.arm
               and u.unit_key = unit.unit_key and u.crossed)
     group by phase, arm
     order by phase, arm";

const KEEP: &str = "
    update ab_test_experiments set results = ?2, statistical_significance = ?3
     where id = ?1
       -- The one look of a fixed analysis stays.
       and not coalesce(results ->> 'final', 0)";

/// Counters of rows from what was counted, where they differ.
const ROLL_UP: &str = "
    update prompt_templates as t
       set total_executions = p.total_executions, success_count = p.success_count,
           failure_count = p.failure_count, avg_response_time_ms = p.avg_response_time_ms,
           avg_token_count = p.avg_token_count,
           avg_cost_usd = iif(p.avg_cost_usd is null, null, printf('%.12f', p.avg_cost_usd))
      from prompt_template_performance p
     where p.template_id = t.id and t.total_executions <> p.total_executions;
    update prompt_guardrails as g
       set total_evaluations = t.evaluations, total_violations = t.violations
      from prompt_guardrail_totals t
     where t.tenant_id = g.tenant_id and t.rule_name = g.name
       and (g.total_evaluations, g.total_violations) is not (t.evaluations, t.violations);
    delete from prompt_feedback_keys
     where created_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-8 days');";

pub(super) fn hear(connection: &mut Connection, feedback: &Feedback) -> Result<Heard, StoreError> {
    let driver = |error: rusqlite::Error| from_driver(&error);
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(driver)?;
    let heard = decide(&transaction, feedback).map_err(driver)?;
    transaction.commit().map_err(driver)?;
    Ok(heard)
}

fn decide(transaction: &Transaction<'_>, feedback: &Feedback) -> rusqlite::Result<Heard> {
    let (tenant, id) = (feedback.tenant.to_string(), feedback.execution_id.to_string());
    let exposure = transaction
        .query_row(EXPOSURE, [&tenant, &id], |row| {
            let (at, experiment): (String, Option<String>) = (row.get(0)?, row.get(1)?);
            Ok(Exposure {
                at: at.parse().unwrap_or_default(),
                experiment_id: experiment.and_then(|id| id.parse().ok()),
                arm: row.get(2)?,
            })
        })
        .optional()?;
    let Some(exposure) = exposure else { return Ok(Heard::NoExecution) };
    let fingerprint = feedback.fingerprint();
    if let Some(key) = &feedback.idempotency_key {
        let before: Option<String> =
            transaction.query_row(KEY, [&tenant, key], |row| row.get(0)).optional()?;
        match before {
            Some(before) if before == fingerprint => return Ok(Heard::Again(exposure)),
            Some(_other) => return Ok(Heard::KeyTaken),
            None => {}
        }
    }
    if exposure.at < feedback.not_before {
        return Ok(Heard::TooLate(exposure));
    }
    if let Some(key) = &feedback.idempotency_key {
        transaction.execute(PUT_KEY, [&tenant, key, &fingerprint])?;
    }
    let value = feedback.value.to_string();
    let key = &feedback.idempotency_key;
    let put =
        params![tenant, id, Uuid::now_v7().to_string(), feedback.key, value, key, feedback.by];
    transaction.execute(PUT, put)?;
    Ok(Heard::Stored(exposure))
}

pub(super) fn collect(connection: &Connection, experiment: Uuid) -> Result<Collected, StoreError> {
    let rows = texts(connection, COLLECTED, [experiment.to_string()]);
    Ok(counted(&rows.map_err(|error| from_driver(&error))?)?.pop().unwrap_or_default())
}

pub(super) fn sample(
    connection: &Connection,
    experiment: Uuid,
    limit: u32,
) -> Result<Vec<ArmLatencies>, StoreError> {
    let rows = texts(connection, LATENCIES, params![experiment.to_string(), limit]);
    counted(&rows.map_err(|error| from_driver(&error))?)
}

pub(super) fn keep(connection: &mut Connection, kept: &Kept) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let id = kept.experiment_id.to_string();
    for Milestone { metric, arm, kind, p, at } in &kept.milestones {
        let at = format!("{at:.6}");
        transaction.execute(PUT_MILESTONE, params![id, metric, arm, kind, p, at])?;
    }
    let significance = kept.significance.map(|one| format!("{one:.4}"));
    transaction.execute(KEEP, params![id, kept.results.to_string(), significance])?;
    transaction.commit()
}

pub(super) fn count_up(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(ROLL_UP)?;
    transaction.commit()
}
