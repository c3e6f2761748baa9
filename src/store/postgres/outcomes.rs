//! Outcomes in PostgreSQL: feedback in, sums out, results kept.

use jiff::Timestamp;
use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use super::{ADMIN_DEADLINE, Param, Postgres, from_driver, sql};
use crate::results::{ArmLatencies, Collected};
use crate::store::outcomes::{Exposure, Feedback, Heard, Kept};
use crate::store::{Row, StoreError};

/// In one statement: the execution, the key, the word. Who used the key before is read as it was when the
/// statement began.
const FEEDBACK: &str = "
    with exposure as (
        select id, created_at, created_at >= $9 as in_time,
               ab_test_experiment_id as experiment_id, ab_test_group as arm, unit_key,
               ab_test_experiment_id is not null and ab_test_group is not null and unit_key is not null
                   and coalesce(assignment_reason, 'assigned')
                       not in ('forced', 'left', 'paused', 'excluded') as analysed
          from prompt_executions
         where tenant_id = $1 and id = $2
    ), fresh as (
        insert into prompt_feedback_keys (tenant_id, idempotency_key, fingerprint)
        select $1, $5, $6 from exposure where in_time and $5::text is not null
            on conflict do nothing
        returning idempotency_key
    ), put as (
        insert into prompt_feedback
              (id, tenant_id, execution_id, key, value, idempotency_key, created_by, experiment_id,
               phase, arm, unit_key)
        select $7, $1, $2, $3, $4, $5, $8,
               case when analysed then experiment_id end,
               case when analysed then (
                   select coalesce(max(phase), 1) from ab_test_phases phase
                    where phase.experiment_id = exposure.experiment_id
                      and phase.started_at <= exposure.created_at) end,
               case when analysed then arm end, case when analysed then unit_key end
          from exposure
         where in_time and ($5::text is null or exists (select from fresh))
            on conflict (tenant_id, execution_id, key) do update set
               value = excluded.value, idempotency_key = excluded.idempotency_key,
               created_by = excluded.created_by, updated_at = now()
        returning id
    )
    select exposure.created_at, exposure.experiment_id, exposure.arm, exposure.in_time,
           (select count(*) from put),
           (select fingerprint from prompt_feedback_keys where tenant_id = $1 and idempotency_key = $5)
      from exposure";

const COLLECTED: &str = "
    select json_build_object(
        'parameters', (select row_to_json(one) from (
            select target_units, latency_cap_ms, cost_cap_usd, calls, frozen_at
              from ab_test_parameters where experiment_id = $1) one),
        'phases', (select coalesce(json_agg(one order by one.phase), '[]') from (
            select phase, mode, arms, started_at, ended_at
              from ab_test_phases where experiment_id = $1) one),
        'sums', (select coalesce(json_agg(one order by one.phase, one.arm), '[]') from (
            select * from ab_test_sums where experiment_id = $1) one),
        'feedback', (select coalesce(json_agg(one), '[]') from (
            select f.phase, f.arm, f.key, count(*) as units, sum(f.count) as count,
                   sum(f.sum / f.count) as mean_sum,
                   sum((f.sum / f.count) * (f.sum / f.count)) as mean_sq_sum
              from ab_test_unit_feedback f
              left join ab_test_units u
                on u.experiment_id = f.experiment_id and u.phase = f.phase and u.arm = f.arm
               and u.unit_key = f.unit_key
             where f.experiment_id = $1 and f.count > 0 and not coalesce(u.crossed, false)
             group by f.phase, f.arm, f.key
             order by f.phase, f.arm, f.key) one),
        'models', (select coalesce(json_agg(one order by one.phase, one.arm, one.first_seen_at, one.model), '[]')
              from (
            select phase, arm, model, executions, first_seen_at, last_seen_at
              from ab_test_models where experiment_id = $1) one),
        'reasons', (select coalesce(json_object_agg(reason, executions), '{}')
              from ab_test_reasons where experiment_id = $1),
        'milestones', (select coalesce(json_agg(one order by one.at), '[]') from (
            select metric, arm, kind, p, at
              from ab_test_milestones where experiment_id = $1) one))::text";

/// The calls first, by the index on experiment and time. Phases are joined as stretches of time: to look one up
/// for each call seems so dear to the planner that it would compile the statement, which takes longer than it runs.
const LATENCIES: &str = "
    with call as materialized (
        select created_at, ab_test_group as arm, unit_key, execution_time_ms as ms
          from prompt_executions
         where ab_test_experiment_id = $1 and ab_test_group is not null and unit_key is not null
           and coalesce(assignment_reason, 'assigned') not in ('forced', 'left', 'paused', 'excluded')
           and outcome not in ('blocked', 'rejected')
         order by created_at desc
         limit $2
    ), stretch as (
        select phase, started_at, lead(started_at, 1, 'infinity') over (order by phase) as until
          from ab_test_phases where experiment_id = $1
    ), unit as (
        select coalesce(stretch.phase, 1) as phase, arm, unit_key, json_agg(ms) as ms
          from call
          left join stretch on started_at <= created_at and created_at < until
         group by coalesce(stretch.phase, 1), arm, unit_key
    )
    select json_build_object('phase', phase, 'arm', arm, 'units', json_agg(ms))::text
      from unit
     where not exists (
            select from ab_test_units u
             where u.experiment_id = $1 and u.phase = unit.phase and u.arm = unit.arm
               and u.unit_key = unit.unit_key and u.crossed)
     group by phase, arm
     order by phase, arm";

