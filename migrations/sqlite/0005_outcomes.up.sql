-- What experiments and templates have shown, counted in the transaction that stores the executions: a row
-- that is stored is counted, a row that was there already is neither stored nor counted again. The same as
-- in ../postgres, in SQLite's types. `ln` is a function of the program. Times are compared without their Z,
-- which stands in the way of the order of texts where fractions end early.
--
-- Expands only. Triggers count.

-- === what an analysis holds to ===

-- Fixed when the first execution of an experiment is stored, and never again: a cap that follows the data
-- would void what a confidence sequence promises.
create table ab_test_parameters (
    experiment_id text primary key not null references ab_test_experiments (id),
    -- N*: where the confidence sequence is tightest.
    target_units integer not null,
    -- The 99.9th percentile of control in the 14 days before the start, of its latest 20,000 calls at most.
    -- Null where there were fewer than 1,000.
    latency_cap_ms real,
    cost_cap_usd text,
    -- Calls behind the caps.
    calls integer not null,
    frozen_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) strict;

-- === what units did ===

-- Answered calls whose model has no known price.
alter table ab_test_units add column unpriced integer not null default 0;
-- Failed because upstream had no quota left: its load, not the prompt.
alter table ab_test_units add column quota integer not null default 0;
alter table ab_test_units add column client_left integer not null default 0;
alter table ab_test_units add column prompt_tokens_sum real not null default 0;
alter table ab_test_units add column cached_tokens_sum real not null default 0;
-- Was in another arm before. Kept, and left out of every sum.
alter table ab_test_units add column crossed integer not null default 0;

create index ab_test_units_unit on ab_test_units (experiment_id, unit_key);

-- Sums over the units of an arm in a phase: all that an analysis reads. Where each request is a unit there
-- are these sums and no rows of units.
create table ab_test_sums (
    experiment_id text not null references ab_test_experiments (id),
    phase integer not null,
    arm text not null,
    crossed_units integer not null default 0,
    units integer not null default 0,
    executions integer not null default 0,
    attempted integer not null default 0,
    successes integer not null default 0,
    blocked integer not null default 0,
    quota integer not null default 0,
    client_left integer not null default 0,
    unpriced integer not null default 0,
    prompt_tokens real not null default 0,
    cached_tokens real not null default 0,
    executions_sq real not null default 0,
    successes_sq real not null default 0,
    successes_executions real not null default 0,
    blocked_sq real not null default 0,
    blocked_executions real not null default 0,
    latency_units integer not null default 0,
    attempted_sq real not null default 0,
    latency_ms real not null default 0,
    latency_ms_sq real not null default 0,
    latency_ms_attempted real not null default 0,
    latency_log real not null default 0,
    latency_log_sq real not null default 0,
    cost_units integer not null default 0,
    priced_sq real not null default 0,
    cost_usd real not null default 0,
    cost_usd_sq real not null default 0,
    cost_usd_priced real not null default 0,
    cost_usd_successes real not null default 0,
    first_seen_at text not null,
    last_seen_at text not null,
    primary key (experiment_id, phase, arm)
) strict;

-- Why calls on an experiment's template got the arm they got, or none.
create table ab_test_reasons (
    experiment_id text not null references ab_test_experiments (id),
    reason text not null,
    executions integer not null default 0,
    primary key (experiment_id, reason)
) strict;

-- When a comparison first was significant, and when a harm metric first was. Never taken back.
create table ab_test_milestones (
    experiment_id text not null references ab_test_experiments (id),
    metric text not null,
    arm text not null,
    kind text not null check (kind in ('significant', 'harm', 'read')),
    p real,
    at text not null,
    primary key (experiment_id, metric, arm, kind)
) strict;

-- === feedback ===

-- Where its execution stands, so that a later word on it is counted in the same place.
alter table prompt_feedback add column experiment_id text;
alter table prompt_feedback add column phase integer;
alter table prompt_feedback add column arm text;
alter table prompt_feedback add column unit_key text;

create table prompt_feedback_keys (
    tenant_id text not null,
    idempotency_key text not null,
    -- SHA-256 of execution, key and value: another word may not use the same idempotency key.
    fingerprint text not null,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    primary key (tenant_id, idempotency_key)
) strict;

create index prompt_feedback_keys_age on prompt_feedback_keys (created_at);

