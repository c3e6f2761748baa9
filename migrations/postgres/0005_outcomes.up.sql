-- What experiments and templates have shown, counted in the transaction that stores the executions: a row
-- that is stored is counted, a row that was there already is neither stored nor counted again.
--
-- Expands only. Triggers count, so that a binary that knows 0003 alone counts too.

-- === what an analysis holds to ===

-- Fixed when the first execution of an experiment is stored, and never again: a cap that follows the data
-- would void what a confidence sequence promises.
create table ab_test_parameters (
    experiment_id uuid primary key references ab_test_experiments (id),
    -- N*: where the confidence sequence is tightest.
    target_units integer not null,
    -- The 99.9th percentile of control in the 14 days before the start, of its latest 20,000 calls at most.
    -- Null where there were fewer than 1,000.
    latency_cap_ms double precision,
    cost_cap_usd numeric(24, 12),
    -- Calls behind the caps.
    calls bigint not null,
    frozen_at timestamptz not null default now()
);

-- === what units did ===

alter table ab_test_units
    -- Answered calls whose model has no known price.
    add column unpriced bigint not null default 0,
    -- Failed because upstream had no quota left: its load, not the prompt.
    add column quota bigint not null default 0,
    add column client_left bigint not null default 0,
    add column prompt_tokens_sum double precision not null default 0,
    add column cached_tokens_sum double precision not null default 0,
    -- Was in another arm before. Kept, and left out of every sum.
    add column crossed boolean not null default false;

create index ab_test_units_unit on ab_test_units (experiment_id, unit_key);

-- Sums over the units of an arm in a phase: all that an analysis reads. Where each request is a unit there
-- are these sums and no rows of units.
create table ab_test_sums (
    experiment_id uuid not null references ab_test_experiments (id),
    phase integer not null,
    arm text not null,
    units bigint not null default 0,
    crossed_units bigint not null default 0,
    executions bigint not null default 0,
    attempted bigint not null default 0,
    successes bigint not null default 0,
    blocked bigint not null default 0,
    quota bigint not null default 0,
    client_left bigint not null default 0,
    unpriced bigint not null default 0,
    prompt_tokens double precision not null default 0,
    cached_tokens double precision not null default 0,
    executions_sq double precision not null default 0,
    successes_sq double precision not null default 0,
    successes_executions double precision not null default 0,
    blocked_sq double precision not null default 0,
    blocked_executions double precision not null default 0,
    -- Units with a call that reached Gemini.
    latency_units bigint not null default 0,
    attempted_sq double precision not null default 0,
    latency_ms double precision not null default 0,
    latency_ms_sq double precision not null default 0,
    latency_ms_attempted double precision not null default 0,
    -- Of each unit's mean logarithm.
    latency_log double precision not null default 0,
    latency_log_sq double precision not null default 0,
    -- Units with a call whose cost is known; calls that never reached Gemini cost nothing.
    cost_units bigint not null default 0,
    priced_sq double precision not null default 0,
    cost_usd double precision not null default 0,
    cost_usd_sq double precision not null default 0,
    cost_usd_priced double precision not null default 0,
    cost_usd_successes double precision not null default 0,
    first_seen_at timestamptz not null,
    last_seen_at timestamptz not null,
    primary key (experiment_id, phase, arm)
);

-- Why calls on an experiment's template got the arm they got, or none.
create table ab_test_reasons (
    experiment_id uuid not null references ab_test_experiments (id),
    reason text not null,
    executions bigint not null default 0,
    primary key (experiment_id, reason)
);

-- When a comparison first was significant, and when a harm metric first was. Never taken back.
create table ab_test_milestones (
    experiment_id uuid not null references ab_test_experiments (id),
    metric text not null,
    arm text not null,
    kind text not null check (kind in ('significant', 'harm', 'read')),
    p double precision,
    at timestamptz not null,
    primary key (experiment_id, metric, arm, kind)
);

-- === feedback ===

-- Where its execution stands, so that a later word on it is counted in the same place.
alter table prompt_feedback
    add column experiment_id uuid,
    add column phase integer,
    add column arm text,
    add column unit_key text;

create table prompt_feedback_keys (
    tenant_id text not null,
    idempotency_key text not null,
    -- SHA-256 of execution, key and value: another word may not use the same idempotency key.
    fingerprint text not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, idempotency_key)
);