const KEEP: &str = "
    with told as (
        insert into ab_test_milestones (experiment_id, metric, arm, kind, p, at)
        select $1, metric, arm, kind, p, at
          from jsonb_populate_recordset(null::ab_test_milestones, $4)
            on conflict do nothing
    )
    update ab_test_experiments
       set results = $2, statistical_significance = $3::text::numeric
     where id = $1
       -- The one look of a fixed analysis stays.
       and not coalesce((results ->> 'final')::boolean, false)";

/// Counters of rows from what was counted, where they differ.
const ROLL_UP: [&str; 3] = [
    "
    update prompt_templates t
       set total_executions = p.total_executions, success_count = p.success_count,
           failure_count = p.failure_count, avg_response_time_ms = p.avg_response_time_ms,
           avg_token_count = p.avg_token_count, avg_cost_usd = p.avg_cost_usd
      from prompt_template_performance p
     where p.template_id = t.id
       and (t.total_executions, t.success_count, t.failure_count, t.avg_response_time_ms,
            t.avg_token_count, t.avg_cost_usd)
           is distinct from
           (p.total_executions, p.success_count, p.failure_count, p.avg_response_time_ms,
            p.avg_token_count, p.avg_cost_usd)",
    "
    update prompt_guardrails g
       set total_evaluations = t.evaluations, total_violations = t.violations
      from prompt_guardrail_totals t
     where t.tenant_id = g.tenant_id and t.rule_name = g.name
       and (g.total_evaluations, g.total_violations) is distinct from (t.evaluations, t.violations)",
    "delete from prompt_feedback_keys where created_at < now() - interval '8 days'",
];

impl Postgres {
    pub(super) async fn listen_to(&self, feedback: &Feedback) -> Result<Heard, StoreError> {
        let (tenant, id) = (feedback.tenant.to_string(), Uuid::now_v7());
        let (value, fingerprint) = (Json(&feedback.value), feedback.fingerprint());
        let params: [Param<'_>; 9] = [
            (&tenant, Type::TEXT),
            (&feedback.execution_id, Type::UUID),
            (&feedback.key, Type::TEXT),
            (&value, Type::JSONB),
            (&feedback.idempotency_key, Type::TEXT),
            (&fingerprint, Type::TEXT),
            (&id, Type::UUID),
            (&feedback.by, Type::TEXT),
            (&feedback.not_before, Type::TIMESTAMPTZ),
        ];
        // The second time for a key that another request took at the same moment.
        for _ in 0..2 {
            let rows = self.ask(ADMIN_DEADLINE, FEEDBACK, &params).await?;
            let Some(row) = rows.first() else { return Ok(Heard::NoExecution) };
            if let Some(heard) = heard(row, &fingerprint).map_err(|error| from_driver(&error))? {
                return Ok(heard);
            }
        }
        Err(StoreError::Unavailable("the same feedback is being taken in".to_owned()))
    }

    pub(super) async fn collect(&self, experiment: Uuid) -> Result<Collected, StoreError> {
        let texts = self.texts(COLLECTED, &[(&experiment, Type::UUID)]).await?;
        Ok(crate::store::counted(&texts)?.pop().unwrap_or_default())
    }

    pub(super) async fn sample(
        &self,
        experiment: Uuid,
        limit: u32,
    ) -> Result<Vec<ArmLatencies>, StoreError> {
        let limit = i64::from(limit);
        let params: [Param<'_>; 2] = [(&experiment, Type::UUID), (&limit, Type::INT8)];
        crate::store::counted(&self.texts(LATENCIES, &params).await?)
    }

    pub(super) async fn keep(&self, kept: &Kept) -> Result<(), StoreError> {
        let milestones = serde_json::to_value(&kept.milestones)
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        let significance = kept.significance.map(|one| format!("{one:.4}"));
        let params: [Param<'_>; 4] = [
            (&kept.experiment_id, Type::UUID),
            (&Json(&kept.results), Type::JSONB),
            (&significance, Type::TEXT),
            (&Json(milestones), Type::JSONB),
        ];
        self.query(KEEP, &params).await.map(drop)
    }

    pub(super) async fn unfinished(&self, since: Timestamp) -> Result<Vec<Row>, StoreError> {
        let rows = self.query(&sql::under_way(), &[(&since, Type::TIMESTAMPTZ)]).await?;
        let texts = rows.iter().map(|row| row.try_get(0).map_err(|error| from_driver(&error)));
        texts.map(|text| text.and_then(Row::read)).collect()
    }

    pub(super) async fn count_up(&self) -> Result<(), StoreError> {
        for statement in ROLL_UP {
            self.query(statement, &[]).await?;
        }
        Ok(())
    }
}

/// What became of feedback; nothing while another request with the same key is under way.
fn heard(
    row: &tokio_postgres::Row,
    fingerprint: &str,
) -> Result<Option<Heard>, tokio_postgres::Error> {
    let exposure =
        Exposure { at: row.try_get(0)?, experiment_id: row.try_get(1)?, arm: row.try_get(2)? };
    let (in_time, put): (bool, i64) = (row.try_get(3)?, row.try_get(4)?);
    let before: Option<String> = row.try_get(5)?;
    Ok(match before {
        Some(before) if before == fingerprint => Some(Heard::Again(exposure)),
        Some(_other) => Some(Heard::KeyTaken),
        None if !in_time => Some(Heard::TooLate(exposure)),
        None if put > 0 => Some(Heard::Stored(exposure)),
        None => None,
    })
}
