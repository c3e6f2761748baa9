-- Takes 0005 back. What was counted from executions and feedback is counted again on the way up, but for
-- what retention has dropped by then. When a comparison first was significant nobody can count again: that
-- is kept.

create table if not exists chaperone_archive_milestones (
    experiment_id text not null,
    metric text not null,
    arm text not null,
    kind text not null,
    p real,
    at text not null,
    archived_at text not null
) strict;

insert into chaperone_archive_milestones (experiment_id, metric, arm, kind, p, at, archived_at)
select experiment_id, metric, arm, kind, p, at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') from ab_test_milestones;

drop trigger prompt_feedback_again;
drop trigger prompt_feedback_first;
drop trigger prompt_executions_count;
drop view chaperone_calls;
drop view ab_test_calls;
drop view ab_test_unit_terms;

drop view prompt_template_performance;
create view prompt_template_performance as
select
    t.id as template_id,
    t.tenant_id as tenant_id,
    t.name as name,
    t.version as version,
    t.is_active as is_active,
    count(e.id) as total_executions,
    count(e.id) filter (where e.outcome = 'success') as success_count,
    count(e.id) filter (where e.outcome in ('failed', 'incomplete')) as failure_count,
    count(e.id) filter (where e.outcome in ('blocked', 'response_blocked')) as blocked_count,
    100.0 * count(e.id) filter (where e.outcome = 'success')
        / nullif(count(e.id) filter (where e.outcome in ('success', 'failed', 'incomplete')), 0)
        as success_rate,
    avg(e.execution_time_ms) filter (where e.outcome not in ('blocked', 'rejected')) as avg_response_time_ms,
    avg(e.token_count) as avg_token_count,
    sum(cast(e.estimated_cost_usd as real)) as total_cost_usd,
    avg(cast(e.estimated_cost_usd as real)) as avg_cost_usd,
    max(e.created_at) as last_execution_at
from prompt_templates t
left join prompt_executions e on e.template_id = t.id
group by t.id;

drop table prompt_guardrail_totals;
drop table prompt_template_totals;
drop table ab_test_unit_feedback;
drop table prompt_feedback_keys;
alter table prompt_feedback drop column experiment_id;
alter table prompt_feedback drop column phase;
alter table prompt_feedback drop column arm;
alter table prompt_feedback drop column unit_key;
drop table ab_test_milestones;
drop table ab_test_reasons;
drop table ab_test_sums;
drop index ab_test_units_unit;
delete from ab_test_units;
alter table ab_test_units drop column unpriced;
alter table ab_test_units drop column quota;
alter table ab_test_units drop column client_left;
alter table ab_test_units drop column prompt_tokens_sum;
alter table ab_test_units drop column cached_tokens_sum;
alter table ab_test_units drop column crossed;
drop table ab_test_parameters;
