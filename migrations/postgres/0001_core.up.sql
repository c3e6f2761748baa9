-- The tables of Chaperone. The embedded store (../sqlite) has the same ones.
--
-- No seeds (the program inserts them from config/ in the same transaction), no BEGIN or COMMIT.
-- JSON arrays instead of SQL arrays, so that both stores speak the same JSON.

-- === templates ===

create table prompt_templates (
    id uuid primary key,
    tenant_id text not null default 'default',
    name text not null,
    description text,
    category text,
    template_text text not null,
    template_syntax text not null default 'format' check (template_syntax in ('format', 'jinja')),
    -- Null when template_text alone is the template.
    messages jsonb,
    -- Where template_text goes when there are no messages.
    target text not null default 'user' check (target in ('system_instruction', 'user')),
    variables jsonb not null default '[]',
    model_config jsonb not null default '{}',
    -- Template engines change their output between releases; this says which one the version was checked with.
    engine_version text,
    version integer not null check (version > 0),
    -- Restricts deletion on purpose: a lineage may not lose its middle.
    parent_version_id uuid references prompt_templates (id),
    is_active boolean not null default false,
    -- Split without an experiment: used only while no experiment on this name is active.
    ab_test_group text,
    traffic_percentage numeric(6, 3) check (traffic_percentage between 0 and 100),
    ab_test_start_date timestamptz,
    ab_test_end_date timestamptz,
    -- Filled from prompt_executions by a roll-up, never by requests: a counter on this row would be
    -- the one row that every request fights for.
    total_executions bigint not null default 0,
    success_count bigint not null default 0,
    failure_count bigint not null default 0,
    avg_response_time_ms double precision,
    avg_token_count double precision,
    avg_cost_usd numeric(24, 12),
    created_by text,
    created_at timestamptz not null default now(),
    updated_by text,
    updated_at timestamptz not null default now(),
    deactivated_at timestamptz,
    deactivated_by text,
    unique (tenant_id, name, version)
);

-- Two active versions of one name would make "the active version" a matter of row order. Checked at
-- once, not at commit: deactivate the old version before activating the new one.
create unique index prompt_templates_one_active
    on prompt_templates (tenant_id, name) where is_active and ab_test_group is null;
create index prompt_templates_name on prompt_templates (name);
create index prompt_templates_active on prompt_templates (is_active, name);
create index prompt_templates_group on prompt_templates (ab_test_group, is_active);

-- === guardrails ===

create table prompt_guardrails (
    id uuid primary key,
    tenant_id text not null default 'default',
    name text not null,
    description text,
    rule_type text not null check (rule_type in ('pii', 'injection', 'toxic', 'secret', 'custom')),
    severity text not null check (severity in ('info', 'warning', 'error', 'critical')),
    is_active boolean not null default true,
    blocking boolean not null default false,
    rule_config jsonb not null default '{}',
    -- Names of templates and categories; both empty = everything.
    applies_to_templates jsonb not null default '[]' check (jsonb_typeof(applies_to_templates) = 'array'),
    applies_to_categories jsonb not null default '[]' check (jsonb_typeof(applies_to_categories) = 'array'),
    total_evaluations bigint not null default 0,
    total_violations bigint not null default 0,
    created_by text,
    created_at timestamptz not null default now(),
    updated_by text,
    updated_at timestamptz not null default now(),
    unique (tenant_id, name)
);

-- === experiments ===