create table ab_test_unit_feedback (
    experiment_id text not null,
    phase integer not null,
    arm text not null,
    unit_key text not null,
    key text not null,
    count integer not null default 0,
    sum real not null default 0,
    primary key (experiment_id, phase, arm, unit_key, key)
) strict;

-- === totals ===

create table prompt_template_totals (
    template_id text primary key not null,
    executions integer not null default 0,
    success integer not null default 0,
    failure integer not null default 0,
    blocked integer not null default 0,
    attempted integer not null default 0,
    response_time_ms real not null default 0,
    counted integer not null default 0,
    tokens real not null default 0,
    priced integer not null default 0,
    cost_usd real not null default 0,
    last_execution_at text not null
) strict;

create table prompt_guardrail_totals (
    tenant_id text not null,
    rule_name text not null,
    evaluations integer not null default 0,
    violations integer not null default 0,
    primary key (tenant_id, rule_name)
) strict;

-- === counting ===

-- What each unit adds to the sums of its arm.
create view ab_test_unit_terms as
select experiment_id, phase, arm, unit_key,
       crossed as crossed_units,
       iif(crossed, 0, 1) as units,
       iif(crossed, 0, executions) as executions,
       iif(crossed, 0, attempted) as attempted,
       iif(crossed, 0, successes) as successes,
       iif(crossed, 0, blocked) as blocked,
       iif(crossed, 0, quota) as quota,
       iif(crossed, 0, client_left) as client_left,
       iif(crossed, 0, unpriced) as unpriced,
       iif(crossed, 0, prompt_tokens_sum) as prompt_tokens,
       iif(crossed, 0, cached_tokens_sum) as cached_tokens,
       iif(crossed, 0, executions * executions) as executions_sq,
       iif(crossed, 0, successes * successes) as successes_sq,
       iif(crossed, 0, successes * executions) as successes_executions,
       iif(crossed, 0, blocked * blocked) as blocked_sq,
       iif(crossed, 0, blocked * executions) as blocked_executions,
       iif(crossed, 0, attempted > 0) as latency_units,
       iif(crossed, 0, attempted * attempted) as attempted_sq,
       iif(crossed, 0, latency_ms_sum) as latency_ms,
       iif(crossed, 0, latency_ms_sum * latency_ms_sum) as latency_ms_sq,
       iif(crossed, 0, latency_ms_sum * attempted) as latency_ms_attempted,
       iif(crossed, 0, iif(attempted > 0, latency_log_sum / attempted, 0)) as latency_log,
       iif(crossed, 0, iif(attempted > 0, latency_log_sum / attempted * latency_log_sum / attempted, 0)) as latency_log_sq,
       iif(crossed, 0, executions > unpriced) as cost_units,
       iif(crossed, 0, (executions - unpriced) * (executions - unpriced)) as priced_sq,
       iif(crossed, 0, iif(executions > unpriced, usd, 0)) as cost_usd,
       iif(crossed, 0, iif(executions > unpriced, usd * usd, 0)) as cost_usd_sq,
       iif(crossed, 0, usd * (executions - unpriced)) as cost_usd_priced,
       iif(crossed, 0, usd * successes) as cost_usd_successes
  from (select *, cast(replace(cost_usd_sum, '.', '') as integer) / 1000000000000.0 as usd from ab_test_units);

-- Writing a call of an arm here counts it.
create view ab_test_calls as
select ab_test_experiment_id as experiment_id, 1 as phase, ab_test_group as arm, unit_key, 0 as alone,
       success, outcome, error_type, execution_time_ms as latency_ms, execution_time_ms as latency_log,
       estimated_cost_usd as cost_usd, token_count, prompt_tokens, cached_tokens, created_at
  from prompt_executions;

