-- What an experiment holds to is fixed as it starts, and which models answered it is counted.

-- === what is frozen ===

-- An experiment that starts now has its caps fixed as it starts, in the same transaction, and not with its first
-- execution. One that starts later has them fixed with the first execution, as before: the calls before its start
-- are yet to come.

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
          from (select x.execution_time_ms, x.estimated_cost_usd
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

-- === which models answered ===

-- As they name themselves. Another one in the same arm is another treatment.
create table ab_test_models (
    experiment_id text not null references ab_test_experiments (id),
    phase integer not null,
    arm text not null,
    model text not null,
    executions integer not null,
    first_seen_at text not null,
    last_seen_at text not null,
    primary key (experiment_id, phase, arm, model)
) without rowid;

create trigger prompt_executions_count_models after insert on prompt_executions
when new.ab_test_experiment_id is not null and new.ab_test_group is not null and new.unit_key is not null
 and new.token_count is not null and new.model_name is not null
 and coalesce(new.assignment_reason, 'assigned') not in ('forced', 'left', 'paused', 'excluded')
begin
    insert into ab_test_models (experiment_id, phase, arm, model, executions, first_seen_at, last_seen_at)
    select e.id,
           (select coalesce(max(phase), 1) from ab_test_phases
             where experiment_id = e.id and rtrim(started_at, 'Z') <= rtrim(new.created_at, 'Z')),
           new.ab_test_group, new.model_name, 1, new.created_at, new.created_at
      from ab_test_experiments e
     where e.id = new.ab_test_experiment_id
        on conflict (experiment_id, phase, arm, model) do update set
           executions = ab_test_models.executions + 1,
           first_seen_at = min(ab_test_models.first_seen_at, excluded.first_seen_at),
           last_seen_at = max(ab_test_models.last_seen_at, excluded.last_seen_at);
end;
