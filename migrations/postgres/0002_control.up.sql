-- What the control plane needs: rows that say when they changed, versions that cannot change, the history
-- of what was active, keys that make a retry safe, and the tables that experiments report into.
--
-- Expands only: a binary that knows 0001 alone goes on working on these tables.

-- === rows say when they changed ===

-- The revision of the catalog in which a row was last written. A sidecar that has seen revision n reads
-- the rows above n; a writer that read a row at one revision can tell that it has moved.
alter table prompt_templates
    add column tags jsonb not null default '[]' check (jsonb_typeof(tags) = 'array'),
    add column revision bigint not null default 0;
alter table prompt_guardrails add column revision bigint not null default 0;
alter table ab_test_experiments add column revision bigint not null default 0;

create index prompt_templates_revision on prompt_templates (revision);
create index prompt_guardrails_revision on prompt_guardrails (revision);
create index ab_test_experiments_revision on ab_test_experiments (revision);

-- Taken before the first row is stamped: two writers must not stamp the same number, or a reader who has
-- seen it would miss the rows of the one that commits later.
create function chaperone_lock_catalog() returns trigger
    language plpgsql
    set search_path from current
as $$
begin
    perform 1 from catalog_revision where id = 1 for update;
    return null;
end
$$;

create function chaperone_stamp_revision() returns trigger
    language plpgsql
    set search_path from current
as $$
begin
    new.revision := (select revision + 1 from catalog_revision where id = 1);
    return new;
end
$$;

-- A writer that sets the time itself knows better: it has told it to its client already.
create or replace function chaperone_touch_updated_at() returns trigger
    language plpgsql
as $$
begin
    if new.updated_at is not distinct from old.updated_at then
        -- Not now(), which stands still within a transaction.
        new.updated_at := clock_timestamp();
    end if;
    return new;
end
$$;

-- The columns of a definition once more, now with tags; see migrations/README.md.

drop trigger prompt_templates_touch on prompt_templates;
drop trigger prompt_templates_bump on prompt_templates;

create trigger prompt_templates_touch
    before update of id, tenant_id, name, description, category, tags, template_text, template_syntax,
        messages, target, variables, model_config, engine_version, version, parent_version_id,
        is_active, ab_test_group, traffic_percentage, ab_test_start_date, ab_test_end_date,
        deactivated_at, deactivated_by
    on prompt_templates
    for each row execute function chaperone_touch_updated_at();

create trigger prompt_templates_bump
    after insert or delete or truncate
        or update of id, tenant_id, name, description, category, tags, template_text, template_syntax,
        messages, target, variables, model_config, engine_version, version, parent_version_id,
        is_active, ab_test_group, traffic_percentage, ab_test_start_date, ab_test_end_date,
        deactivated_at, deactivated_by
    on prompt_templates
    for each statement execute function chaperone_bump_catalog();

create trigger prompt_templates_lock
    before insert or delete
        or update of id, tenant_id, name, description, category, tags, template_text, template_syntax,
        messages, target, variables, model_config, engine_version, version, parent_version_id,
        is_active, ab_test_group, traffic_percentage, ab_test_start_date, ab_test_end_date,
        deactivated_at, deactivated_by
    on prompt_templates
    for each statement execute function chaperone_lock_catalog();

create trigger prompt_templates_stamp
    before insert
        or update of id, tenant_id, name, description, category, tags, template_text, template_syntax,
        messages, target, variables, model_config, engine_version, version, parent_version_id,
        is_active, ab_test_group, traffic_percentage, ab_test_start_date, ab_test_end_date,
        deactivated_at, deactivated_by
    on prompt_templates
    for each row execute function chaperone_stamp_revision();

create trigger prompt_guardrails_lock
    before insert or delete
        or update of id, tenant_id, name, description, rule_type, severity, is_active, blocking,
        rule_config, applies_to_templates, applies_to_categories
    on prompt_guardrails
    for each statement execute function chaperone_lock_catalog();

create trigger prompt_guardrails_stamp
    before insert
        or update of id, tenant_id, name, description, rule_type, severity, is_active, blocking,
        rule_config, applies_to_templates, applies_to_categories
    on prompt_guardrails
    for each row execute function chaperone_stamp_revision();

create trigger ab_test_experiments_lock
    before insert or delete
        or update of id, tenant_id, name, description, template_name, status, control_template_id,
        variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
        hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
        winner_template_id
    on ab_test_experiments
    for each statement execute function chaperone_lock_catalog();

create trigger ab_test_experiments_stamp
    before insert
        or update of id, tenant_id, name, description, template_name, status, control_template_id,
        variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
        hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
        winner_template_id
    on ab_test_experiments
    for each row execute function chaperone_stamp_revision();

-- === a version cannot change ===

