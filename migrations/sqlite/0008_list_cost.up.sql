-- What a call costs without a cache. Each arm of an experiment has a prompt of its own, and the one with more
-- traffic finds it in the cache more often: it would look cheaper for nothing. Comparisons go by this cost.

alter table prompt_executions add column cost_list_usd text;

-- Of calls from before, what they cost stands for it.
drop trigger prompt_executions_count;
drop view chaperone_calls;
drop trigger ab_test_experiments_freeze;

-- Writing a call here counts it.
create view chaperone_calls as
select tenant_id, template_id, template_name, ab_test_experiment_id as experiment_id, ab_test_group as arm,
       unit_key, assignment_reason as reason, outcome, success, error_type, execution_time_ms,
       estimated_cost_usd as cost_usd, token_count, prompt_tokens, cached_tokens,
       guardrails_evaluated as evaluated, created_at, cost_list_usd
  from prompt_executions;

create trigger chaperone_calls_count instead of insert on chaperone_calls
begin
    -- Forced calls are tests by hand; units that left saw control by then. Neither says anything of an arm.
    -- An experiment that only files or a snapshot know has nowhere to be counted.
    insert into ab_test_parameters (experiment_id, target_units, latency_cap_ms, cost_cap_usd, calls)
    select e.id, coalesce(e.target_sample_size, 5000),
           iif(count(b.execution_time_ms) >= 1000,
               min(b.execution_time_ms) filter (where b.latency_rank >= 0.999 * b.calls), null),
           iif(count(b.estimated_cost_usd) >= 1000,
               min(b.estimated_cost_usd) filter (where b.cost_rank = b.cost_place), null),
           count(b.execution_time_ms)
      from ab_test_experiments e
      left join (
        select execution_time_ms, estimated_cost_usd,
               count(*) over () as calls, (999 * count(estimated_cost_usd) over () + 999) / 1000 as cost_place,
               row_number() over (order by execution_time_ms) as latency_rank,
               row_number() over (order by estimated_cost_usd is null,
                                           cast(replace(estimated_cost_usd, '.', '') as integer)) as cost_rank
          from (select x.execution_time_ms, coalesce(x.cost_list_usd, x.estimated_cost_usd) as estimated_cost_usd
                  from ab_test_experiments c
                  join prompt_executions x
                    on x.template_id = c.control_template_id
                   and x.created_at >= strftime('%Y-%m-%dT%H:%M:%f', coalesce(c.start_date, new.created_at), '-14 days')
                   and rtrim(x.created_at, 'Z') < rtrim(coalesce(c.start_date, new.created_at), 'Z')
                 where c.id = new.experiment_id and x.outcome not in ('blocked', 'rejected')
                   and x.created_at < strftime('%Y-%m-%dT%H:%M:%f', coalesce(c.start_date, new.created_at), '+1 second')
                   -- Once more, because what is below is looked at before what is beside it.
                   and not exists (select 1 from ab_test_parameters p where p.experiment_id = new.experiment_id)
                 order by x.created_at desc
                 limit 20000)) b
     where e.id = new.experiment_id and new.arm is not null and new.unit_key is not null
       and coalesce(new.reason, 'assigned') not in ('forced', 'left', 'paused', 'excluded')
       and not exists (select 1 from ab_test_parameters p where p.experiment_id = new.experiment_id)
     group by e.id;

    insert into ab_test_calls
          (experiment_id, phase, arm, unit_key, alone, success, outcome, error_type, latency_ms, latency_log,
           cost_usd, token_count, prompt_tokens, cached_tokens, created_at)
    select e.id,
           (select coalesce(max(phase), 1) from ab_test_phases
             where experiment_id = e.id and rtrim(started_at, 'Z') <= rtrim(new.created_at, 'Z')),
           new.arm, new.unit_key, e.randomization_unit = 'request', new.success, new.outcome, new.error_type,
           min(new.execution_time_ms, coalesce(p.latency_cap_ms, new.execution_time_ms)),
           ln(max(new.execution_time_ms, 0.001)),
           iif(cast(replace(coalesce(new.cost_list_usd, new.cost_usd), '.', '') as integer)
                   > cast(replace(p.cost_cap_usd, '.', '') as integer),
               p.cost_cap_usd, coalesce(new.cost_list_usd, new.cost_usd)),
           new.token_count, new.prompt_tokens, new.cached_tokens, new.created_at
      from ab_test_experiments e
      join ab_test_parameters p on p.experiment_id = e.id
     where e.id = new.experiment_id and new.arm is not null and new.unit_key is not null
       and coalesce(new.reason, 'assigned') not in ('forced', 'left', 'paused', 'excluded');

    -- Calls with an experiment's id count for it; those without, for the one active on their template.
    insert into ab_test_reasons (experiment_id, reason, executions)
    select e.id, new.reason, 1
      from ab_test_experiments e
     where new.reason is not null
       and (e.id = new.experiment_id
            or (new.experiment_id is null and e.status = 'active' and e.tenant_id = new.tenant_id
                and e.template_name = new.template_name))
        on conflict (experiment_id, reason) do update set executions = ab_test_reasons.executions + 1;

    insert into prompt_template_totals
          (template_id, executions, success, failure, blocked, attempted, response_time_ms, counted, tokens,
           priced, cost_usd, last_execution_at)
    select new.template_id, 1, new.outcome = 'success', new.outcome in ('failed', 'incomplete'),
           new.outcome in ('blocked', 'response_blocked'), new.outcome not in ('blocked', 'rejected'),
           iif(new.outcome in ('blocked', 'rejected'), 0, new.execution_time_ms), new.token_count is not null,
           coalesce(new.token_count, 0), new.cost_usd is not null,
           coalesce(cast(replace(new.cost_usd, '.', '') as integer) / 1000000000000.0, 0), new.created_at
     where new.template_id is not null
        on conflict (template_id) do update set
           executions = prompt_template_totals.executions + 1,
           success = prompt_template_totals.success + excluded.success,
           failure = prompt_template_totals.failure + excluded.failure,
           blocked = prompt_template_totals.blocked + excluded.blocked,
           attempted = prompt_template_totals.attempted + excluded.attempted,
           response_time_ms = prompt_template_totals.response_time_ms + excluded.response_time_ms,
           counted = prompt_template_totals.counted + excluded.counted,
           tokens = prompt_template_totals.tokens + excluded.tokens,
           priced = prompt_template_totals.priced + excluded.priced,
           cost_usd = prompt_template_totals.cost_usd + excluded.cost_usd,
           last_execution_at = max(prompt_template_totals.last_execution_at, excluded.last_execution_at);

    -- The star stands for guardrails that were not listed one by one.
    insert into prompt_guardrail_totals (tenant_id, rule_name, evaluations, violations)
    select new.tenant_id, evaluation.value ->> 'rule_name', 1,
           not coalesce(evaluation.value ->> 'passed', 1)
      from json_each(new.evaluated) evaluation
     where evaluation.value ->> 'rule_name' <> '*'
        on conflict (tenant_id, rule_name) do update set
           evaluations = prompt_guardrail_totals.evaluations + 1, violations = prompt_guardrail_totals.violations + excluded.violations;