create index prompt_feedback_keys_age on prompt_feedback_keys (created_at);

create table ab_test_unit_feedback (
    experiment_id uuid not null,
    phase integer not null,
    arm text not null,
    unit_key text not null,
    key text not null,
    count bigint not null default 0,
    sum double precision not null default 0,
    primary key (experiment_id, phase, arm, unit_key, key)
);

-- === totals ===

create table prompt_template_totals (
    template_id uuid primary key,
    executions bigint not null default 0,
    success bigint not null default 0,
    failure bigint not null default 0,
    blocked bigint not null default 0,
    attempted bigint not null default 0,
    response_time_ms double precision not null default 0,
    counted bigint not null default 0,
    tokens double precision not null default 0,
    priced bigint not null default 0,
    cost_usd numeric not null default 0,
    last_execution_at timestamptz not null
);

create table prompt_guardrail_totals (
    tenant_id text not null,
    rule_name text not null,
    evaluations bigint not null default 0,
    violations bigint not null default 0,
    primary key (tenant_id, rule_name)
);

-- === counting ===

-- What is counted of an execution.
create type chaperone_call as (
    tenant_id text,
    template_id uuid,
    template_name text,
    experiment_id uuid,
    arm text,
    unit_key text,
    reason text,
    outcome text,
    success boolean,
    error_type text,
    execution_time_ms double precision,
    cost_usd numeric,
    token_count bigint,
    prompt_tokens bigint,
    cached_tokens bigint,
    evaluated jsonb,
    created_at timestamptz
);

-- Forced calls are tests by hand; units that left saw control by then. Neither says anything of an arm.
create function chaperone_is_analysed(call chaperone_call) returns boolean
    language sql immutable
as $$
    select (call).experiment_id is not null and (call).arm is not null and (call).unit_key is not null
       and coalesce((call).reason, 'assigned') not in ('forced', 'left', 'paused', 'excluded')
$$;

create function chaperone_freeze_parameters(experiments uuid[]) returns void
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

create function chaperone_count_experiments(calls chaperone_call[]) returns void
    language plpgsql set search_path from current
as $$
declare
    experiments uuid[];
