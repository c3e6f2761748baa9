-- Takes 0005 back. What was counted from executions and feedback is counted again on the way up, but for
-- what retention has dropped by then. When a comparison first was significant nobody can count again: that
-- is kept.

create table if not exists chaperone_archive_milestones as
select *, now() as archived_at from ab_test_milestones with no data;

insert into chaperone_archive_milestones (experiment_id, metric, arm, kind, p, at, archived_at)
select experiment_id, metric, arm, kind, p, at, now() from ab_test_milestones;

drop trigger prompt_feedback_count on prompt_feedback;
drop trigger prompt_executions_count on prompt_executions;
drop function chaperone_count_feedback();
drop function chaperone_feedback_number(jsonb);
drop function chaperone_count_added();
drop function chaperone_count(chaperone_call[]);
drop function chaperone_count_totals(chaperone_call[]);
drop function chaperone_count_reasons(chaperone_call[]);
drop function chaperone_count_experiments(chaperone_call[]);
drop function chaperone_freeze_parameters(uuid[]);
drop function chaperone_is_analysed(chaperone_call);
drop type chaperone_call;

create or replace view prompt_template_performance as
select
    t.id as template_id,
    t.tenant_id,
    t.name,
    t.version,
    t.is_active,
    count(e.id) as total_executions,
    count(e.id) filter (where e.outcome = 'success') as success_count,
    count(e.id) filter (where e.outcome in ('failed', 'incomplete')) as failure_count,
    count(e.id) filter (where e.outcome in ('blocked', 'response_blocked')) as blocked_count,
    (100.0 * count(e.id) filter (where e.outcome = 'success')
        / nullif(count(e.id) filter (where e.outcome in ('success', 'failed', 'incomplete')), 0)
    )::double precision as success_rate,
    avg(e.execution_time_ms) filter (where e.outcome not in ('blocked', 'rejected')) as avg_response_time_ms,
    avg(e.token_count)::double precision as avg_token_count,
    sum(e.estimated_cost_usd) as total_cost_usd,
    avg(e.estimated_cost_usd)::numeric(24, 12) as avg_cost_usd,
    max(e.created_at) as last_execution_at
from prompt_templates t
left join prompt_executions e on e.template_id = t.id
group by t.id;

drop table prompt_guardrail_totals;
drop table prompt_template_totals;
drop table ab_test_unit_feedback;
drop table prompt_feedback_keys;
alter table prompt_feedback
    drop column experiment_id,
    drop column phase,
    drop column arm,
    drop column unit_key;
drop table ab_test_milestones;
drop table ab_test_reasons;
drop table ab_test_sums;
drop index ab_test_units_unit;
delete from ab_test_units;
alter table ab_test_units
    drop column unpriced,
    drop column quota,
    drop column client_left,
    drop column prompt_tokens_sum,
    drop column cached_tokens_sum,
    drop column crossed;
drop table ab_test_parameters;
