-- What a call costs without a cache. Each arm of an experiment has a prompt of its own, and the one with more
-- traffic finds it in the cache more often: it would look cheaper for nothing. Comparisons go by this cost.

alter table prompt_executions add column cost_list_usd numeric(24, 12);

alter type chaperone_call add attribute cost_list_usd numeric;

-- Of calls from before, what they cost stands for it.
create function chaperone_at_list_price(calls chaperone_call[]) returns chaperone_call[]
    language sql immutable
as $$
    select array_agg(row(tenant_id, template_id, template_name, experiment_id, arm, unit_key, reason, outcome, success,
                         error_type, execution_time_ms, coalesce(cost_list_usd, cost_usd), token_count, prompt_tokens,
                         cached_tokens, evaluated, created_at, cost_list_usd)::chaperone_call)
      from unnest(calls)
$$;

create or replace function chaperone_count(calls chaperone_call[]) returns void
    language plpgsql set search_path from current set jit = off
as $$
begin
    perform chaperone_count_experiments(chaperone_at_list_price(calls));
    perform chaperone_count_reasons(calls);
    perform chaperone_count_totals(calls);
end
$$;

create or replace function chaperone_count_added() returns trigger
    language plpgsql set search_path from current
as $$
declare
    calls chaperone_call[];
begin
    select array_agg(row(tenant_id, template_id, template_name, ab_test_experiment_id, ab_test_group, unit_key,
                         assignment_reason, outcome, success, error_type, execution_time_ms,
                         estimated_cost_usd, token_count, prompt_tokens, cached_tokens,
                         guardrails_evaluated, created_at, cost_list_usd)::chaperone_call)
      into calls
      from added;
    if calls is not null then
        perform chaperone_count(calls);
    end if;
    return null;
end
$$;

create or replace function chaperone_freeze_parameters(experiments uuid[]) returns void
    language sql set search_path from current
as $$
    insert into ab_test_parameters (experiment_id, target_units, latency_cap_ms, cost_cap_usd, calls)
    select e.id, coalesce(e.target_sample_size, 5000),
           case when before.calls >= 1000 then before.latency end,
           case when before.priced >= 1000 then before.cost end,
           before.calls
      from ab_test_experiments e
     cross join lateral (
        select count(*) as calls, count(estimated_cost_usd) as priced,
               percentile_disc(0.999) within group (order by execution_time_ms) as latency,
               percentile_disc(0.999) within group (order by estimated_cost_usd) as cost
          from (select execution_time_ms, coalesce(cost_list_usd, estimated_cost_usd) as estimated_cost_usd
                  from prompt_executions
                 where template_id = e.control_template_id
                   and created_at >= coalesce(e.start_date, now()) - interval '14 days'
                   and created_at < coalesce(e.start_date, now())
                   and outcome not in ('blocked', 'rejected')
                 order by created_at desc
                 limit 20000) latest) before
     where e.id = any (experiments)
       and not exists (select from ab_test_parameters p where p.experiment_id = e.id)
     order by e.id
        on conflict do nothing
$$;