begin
    -- An experiment that only files or a snapshot know has nowhere to be counted.
    select array_agg(distinct e.id) into experiments
      from unnest(calls) call join ab_test_experiments e on e.id = call.experiment_id
     where chaperone_is_analysed(call);
    if experiments is null then
        return;
    end if;
    perform chaperone_freeze_parameters(experiments);
    -- Writers of an experiment take turns: what is read below is what is added to.
    perform from ab_test_parameters where experiment_id = any (experiments)
      order by experiment_id for update;

    with call as (
        select call.experiment_id,
               (select coalesce(max(phase), 1) from ab_test_phases
                 where experiment_id = e.id and started_at <= call.created_at) as phase,
               call.arm, call.unit_key, e.randomization_unit = 'request' as alone, call.success, call.outcome,
               call.outcome not in ('blocked', 'rejected') as attempted, call.error_type,
               least(call.execution_time_ms, p.latency_cap_ms) as latency_ms,
               ln(greatest(call.execution_time_ms, 0.001)) as latency_log,
               case when call.cost_usd is not null then least(call.cost_usd, p.cost_cap_usd) end as cost_usd,
               call.cost_usd is null and call.token_count is not null as unpriced,
               call.prompt_tokens, call.cached_tokens, call.created_at
          from unnest(calls) call
          join ab_test_experiments e on e.id = call.experiment_id
          join ab_test_parameters p on p.experiment_id = e.id
         where chaperone_is_analysed(call)
    ), change as (
        select experiment_id, phase, arm, unit_key, alone,
               count(*) as executions,
               count(*) filter (where attempted) as attempted,
               count(*) filter (where success) as successes,
               count(*) filter (where outcome in ('blocked', 'response_blocked')) as blocked,
               count(*) filter (where error_type = 'upstream_quota') as quota,
               count(*) filter (where outcome = 'client_left') as client_left,
               count(*) filter (where unpriced) as unpriced,
               coalesce(sum(latency_ms) filter (where attempted), 0) as latency_ms_sum,
               coalesce(sum(latency_log) filter (where attempted), 0) as latency_log_sum,
               coalesce(sum(cost_usd), 0) as cost_usd_sum,
               coalesce(sum(prompt_tokens::double precision), 0) as prompt_tokens_sum,
               coalesce(sum(cached_tokens::double precision), 0) as cached_tokens_sum,
               min(created_at) as first_seen_at, max(created_at) as last_seen_at
          from call
         group by experiment_id, phase, arm, unit_key, alone
    ), judged as materialized (
        -- With what is known of the unit already. A lookup by key for each: of a join of what was just
        -- computed the planner knows no sizes, and would compare everything with everything.
        select c.*, k.unit_key is not null as is_known,
               k.executions as old_executions, k.attempted as old_attempted, k.successes as old_successes,
               k.blocked as old_blocked, k.quota as old_quota, k.client_left as old_client_left,
               k.unpriced as old_unpriced, k.latency_ms_sum as old_latency_ms_sum,
               k.latency_log_sum as old_latency_log_sum, k.cost_usd_sum as old_cost_usd_sum,
               k.prompt_tokens_sum as old_prompt_tokens_sum, k.cached_tokens_sum as old_cached_tokens_sum,
               case
                   when c.alone then false
                   when k.unit_key is not null then k.crossed
                   else first_value(c.arm) over (partition by c.experiment_id, c.unit_key
                                                 order by c.phase, c.first_seen_at, c.arm) <> c.arm
                        or exists (
                            select from ab_test_units other
                             where other.experiment_id = c.experiment_id and other.unit_key = c.unit_key
                               and other.arm <> c.arm
                               and other.phase >= (
                                   select coalesce(max(p.phase), 1) from ab_test_phases p
                                    where p.experiment_id = c.experiment_id and p.mode = 'rerandomise'
                                      and p.phase <= c.phase))
               end as crossed
          from change c
          left join lateral (
            select * from ab_test_units u
             where not c.alone and u.experiment_id = c.experiment_id and u.phase = c.phase
               and u.arm = c.arm and u.unit_key = c.unit_key
             limit 1) k on true
    ), stored as (
        insert into ab_test_units as u
              (experiment_id, phase, arm, unit_key, executions, attempted, successes, blocked, quota,
               client_left, unpriced, latency_ms_sum, latency_log_sum, cost_usd_sum, prompt_tokens_sum,
               cached_tokens_sum, crossed, first_seen_at)
        select experiment_id, phase, arm, unit_key, executions, attempted, successes, blocked, quota,
               client_left, unpriced, latency_ms_sum, latency_log_sum, cost_usd_sum, prompt_tokens_sum,
               cached_tokens_sum, crossed, first_seen_at
          from judged
         where not alone
            on conflict (experiment_id, phase, arm, unit_key) do update set
               executions = u.executions + excluded.executions,
               attempted = u.attempted + excluded.attempted,
               successes = u.successes + excluded.successes,
               blocked = u.blocked + excluded.blocked,
               quota = u.quota + excluded.quota,
               client_left = u.client_left + excluded.client_left,
               unpriced = u.unpriced + excluded.unpriced,
               latency_ms_sum = u.latency_ms_sum + excluded.latency_ms_sum,
               latency_log_sum = u.latency_log_sum + excluded.latency_log_sum,
               cost_usd_sum = u.cost_usd_sum + excluded.cost_usd_sum,
               prompt_tokens_sum = u.prompt_tokens_sum + excluded.prompt_tokens_sum,
               cached_tokens_sum = u.cached_tokens_sum + excluded.cached_tokens_sum,
               first_seen_at = least(u.first_seen_at, excluded.first_seen_at)
    ), state as (
        -- Each unit as it is now, and, to be taken off, as it was.
        select experiment_id, phase, arm, crossed, 1 as sign,
               executions + coalesce(old_executions, 0) as executions,
               attempted + coalesce(old_attempted, 0) as attempted,
               successes + coalesce(old_successes, 0) as successes,
               blocked + coalesce(old_blocked, 0) as blocked,
               quota + coalesce(old_quota, 0) as quota,
               client_left + coalesce(old_client_left, 0) as client_left,
               unpriced + coalesce(old_unpriced, 0) as unpriced,
               latency_ms_sum + coalesce(old_latency_ms_sum, 0) as latency_ms_sum,
               latency_log_sum + coalesce(old_latency_log_sum, 0) as latency_log_sum,
               (cost_usd_sum + coalesce(old_cost_usd_sum, 0))::double precision as cost_usd_sum,
               prompt_tokens_sum + coalesce(old_prompt_tokens_sum, 0) as prompt_tokens_sum,
               cached_tokens_sum + coalesce(old_cached_tokens_sum, 0) as cached_tokens_sum,
               first_seen_at, last_seen_at
          from judged
         union all
        select experiment_id, phase, arm, crossed, -1, old_executions, old_attempted, old_successes,
               old_blocked, old_quota, old_client_left, old_unpriced, old_latency_ms_sum,
               old_latency_log_sum, old_cost_usd_sum::double precision, old_prompt_tokens_sum,
               old_cached_tokens_sum, first_seen_at, last_seen_at
          from judged
         where is_known
    ), term as (
        select *, executions - unpriced as priced,
               sign * (not crossed)::integer as counts,
               (attempted > 0)::integer as has_latency,
               (executions > unpriced)::integer as has_cost,
               coalesce(latency_log_sum / nullif(attempted, 0), 0) as latency_log
          from state
    )
    insert into ab_test_sums as s
          (experiment_id, phase, arm, units, crossed_units, executions, attempted, successes, blocked, quota,
           client_left, unpriced, prompt_tokens, cached_tokens, executions_sq, successes_sq,
           successes_executions, blocked_sq, blocked_executions, latency_units, attempted_sq, latency_ms,
           latency_ms_sq, latency_ms_attempted, latency_log, latency_log_sq, cost_units, priced_sq, cost_usd,
           cost_usd_sq, cost_usd_priced, cost_usd_successes, first_seen_at, last_seen_at)
    select experiment_id, phase, arm, sum(counts), sum(sign * crossed::integer), sum(counts * executions),
           sum(counts * attempted), sum(counts * successes), sum(counts * blocked), sum(counts * quota),
           sum(counts * client_left), sum(counts * unpriced), sum(counts * prompt_tokens_sum),
           sum(counts * cached_tokens_sum), sum(counts * executions * executions),
           sum(counts * successes * successes), sum(counts * successes * executions),
           sum(counts * blocked * blocked), sum(counts * blocked * executions), sum(counts * has_latency),
           sum(counts * attempted * attempted), sum(counts * latency_ms_sum),
           sum(counts * latency_ms_sum * latency_ms_sum), sum(counts * latency_ms_sum * attempted),
           sum(counts * latency_log), sum(counts * latency_log * latency_log), sum(counts * has_cost),
           sum(counts * priced * priced), sum(counts * has_cost * cost_usd_sum),
           sum(counts * has_cost * cost_usd_sum * cost_usd_sum), sum(counts * cost_usd_sum * priced),
           sum(counts * cost_usd_sum * successes), min(first_seen_at), max(last_seen_at)
      from term
     group by experiment_id, phase, arm
     order by experiment_id, phase, arm
        on conflict (experiment_id, phase, arm) do update set
           units = s.units + excluded.units,
           crossed_units = s.crossed_units + excluded.crossed_units,
           executions = s.executions + excluded.executions,
           attempted = s.attempted + excluded.attempted,
           successes = s.successes + excluded.successes,
           blocked = s.blocked + excluded.blocked,
           quota = s.quota + excluded.quota,
           client_left = s.client_left + excluded.client_left,
           unpriced = s.unpriced + excluded.unpriced,
           prompt_tokens = s.prompt_tokens + excluded.prompt_tokens,
           cached_tokens = s.cached_tokens + excluded.cached_tokens,
           executions_sq = s.executions_sq + excluded.executions_sq,
           successes_sq = s.successes_sq + excluded.successes_sq,
           successes_executions = s.successes_executions + excluded.successes_executions,
           blocked_sq = s.blocked_sq + excluded.blocked_sq,
           blocked_executions = s.blocked_executions + excluded.blocked_executions,
           latency_units = s.latency_units + excluded.latency_units,
           attempted_sq = s.attempted_sq + excluded.attempted_sq,
           latency_ms = s.latency_ms + excluded.latency_ms,
           latency_ms_sq = s.latency_ms_sq + excluded.latency_ms_sq,
           latency_ms_attempted = s.latency_ms_attempted + excluded.latency_ms_attempted,
           latency_log = s.latency_log + excluded.latency_log,
           latency_log_sq = s.latency_log_sq + excluded.latency_log_sq,
           cost_units = s.cost_units + excluded.cost_units,
           priced_sq = s.priced_sq + excluded.priced_sq,
           cost_usd = s.cost_usd + excluded.cost_usd,
           cost_usd_sq = s.cost_usd_sq + excluded.cost_usd_sq,
           cost_usd_priced = s.cost_usd_priced + excluded.cost_usd_priced,
           cost_usd_successes = s.cost_usd_successes + excluded.cost_usd_successes,
           first_seen_at = least(s.first_seen_at, excluded.first_seen_at),
           last_seen_at = greatest(s.last_seen_at, excluded.last_seen_at);