create trigger ab_test_calls_count instead of insert on ab_test_calls
begin
    insert or ignore into ab_test_sums (experiment_id, phase, arm, first_seen_at, last_seen_at)
    values (new.experiment_id, new.phase, new.arm, new.created_at, new.created_at);

    update ab_test_sums set
        crossed_units = ab_test_sums.crossed_units - t.crossed_units,
        units = ab_test_sums.units - t.units,
        executions = ab_test_sums.executions - t.executions,
        attempted = ab_test_sums.attempted - t.attempted,
        successes = ab_test_sums.successes - t.successes,
        blocked = ab_test_sums.blocked - t.blocked,
        quota = ab_test_sums.quota - t.quota,
        client_left = ab_test_sums.client_left - t.client_left,
        unpriced = ab_test_sums.unpriced - t.unpriced,
        prompt_tokens = ab_test_sums.prompt_tokens - t.prompt_tokens,
        cached_tokens = ab_test_sums.cached_tokens - t.cached_tokens,
        executions_sq = ab_test_sums.executions_sq - t.executions_sq,
        successes_sq = ab_test_sums.successes_sq - t.successes_sq,
        successes_executions = ab_test_sums.successes_executions - t.successes_executions,
        blocked_sq = ab_test_sums.blocked_sq - t.blocked_sq,
        blocked_executions = ab_test_sums.blocked_executions - t.blocked_executions,
        latency_units = ab_test_sums.latency_units - t.latency_units,
        attempted_sq = ab_test_sums.attempted_sq - t.attempted_sq,
        latency_ms = ab_test_sums.latency_ms - t.latency_ms,
        latency_ms_sq = ab_test_sums.latency_ms_sq - t.latency_ms_sq,
        latency_ms_attempted = ab_test_sums.latency_ms_attempted - t.latency_ms_attempted,
        latency_log = ab_test_sums.latency_log - t.latency_log,
        latency_log_sq = ab_test_sums.latency_log_sq - t.latency_log_sq,
        cost_units = ab_test_sums.cost_units - t.cost_units,
        priced_sq = ab_test_sums.priced_sq - t.priced_sq,
        cost_usd = ab_test_sums.cost_usd - t.cost_usd,
        cost_usd_sq = ab_test_sums.cost_usd_sq - t.cost_usd_sq,
        cost_usd_priced = ab_test_sums.cost_usd_priced - t.cost_usd_priced,
        cost_usd_successes = ab_test_sums.cost_usd_successes - t.cost_usd_successes
      from ab_test_unit_terms t
     where ab_test_sums.experiment_id = new.experiment_id and ab_test_sums.phase = new.phase and ab_test_sums.arm = new.arm
       and t.experiment_id = new.experiment_id and t.phase = new.phase and t.arm = new.arm
       and t.unit_key = new.unit_key;

    insert into ab_test_units
          (experiment_id, phase, arm, unit_key, executions, attempted, successes, blocked, quota, client_left,
           unpriced, latency_ms_sum, latency_log_sum, cost_usd_sum, prompt_tokens_sum, cached_tokens_sum,
           crossed, first_seen_at)
    values (new.experiment_id, new.phase, new.arm, new.unit_key, 1,
            new.outcome not in ('blocked', 'rejected'), new.success,
            new.outcome in ('blocked', 'response_blocked'), new.error_type is 'upstream_quota',
            new.outcome = 'client_left', new.cost_usd is null and new.token_count is not null,
            iif(new.outcome not in ('blocked', 'rejected'), new.latency_ms, 0),
            iif(new.outcome not in ('blocked', 'rejected'), new.latency_log, 0),
            coalesce(new.cost_usd, '0.000000000000'), coalesce(new.prompt_tokens, 0),
            coalesce(new.cached_tokens, 0),
            not new.alone and exists (
                select 1 from ab_test_units other
                 where other.experiment_id = new.experiment_id and other.unit_key = new.unit_key
                   and other.arm <> new.arm
                   and other.phase >= (
                       select coalesce(max(p.phase), 1) from ab_test_phases p
                        where p.experiment_id = new.experiment_id and p.mode = 'rerandomise'
                          and p.phase <= new.phase)),
            new.created_at)
        on conflict (experiment_id, phase, arm, unit_key) do update set
           executions = ab_test_units.executions + excluded.executions,
           attempted = ab_test_units.attempted + excluded.attempted,
           successes = ab_test_units.successes + excluded.successes,
           blocked = ab_test_units.blocked + excluded.blocked,
           quota = ab_test_units.quota + excluded.quota,
           client_left = ab_test_units.client_left + excluded.client_left,
           unpriced = ab_test_units.unpriced + excluded.unpriced,
           latency_ms_sum = ab_test_units.latency_ms_sum + excluded.latency_ms_sum,
           latency_log_sum = ab_test_units.latency_log_sum + excluded.latency_log_sum,
           -- Money as an integer of its twelve decimals.
           cost_usd_sum = printf('%d.%012d',
               (cast(replace(ab_test_units.cost_usd_sum, '.', '') as integer) + cast(replace(excluded.cost_usd_sum, '.', '') as integer))
                   / 1000000000000,
               (cast(replace(ab_test_units.cost_usd_sum, '.', '') as integer) + cast(replace(excluded.cost_usd_sum, '.', '') as integer))
                   % 1000000000000),
           prompt_tokens_sum = ab_test_units.prompt_tokens_sum + excluded.prompt_tokens_sum,
           cached_tokens_sum = ab_test_units.cached_tokens_sum + excluded.cached_tokens_sum,
           first_seen_at = min(ab_test_units.first_seen_at, excluded.first_seen_at);

    update ab_test_sums set
        first_seen_at = min(ab_test_sums.first_seen_at, new.created_at),
        last_seen_at = max(ab_test_sums.last_seen_at, new.created_at),
        crossed_units = ab_test_sums.crossed_units + t.crossed_units,
        units = ab_test_sums.units + t.units,
        executions = ab_test_sums.executions + t.executions,
        attempted = ab_test_sums.attempted + t.attempted,
        successes = ab_test_sums.successes + t.successes,
        blocked = ab_test_sums.blocked + t.blocked,
        quota = ab_test_sums.quota + t.quota,
        client_left = ab_test_sums.client_left + t.client_left,
        unpriced = ab_test_sums.unpriced + t.unpriced,
        prompt_tokens = ab_test_sums.prompt_tokens + t.prompt_tokens,
        cached_tokens = ab_test_sums.cached_tokens + t.cached_tokens,
        executions_sq = ab_test_sums.executions_sq + t.executions_sq,
        successes_sq = ab_test_sums.successes_sq + t.successes_sq,
        successes_executions = ab_test_sums.successes_executions + t.successes_executions,
        blocked_sq = ab_test_sums.blocked_sq + t.blocked_sq,
        blocked_executions = ab_test_sums.blocked_executions + t.blocked_executions,
        latency_units = ab_test_sums.latency_units + t.latency_units,
        attempted_sq = ab_test_sums.attempted_sq + t.attempted_sq,
        latency_ms = ab_test_sums.latency_ms + t.latency_ms,
        latency_ms_sq = ab_test_sums.latency_ms_sq + t.latency_ms_sq,
        latency_ms_attempted = ab_test_sums.latency_ms_attempted + t.latency_ms_attempted,
        latency_log = ab_test_sums.latency_log + t.latency_log,
        latency_log_sq = ab_test_sums.latency_log_sq + t.latency_log_sq,
        cost_units = ab_test_sums.cost_units + t.cost_units,
        priced_sq = ab_test_sums.priced_sq + t.priced_sq,
        cost_usd = ab_test_sums.cost_usd + t.cost_usd,
        cost_usd_sq = ab_test_sums.cost_usd_sq + t.cost_usd_sq,
        cost_usd_priced = ab_test_sums.cost_usd_priced + t.cost_usd_priced,
        cost_usd_successes = ab_test_sums.cost_usd_successes + t.cost_usd_successes
      from ab_test_unit_terms t
     where ab_test_sums.experiment_id = new.experiment_id and ab_test_sums.phase = new.phase and ab_test_sums.arm = new.arm
       and t.experiment_id = new.experiment_id and t.phase = new.phase and t.arm = new.arm
       and t.unit_key = new.unit_key;

    delete from ab_test_units
     where new.alone and experiment_id = new.experiment_id and phase = new.phase and arm = new.arm
       and unit_key = new.unit_key;