create table ab_test_experiments (
    id uuid primary key,
    tenant_id text not null default 'default',
    name text not null,
    description text,
    template_name text not null,
    status text not null default 'draft' check (status in ('draft', 'active', 'paused', 'completed')),
    control_template_id uuid not null references prompt_templates (id),
    variant_template_ids jsonb not null default '[]' check (jsonb_typeof(variant_template_ids) = 'array'),
    traffic_split jsonb not null default '{}',
    -- [{ordinal, key, template_id, weight_millipercent}], written by the server. jsonb reorders the
    -- keys of traffic_split, and an order that changes would reassign users.
    arms jsonb,
    enrollment_percentage numeric(6, 3) not null default 100 check (enrollment_percentage between 0 and 100),
    randomization_unit text not null default 'user',
    -- Null = the id. Goes into the hashed text between colons, so it may hold none.
    salt text check (salt ~ '^[A-Za-z0-9_-]{1,64}$'),
    hash_version integer not null default 1 check (hash_version > 0),
    start_date timestamptz,
    end_date timestamptz,
    target_sample_size integer check (target_sample_size > 0),
    -- A name, or an object of name, direction and parameters.
    primary_metric jsonb,
    secondary_metrics jsonb not null default '[]',
    results jsonb,
    winner_template_id uuid references prompt_templates (id),
    -- 1 - p, rounded down: four places cannot hold a small p. The full value is in results.
    statistical_significance numeric(5, 4) check (statistical_significance between 0 and 1),
    created_by text,
    created_at timestamptz not null default now(),
    updated_by text,
    updated_at timestamptz not null default now(),
    unique (tenant_id, name),
    check (end_date > start_date)
);

create unique index ab_test_experiments_one_active
    on ab_test_experiments (tenant_id, template_name) where status = 'active';

-- === executions ===

-- No foreign keys: an execution outlives the template it used, and a sidecar that served from a
-- snapshot or from files may record templates this database has never seen. No checks on words such
-- as outcome either: a row refused here is an execution lost.
create table prompt_executions (
    id uuid not null,
    tenant_id text not null,
    request_id text not null,
    template_id uuid,
    template_name text,
    template_version integer,
    template_content_hash text,
    call text not null,
    streamed boolean not null,
    user_id text,
    unit_key text,
    conversation_id text,
    variables_used jsonb,
    rendered_prompt jsonb,
    model_name text,
    model_config jsonb,
    execution_time_ms double precision not null,
    time_to_first_token_ms double precision,
    overhead_ms double precision,
    token_count bigint,
    prompt_tokens bigint,
    cached_tokens bigint,
    candidates_tokens bigint,
    thoughts_tokens bigint,
    tool_use_tokens bigint,
    usage_partial boolean not null default false,
    -- Null = no price known, which is not the same as free.
    estimated_cost_usd numeric(24, 12),
    price_version text,
    outcome text not null,
    success boolean not null,
    error_type text,
    error_message text,
    http_status integer,
    finish_reason text,
    guardrails_evaluated jsonb not null default '[]',
    guardrail_violations jsonb not null default '[]',
    ab_test_group text,
    ab_test_experiment_id uuid,
    assignment_reason text,
    enroll_bucket integer,
    variant_bucket integer,
    body_sha256 text,
    catalog_generation bigint not null default 0,
    catalog_source text not null default '',
    created_at timestamptz not null,
    -- A key of a partitioned table must hold the partition column.
    primary key (id, created_at)
) partition by range (created_at);

create index prompt_executions_template on prompt_executions (template_id, created_at);
create index prompt_executions_user on prompt_executions (user_id, created_at);
create index prompt_executions_experiment on prompt_executions (ab_test_experiment_id, created_at);
-- Pages of the newest executions of a tenant.
create index prompt_executions_page on prompt_executions (tenant_id, created_at desc, id desc);

-- Catches every row that no month takes, so that a clock or a missing month never costs an execution.
create table prompt_executions_default partition of prompt_executions default;

do $$
declare
    -- Months of UTC: the partitions must not depend on the time zone of whoever migrates.
    first_month timestamp := date_trunc('month', now() at time zone 'utc');
    from_month timestamp;
begin
    for month in 0..12 loop
        from_month := first_month + make_interval(months => month);
        execute format(
            'create table %I partition of prompt_executions for values from (%L) to (%L)',
            to_char(from_month, '"prompt_executions_"YYYY_MM'),
            from_month at time zone 'utc',
            (from_month + interval '1 month') at time zone 'utc');
    end loop;
end
$$;

-- === audit ===