end
$$;

-- Calls with an experiment's id count for it; those without, for the one that is active on their template.
create function chaperone_count_reasons(calls chaperone_call[]) returns void
    language sql set search_path from current
as $$
    insert into ab_test_reasons as r (experiment_id, reason, executions)
    select e.id, call.reason, sum(call.executions)
      from (select experiment_id, tenant_id, template_name, reason, count(*) as executions
              from unnest(calls)
             where reason is not null
             group by experiment_id, tenant_id, template_name, reason) call
      join ab_test_experiments e
        on e.id = call.experiment_id
        or (call.experiment_id is null and e.status = 'active' and e.tenant_id = call.tenant_id
            and e.template_name = call.template_name)
     group by e.id, call.reason
     order by e.id, call.reason
        on conflict (experiment_id, reason) do update set executions = r.executions + excluded.executions
$$;

create function chaperone_count_totals(calls chaperone_call[]) returns void
    language sql set search_path from current
as $$
    insert into prompt_template_totals as t
          (template_id, executions, success, failure, blocked, attempted, response_time_ms, counted, tokens,
           priced, cost_usd, last_execution_at)
    select template_id, count(*),
           count(*) filter (where outcome = 'success'),
           count(*) filter (where outcome in ('failed', 'incomplete')),
           count(*) filter (where outcome in ('blocked', 'response_blocked')),
           count(*) filter (where outcome not in ('blocked', 'rejected')),
           coalesce(sum(execution_time_ms) filter (where outcome not in ('blocked', 'rejected')), 0),
           count(token_count), coalesce(sum(token_count::double precision), 0),
           count(cost_usd), coalesce(sum(cost_usd), 0), max(created_at)
      from unnest(calls)
     where template_id is not null
     group by template_id
     order by template_id
        on conflict (template_id) do update set
           executions = t.executions + excluded.executions,
           success = t.success + excluded.success,
           failure = t.failure + excluded.failure,
           blocked = t.blocked + excluded.blocked,
           attempted = t.attempted + excluded.attempted,
           response_time_ms = t.response_time_ms + excluded.response_time_ms,
           counted = t.counted + excluded.counted,
           tokens = t.tokens + excluded.tokens,
           priced = t.priced + excluded.priced,
           cost_usd = t.cost_usd + excluded.cost_usd,
           last_execution_at = greatest(t.last_execution_at, excluded.last_execution_at);

    -- The star stands for guardrails that were not listed one by one.
    insert into prompt_guardrail_totals as g (tenant_id, rule_name, evaluations, violations)
    select call.tenant_id, evaluation ->> 'rule_name', count(*),
           count(*) filter (where evaluation -> 'passed' = 'false')
      from unnest(calls) call
     cross join lateral jsonb_array_elements(
               case jsonb_typeof(call.evaluated) when 'array' then call.evaluated else '[]' end) evaluation
     where evaluation ->> 'rule_name' <> '*'
     group by 1, 2
     order by 1, 2
        on conflict (tenant_id, rule_name) do update set
           evaluations = g.evaluations + excluded.evaluations,
           violations = g.violations + excluded.violations