end;

create trigger prompt_executions_count after insert on prompt_executions
begin
    insert into chaperone_calls
          (tenant_id, template_id, template_name, experiment_id, arm, unit_key, reason, outcome, success,
           error_type, execution_time_ms, cost_usd, token_count, prompt_tokens, cached_tokens, evaluated,
           created_at, cost_list_usd)
    values (new.tenant_id, new.template_id, new.template_name, new.ab_test_experiment_id, new.ab_test_group,
            new.unit_key, new.assignment_reason, new.outcome, new.success, new.error_type,
            new.execution_time_ms, new.estimated_cost_usd, new.token_count, new.prompt_tokens,
            new.cached_tokens, new.guardrails_evaluated, new.created_at, new.cost_list_usd);
end;

create trigger ab_test_experiments_freeze after update on ab_test_experiments
    when old.status = 'draft' and new.status = 'active'
     and rtrim(new.start_date, 'Z') <= rtrim(json_extract(new.design, '$.frozen_at'), 'Z')
begin
    -- As chaperone_calls_count (0005) has it.
    insert into ab_test_parameters (experiment_id, target_units, latency_cap_ms, cost_cap_usd, calls)
    select new.id, coalesce(new.target_sample_size, 5000),
           iif(count(b.execution_time_ms) >= 1000,
               min(b.execution_time_ms) filter (where b.latency_rank >= 0.999 * b.calls), null),
           iif(count(b.estimated_cost_usd) >= 1000,
               min(b.estimated_cost_usd) filter (where b.cost_rank = b.cost_place), null),
           count(b.execution_time_ms)
      from (
        select execution_time_ms, estimated_cost_usd,
               count(*) over () as calls, (999 * count(estimated_cost_usd) over () + 999) / 1000 as cost_place,
               row_number() over (order by execution_time_ms) as latency_rank,
               row_number() over (order by estimated_cost_usd is null,
                                           cast(replace(estimated_cost_usd, '.', '') as integer)) as cost_rank
          from (select x.execution_time_ms, coalesce(x.cost_list_usd, x.estimated_cost_usd) as estimated_cost_usd
                  from prompt_executions x
                 where x.template_id = new.control_template_id
                   and x.created_at >= strftime('%Y-%m-%dT%H:%M:%f', new.start_date, '-14 days')
                   and rtrim(x.created_at, 'Z') < rtrim(new.start_date, 'Z')
                   and x.created_at < strftime('%Y-%m-%dT%H:%M:%f', new.start_date, '+1 second')
                   and x.outcome not in ('blocked', 'rejected')
                 order by x.created_at desc
                 limit 20000)) b
     where true
        on conflict do nothing;
end;