end;

-- Writing a call here counts it.
create view chaperone_calls as
select tenant_id, template_id, template_name, ab_test_experiment_id as experiment_id, ab_test_group as arm,
       unit_key, assignment_reason as reason, outcome, success, error_type, execution_time_ms,
       estimated_cost_usd as cost_usd, token_count, prompt_tokens, cached_tokens,
       guardrails_evaluated as evaluated, created_at
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
          from (select x.execution_time_ms, x.estimated_cost_usd
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
           iif(cast(replace(new.cost_usd, '.', '') as integer) > cast(replace(p.cost_cap_usd, '.', '') as integer), p.cost_cap_usd, new.cost_usd),
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
           created_at)
    values (new.tenant_id, new.template_id, new.template_name, new.ab_test_experiment_id, new.ab_test_group,
            new.unit_key, new.assignment_reason, new.outcome, new.success, new.error_type,
            new.execution_time_ms, new.estimated_cost_usd, new.token_count, new.prompt_tokens,
            new.cached_tokens, new.guardrails_evaluated, new.created_at);
end;

-- The latest word on an execution and a key is the one that counts.

create trigger prompt_feedback_first after insert on prompt_feedback
when new.experiment_id is not null
begin
    insert into ab_test_unit_feedback (experiment_id, phase, arm, unit_key, key, count, sum)
    values (new.experiment_id, new.phase, new.arm, new.unit_key, new.key, 1, new.value ->> '$')
        on conflict (experiment_id, phase, arm, unit_key, key) do update set
           count = ab_test_unit_feedback.count + 1, sum = ab_test_unit_feedback.sum + excluded.sum;
    update ab_test_units set feedback_count = feedback_count + 1,
                             feedback_sum = feedback_sum + (new.value ->> '$')
     where experiment_id = new.experiment_id and phase = new.phase and arm = new.arm
       and unit_key = new.unit_key;