$$;

-- Without just-in-time compilation: it would take seconds to compile what runs for milliseconds.
create function chaperone_count(calls chaperone_call[]) returns void
    language plpgsql set search_path from current set jit = off
as $$
begin
    perform chaperone_count_experiments(calls);
    perform chaperone_count_reasons(calls);
    perform chaperone_count_totals(calls);
end
$$;

create function chaperone_count_added() returns trigger
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

create trigger prompt_executions_count
    after insert on prompt_executions
    referencing new table as added
    for each statement execute function chaperone_count_added();

-- The latest word on an execution and a key is the one that counts.
create function chaperone_count_feedback() returns trigger
    language plpgsql set search_path from current
as $$
declare
    more integer := 1;
    gain double precision;
begin
    if new.experiment_id is null then
        return null;
    end if;
    gain := chaperone_feedback_number(new.value);
    if tg_op = 'UPDATE' then
        more := 0;
        gain := gain - chaperone_feedback_number(old.value);
    end if;
    insert into ab_test_unit_feedback as f (experiment_id, phase, arm, unit_key, key, count, sum)
    values (new.experiment_id, new.phase, new.arm, new.unit_key, new.key, more, gain)
        on conflict (experiment_id, phase, arm, unit_key, key) do update set
           count = f.count + excluded.count, sum = f.sum + excluded.sum;
    update ab_test_units set feedback_count = feedback_count + more, feedback_sum = feedback_sum + gain
     where experiment_id = new.experiment_id and phase = new.phase and arm = new.arm
       and unit_key = new.unit_key;
    return null;