create table prompt_audit (
    id uuid primary key,
    tenant_id text not null default 'default',
    -- The order of the chain. May have gaps (a rolled-back insert takes its number along).
    sequence bigint generated always as identity unique,
    at timestamptz not null default now(),
    actor text not null,
    action text not null,
    object_type text not null,
    object_id text,
    before jsonb,
    after jsonb,
    reason text,
    request_id text,
    previous_hash text,
    hash text
);

create index prompt_audit_page on prompt_audit (tenant_id, sequence desc);
create index prompt_audit_object on prompt_audit (object_type, object_id, sequence);

create function chaperone_refuse_change() returns trigger
    language plpgsql
as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end
$$;

create trigger prompt_audit_append_only
    before update or delete or truncate on prompt_audit
    for each statement execute function chaperone_refuse_change();

-- === what tells the sidecars that something changed ===

create table catalog_revision (
    id smallint primary key check (id = 1),
    revision bigint not null
);

-- Starts from the clock: a database that was migrated down and up again must not repeat a number
-- that a sidecar already holds.
insert into catalog_revision (id, revision) values (1, extract(epoch from now())::bigint);

-- The row lock makes writers of definitions take turns, so that revisions become visible in order.
-- The notification is a hint; whoever misses it finds the revision by polling.
create function chaperone_bump_catalog() returns trigger
    language plpgsql
    set search_path from current
as $$
declare
    now_at bigint;
begin
    update catalog_revision set revision = revision + 1 where id = 1 returning revision into now_at;
    perform pg_notify('chaperone_catalog', now_at::text);
    return null;
end
$$;

create function chaperone_touch_updated_at() returns trigger
    language plpgsql
as $$
begin
    -- Not now(), which stands still within a transaction.
    new.updated_at := clock_timestamp();
    return new;
end
$$;

-- The columns named below are the definitions. Counters, averages and results are left out: a
-- roll-up is not an edit, and must neither rebuild every catalog each minute nor make ETags stale.

create trigger prompt_templates_touch
    before update of id, tenant_id, name, description, category, template_text, template_syntax,
        messages, target, variables, model_config, engine_version, version, parent_version_id,
        is_active, ab_test_group, traffic_percentage, ab_test_start_date, ab_test_end_date,
        deactivated_at, deactivated_by
    on prompt_templates
    for each row execute function chaperone_touch_updated_at();

create trigger prompt_templates_bump
    after insert or delete or truncate
        or update of id, tenant_id, name, description, category, template_text, template_syntax,
        messages, target, variables, model_config, engine_version, version, parent_version_id,
        is_active, ab_test_group, traffic_percentage, ab_test_start_date, ab_test_end_date,
        deactivated_at, deactivated_by
    on prompt_templates
    for each statement execute function chaperone_bump_catalog();

create trigger prompt_guardrails_touch
    before update of id, tenant_id, name, description, rule_type, severity, is_active, blocking,
        rule_config, applies_to_templates, applies_to_categories
    on prompt_guardrails
    for each row execute function chaperone_touch_updated_at();

create trigger prompt_guardrails_bump
    after insert or delete or truncate
        or update of id, tenant_id, name, description, rule_type, severity, is_active, blocking,
        rule_config, applies_to_templates, applies_to_categories
    on prompt_guardrails
    for each statement execute function chaperone_bump_catalog();

create trigger ab_test_experiments_touch
    before update of id, tenant_id, name, description, template_name, status, control_template_id,
        variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
        hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
        winner_template_id
    on ab_test_experiments
    for each row execute function chaperone_touch_updated_at();

create trigger ab_test_experiments_bump
    after insert or delete or truncate
        or update of id, tenant_id, name, description, template_name, status, control_template_id,
        variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
        hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
        winner_template_id
    on ab_test_experiments
    for each statement execute function chaperone_bump_catalog();

-- === report ===

-- Per version. success_rate is a percentage of success + failure: a block is the guardrail's doing,
-- and a rejected, abandoned or drained call says nothing about the template; all of them count in
-- total_executions only. Times leave out the calls that never reached Gemini. Costs and averages are
-- null, not 0, where nothing is known.
create view prompt_template_performance as
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