end;

create trigger prompt_feedback_again after update of value on prompt_feedback
when new.experiment_id is not null
begin
    update ab_test_unit_feedback set sum = sum + (new.value ->> '$') - (old.value ->> '$')
     where experiment_id = new.experiment_id and phase = new.phase and arm = new.arm
       and unit_key = new.unit_key and key = new.key;
    update ab_test_units set feedback_sum = feedback_sum + (new.value ->> '$') - (old.value ->> '$')
     where experiment_id = new.experiment_id and phase = new.phase and arm = new.arm
       and unit_key = new.unit_key;
end;

-- === report ===

-- The same columns as before, now from what was counted. Costs are REAL here, for reading; exact sums are
-- made from the rows.
drop view prompt_template_performance;
create view prompt_template_performance as
select
    t.id as template_id,
    t.tenant_id as tenant_id,
    t.name as name,
    t.version as version,
    t.is_active as is_active,
    coalesce(c.executions, 0) as total_executions,
    coalesce(c.success, 0) as success_count,
    coalesce(c.failure, 0) as failure_count,
    coalesce(c.blocked, 0) as blocked_count,
    100.0 * c.success / nullif(c.success + c.failure, 0) as success_rate,
    c.response_time_ms / nullif(c.attempted, 0) as avg_response_time_ms,
    c.tokens / nullif(c.counted, 0) as avg_token_count,
    iif(c.priced > 0, c.cost_usd, null) as total_cost_usd,
    c.cost_usd / nullif(c.priced, 0) as avg_cost_usd,
    c.last_execution_at as last_execution_at
from prompt_templates t
left join prompt_template_totals c on c.template_id = t.id;

-- === what is there already ===

insert into chaperone_calls
      (tenant_id, template_id, template_name, experiment_id, arm, unit_key, reason, outcome, success,
       error_type, execution_time_ms, cost_usd, token_count, prompt_tokens, cached_tokens, evaluated,
       created_at)
select tenant_id, template_id, template_name, experiment_id, arm, unit_key, reason, outcome, success,
       error_type, execution_time_ms, cost_usd, token_count, prompt_tokens, cached_tokens, evaluated,
       created_at
  from chaperone_calls
 order by created_at;

update prompt_feedback
   set experiment_id = e.ab_test_experiment_id,
       phase = (select coalesce(max(phase), 1) from ab_test_phases
                 where experiment_id = e.ab_test_experiment_id and rtrim(started_at, 'Z') <= rtrim(e.created_at, 'Z')),
       arm = e.ab_test_group,
       unit_key = e.unit_key
  from prompt_executions e
 where e.id = execution_id and e.ab_test_experiment_id is not null and e.ab_test_group is not null
   and e.unit_key is not null and coalesce(e.assignment_reason, 'assigned') not in ('forced', 'left', 'paused', 'excluded');

insert into ab_test_unit_feedback (experiment_id, phase, arm, unit_key, key, count, sum)
select experiment_id, phase, arm, unit_key, key, count(*), sum(value ->> '$')
  from prompt_feedback
 where experiment_id is not null
 group by experiment_id, phase, arm, unit_key, key;

update ab_test_units as u
   set feedback_count = f.count, feedback_sum = f.sum
  from (select experiment_id, phase, arm, unit_key, sum(count) as count, sum(sum) as sum
          from ab_test_unit_feedback group by experiment_id, phase, arm, unit_key) f
 where u.experiment_id = f.experiment_id and u.phase = f.phase and u.arm = f.arm and u.unit_key = f.unit_key;