end
$$;

create function chaperone_feedback_number(value jsonb) returns double precision
    language sql immutable
as $$
    select case value when 'true' then 1 when 'false' then 0 else (value #>> '{}')::double precision end
$$;

create trigger prompt_feedback_count
    after insert or update of value on prompt_feedback
    for each row execute function chaperone_count_feedback();

-- === report ===

-- The same columns as before, now from what was counted: also of executions that retention has dropped.
create or replace view prompt_template_performance as
select
    t.id as template_id,
    t.tenant_id,
    t.name,
    t.version,
    t.is_active,
    coalesce(c.executions, 0) as total_executions,
    coalesce(c.success, 0) as success_count,
    coalesce(c.failure, 0) as failure_count,
    coalesce(c.blocked, 0) as blocked_count,
    (100.0 * c.success / nullif(c.success + c.failure, 0))::double precision as success_rate,
    c.response_time_ms / nullif(c.attempted, 0) as avg_response_time_ms,
    c.tokens / nullif(c.counted, 0) as avg_token_count,
    case when c.priced > 0 then c.cost_usd end as total_cost_usd,
    (c.cost_usd / nullif(c.priced, 0))::numeric(24, 12) as avg_cost_usd,
    c.last_execution_at
from prompt_templates t
left join prompt_template_totals c on c.template_id = t.id;

-- === what is there already ===

-- The trigger's lock keeps writers out until this is done. By day, because a call takes room.
do $$
declare
    from_day timestamptz;
begin
    for from_day in
        select distinct date_trunc('day', created_at at time zone 'utc') at time zone 'utc'
          from prompt_executions order by 1
    loop
        perform chaperone_count(array_agg(
                    row(tenant_id, template_id, template_name, ab_test_experiment_id, ab_test_group, unit_key,
                        assignment_reason, outcome, success, error_type, execution_time_ms,
                        estimated_cost_usd, token_count, prompt_tokens, cached_tokens,
                        guardrails_evaluated, created_at)::chaperone_call))
           from prompt_executions
          where created_at >= from_day and created_at < from_day + interval '1 day';
    end loop;
end
$$;

update prompt_feedback f
   set experiment_id = e.ab_test_experiment_id,
       phase = (select coalesce(max(phase), 1) from ab_test_phases
                 where experiment_id = e.ab_test_experiment_id and started_at <= e.created_at),
       arm = e.ab_test_group,
       unit_key = e.unit_key
  from prompt_executions e
 where e.id = f.execution_id and e.ab_test_experiment_id is not null and e.ab_test_group is not null
   and e.unit_key is not null
   and coalesce(e.assignment_reason, 'assigned') not in ('forced', 'left', 'paused', 'excluded');

insert into ab_test_unit_feedback (experiment_id, phase, arm, unit_key, key, count, sum)
select experiment_id, phase, arm, unit_key, key, count(*), sum(chaperone_feedback_number(value))
  from prompt_feedback
 where experiment_id is not null
 group by experiment_id, phase, arm, unit_key, key;

update ab_test_units u
   set feedback_count = f.count, feedback_sum = f.sum
  from (select experiment_id, phase, arm, unit_key, sum(count) as count, sum(sum) as sum
          from ab_test_unit_feedback group by experiment_id, phase, arm, unit_key) f
 where u.experiment_id = f.experiment_id and u.phase = f.phase and u.arm = f.arm and u.unit_key = f.unit_key;
