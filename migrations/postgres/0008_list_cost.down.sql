-- Takes 0008 back.

create table if not exists chaperone_archive_list_costs as
select id, created_at, cost_list_usd, now() as archived_at from prompt_executions with no data;

insert into chaperone_archive_list_costs (id, created_at, cost_list_usd, archived_at)
select id, created_at, cost_list_usd, now() from prompt_executions where cost_list_usd is not null;

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
          from (select execution_time_ms, estimated_cost_usd
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

create or replace function chaperone_count_added() returns trigger
    language plpgsql set search_path from current
as $$
declare
    calls chaperone_call[];
begin
    select array_agg(row(tenant_id, template_id, template_name, ab_test_experiment_id, ab_test_group, unit_key,
                         assignment_reason, outcome, success, error_type, execution_time_ms,
                         estimated_cost_usd, token_count, prompt_tokens, cached_tokens,
                         guardrails_evaluated, created_at)::chaperone_call)
      into calls
      from added;
    if calls is not null then
        perform chaperone_count(calls);
    end if;
    return null;
end
$$;

create or replace function chaperone_count(calls chaperone_call[]) returns void
    language plpgsql set search_path from current set jit = off
as $$
begin
    perform chaperone_count_experiments(calls);
    perform chaperone_count_reasons(calls);
    perform chaperone_count_totals(calls);
end
$$;

drop function chaperone_at_list_price(chaperone_call[]);
alter type chaperone_call drop attribute cost_list_usd;
alter table prompt_executions drop column cost_list_usd;