create function chaperone_refuse_edit() returns trigger
    language plpgsql
as $$
begin
    raise exception 'a template version is immutable; make the next version'
        using errcode = 'restrict_violation', constraint = 'prompt_templates_immutable';
end
$$;

create trigger prompt_templates_immutable
    before update on prompt_templates
    for each row
    when ((old.tenant_id, old.name, old.category, old.template_text, old.template_syntax, old.messages,
           old.target, old.variables, old.model_config, old.engine_version, old.version,
           old.parent_version_id)
          is distinct from
          (new.tenant_id, new.name, new.category, new.template_text, new.template_syntax, new.messages,
           new.target, new.variables, new.model_config, new.engine_version, new.version,
           new.parent_version_id))
    execute function chaperone_refuse_edit();

-- === what was active when ===

create table prompt_template_activations (
    sequence bigint generated always as identity primary key,
    id uuid not null unique,
    tenant_id text not null default 'default',
    template_name text not null,
    -- Active from here on. Null = nothing.
    template_id uuid references prompt_templates (id),
    -- What a rollback from here brings back. Null = nothing was active before.
    restores_id uuid references prompt_templates (id),
    action text not null check (action in ('activate', 'deactivate', 'rollback')),
    actor text not null,
    reason text,
    request_id text,
    at timestamptz not null default now()
);

create index prompt_template_activations_page
    on prompt_template_activations (tenant_id, template_name, sequence desc);

create trigger prompt_template_activations_append_only
    before update or delete or truncate on prompt_template_activations
    for each statement execute function chaperone_refuse_change();

-- === audit ===

-- The chain is over the exact text of both; jsonb would order its keys anew.
alter table prompt_audit
    alter column before type json using before::json,
    alter column after type json using after::json;

-- === a retry does nothing twice ===

create table admin_idempotency_keys (
    actor text not null,
    key text not null,
    -- SHA-256 of method, path and body: another request may not use the same key.
    fingerprint text not null,
    status integer not null,
    -- What the request made or changed: the answer shows it as it is by then.
    object_id text not null,
    created_at timestamptz not null default now(),
    primary key (actor, key)
);

create index admin_idempotency_keys_age on admin_idempotency_keys (created_at);

-- === what experiments report into ===

-- One row for each stretch of time in which the split stood still.
create table ab_test_phases (
    experiment_id uuid not null references ab_test_experiments (id),
    phase integer not null check (phase > 0),
    mode text not null check (mode in ('start', 'grow', 'min_move', 'sticky', 'rerandomise', 'pause', 'resume')),
    -- [{ordinal, key, template_id, weight_millipercent}]
    arms jsonb not null,
    enrollment_percentage numeric(6, 3) not null check (enrollment_percentage between 0 and 100),
    -- Share of the enrolled units that changed their arm when this phase began.
    moved_percentage numeric(6, 3) check (moved_percentage between 0 and 100),
    actor text not null,
    reason text,
    started_at timestamptz not null,
    ended_at timestamptz,
    primary key (experiment_id, phase)
);

-- What one unit did in one arm in one phase: every ratio test needs only sums of these rows.
create table ab_test_units (
    experiment_id uuid not null references ab_test_experiments (id),
    phase integer not null,
    arm text not null,
    unit_key text not null,
    executions bigint not null default 0,
    attempted bigint not null default 0,
    successes bigint not null default 0,
    blocked bigint not null default 0,
    latency_ms_sum double precision not null default 0,
    latency_log_sum double precision not null default 0,
    cost_usd_sum numeric(24, 12) not null default 0,
    cost_list_usd_sum numeric(24, 12) not null default 0,
    feedback_count bigint not null default 0,
    feedback_sum double precision not null default 0,
    first_seen_at timestamptz not null,
    primary key (experiment_id, phase, arm, unit_key)
);

create table prompt_feedback (
    id uuid primary key,
    tenant_id text not null default 'default',
    execution_id uuid not null,
    key text not null,
    -- true, false or a number.
    value jsonb not null check (jsonb_typeof(value) in ('boolean', 'number')),
    idempotency_key text,
    created_by text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    -- The last word on an execution wins.
    unique (tenant_id, execution_id, key)
);

-- Pages go by name in the order of bytes, whatever the database's own order is, and so in both stores alike.
create index prompt_templates_page on prompt_templates (tenant_id, name collate "C", version);
create index prompt_guardrails_page on prompt_guardrails (tenant_id, name collate "C");
create index ab_test_experiments_page on ab_test_experiments (tenant_id, name collate "C");

-- Whoever holds rows of this database must read them all again.
update catalog_revision set revision = revision + 1;
update prompt_templates set revision = (select revision from catalog_revision);
update prompt_guardrails set revision = (select revision from catalog_revision);
update ab_test_experiments set revision = (select revision from catalog_revision);
