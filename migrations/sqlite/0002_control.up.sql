-- What the control plane needs: rows that say when they changed, versions that cannot change, the history
-- of what was active, keys that make a retry safe, and the tables that experiments report into. The same
-- as in ../postgres, in SQLite's types.
--
-- Expands only: a binary that knows 0001 alone goes on working on these tables.

-- === rows say when they changed ===

-- The revision of the catalog in which a row was last written. A process that has seen revision n reads
-- the rows above n; a writer that read a row at one revision can tell that it has moved.
alter table prompt_templates add column tags text not null default '[]' check (json_valid(tags));
alter table prompt_templates add column revision integer not null default 0;
alter table prompt_guardrails add column revision integer not null default 0;
alter table ab_test_experiments add column revision integer not null default 0;

create index prompt_templates_revision on prompt_templates (revision);
create index prompt_guardrails_revision on prompt_guardrails (revision);
create index ab_test_experiments_revision on ab_test_experiments (revision);

-- A writer that sets updated_at itself knows better: it has told it to its client already. No trigger
-- names updated_at or revision, so setting them here starts none again.

drop trigger prompt_templates_insert;
drop trigger prompt_templates_update;

create trigger prompt_templates_insert after insert on prompt_templates
begin
    update catalog_revision set revision = revision + 1 where id = 1;
    update prompt_templates set revision = (select revision from catalog_revision where id = 1) where id = new.id;
end;

create trigger prompt_templates_update after update of
    id, tenant_id, name, description, category, tags, template_text, template_syntax, messages, target,
    variables, model_config, engine_version, version, parent_version_id, is_active, ab_test_group,
    traffic_percentage, ab_test_start_date, ab_test_end_date, deactivated_at, deactivated_by
on prompt_templates
begin
    update catalog_revision set revision = revision + 1 where id = 1;
    update prompt_templates set
        revision = (select revision from catalog_revision where id = 1),
        updated_at = iif(new.updated_at is old.updated_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), new.updated_at)
     where id = new.id;
end;

drop trigger prompt_guardrails_insert;
drop trigger prompt_guardrails_update;

create trigger prompt_guardrails_insert after insert on prompt_guardrails
begin
    update catalog_revision set revision = revision + 1 where id = 1;
    update prompt_guardrails set revision = (select revision from catalog_revision where id = 1) where id = new.id;
end;

create trigger prompt_guardrails_update after update of
    id, tenant_id, name, description, rule_type, severity, is_active, blocking, rule_config,
    applies_to_templates, applies_to_categories
on prompt_guardrails
begin
    update catalog_revision set revision = revision + 1 where id = 1;
    update prompt_guardrails set
        revision = (select revision from catalog_revision where id = 1),
        updated_at = iif(new.updated_at is old.updated_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), new.updated_at)
     where id = new.id;
end;

drop trigger ab_test_experiments_insert;
drop trigger ab_test_experiments_update;

create trigger ab_test_experiments_insert after insert on ab_test_experiments
begin
    update catalog_revision set revision = revision + 1 where id = 1;
    update ab_test_experiments set revision = (select revision from catalog_revision where id = 1) where id = new.id;
end;

create trigger ab_test_experiments_update after update of
    id, tenant_id, name, description, template_name, status, control_template_id,
    variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
    hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
    winner_template_id
on ab_test_experiments
begin
    update catalog_revision set revision = revision + 1 where id = 1;
    update ab_test_experiments set
        revision = (select revision from catalog_revision where id = 1),
        updated_at = iif(new.updated_at is old.updated_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), new.updated_at)
     where id = new.id;
end;

-- === a version cannot change ===

create trigger prompt_templates_immutable before update on prompt_templates
when (old.tenant_id, old.name, old.category, old.template_text, old.template_syntax, old.messages,
      old.target, old.variables, old.model_config, old.engine_version, old.version, old.parent_version_id)
     is not
     (new.tenant_id, new.name, new.category, new.template_text, new.template_syntax, new.messages,
      new.target, new.variables, new.model_config, new.engine_version, new.version, new.parent_version_id)
begin
    select raise(abort, 'a template version is immutable; make the next version');
end;

-- === what was active when ===

create table prompt_template_activations (
    sequence integer primary key,
    id text not null unique,
    tenant_id text not null default 'default',
    template_name text not null,
    -- Active from here on. Null = nothing.
    template_id text references prompt_templates (id),
    -- What a rollback from here brings back. Null = nothing was active before.
    restores_id text references prompt_templates (id),
    action text not null check (action in ('activate', 'deactivate', 'rollback')),
    actor text not null,
    reason text,
    request_id text,
    at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) strict;

create index prompt_template_activations_page
    on prompt_template_activations (tenant_id, template_name, sequence desc);

create trigger prompt_template_activations_no_update before update on prompt_template_activations
begin
    select raise(abort, 'prompt_template_activations is append-only');
end;

create trigger prompt_template_activations_no_delete before delete on prompt_template_activations
begin
    select raise(abort, 'prompt_template_activations is append-only');
end;

-- === a retry does nothing twice ===

create table admin_idempotency_keys (
    actor text not null,
    key text not null,
    -- SHA-256 of method, path and body: another request may not use the same key.
    fingerprint text not null,
    status integer not null,
    -- What the request made or changed: the answer shows it as it is by then.
    object_id text not null,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    primary key (actor, key)
) strict;

create index admin_idempotency_keys_age on admin_idempotency_keys (created_at);

-- === what experiments report into ===

-- One row for each stretch of time in which the split stood still.
create table ab_test_phases (
    experiment_id text not null references ab_test_experiments (id),
    phase integer not null check (phase > 0),
    mode text not null check (mode in ('start', 'grow', 'min_move', 'sticky', 'rerandomise', 'pause', 'resume')),
    -- [{ordinal, key, template_id, weight_millipercent}]
    arms text not null check (json_valid(arms)),
    enrollment_percentage text not null check (cast(enrollment_percentage as real) between 0 and 100),
    -- Share of the enrolled units that changed their arm when this phase began.
    moved_percentage text check (cast(moved_percentage as real) between 0 and 100),
    actor text not null,
    reason text,
    started_at text not null,
    ended_at text,
    primary key (experiment_id, phase)
) strict;

-- What one unit did in one arm in one phase: every ratio test needs only sums of these rows.
create table ab_test_units (
    experiment_id text not null references ab_test_experiments (id),
    phase integer not null,
    arm text not null,
    unit_key text not null,
    executions integer not null default 0,
    attempted integer not null default 0,
    successes integer not null default 0,
    blocked integer not null default 0,
    latency_ms_sum real not null default 0,
    latency_log_sum real not null default 0,
    cost_usd_sum text not null default '0',
    cost_list_usd_sum text not null default '0',
    feedback_count integer not null default 0,
    feedback_sum real not null default 0,
    first_seen_at text not null,
    primary key (experiment_id, phase, arm, unit_key)
) strict;

create table prompt_feedback (
    id text primary key not null,
    tenant_id text not null default 'default',
    execution_id text not null,
    key text not null,
    -- true, false or a number.
    value text not null check (json_type(value) in ('true', 'false', 'integer', 'real')),
    idempotency_key text,
    created_by text,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    -- The last word on an execution wins.
    unique (tenant_id, execution_id, key)
) strict;

-- Whoever holds rows of this database must read them all again.
update catalog_revision set revision = revision + 1;
update prompt_templates set revision = (select revision from catalog_revision);
update prompt_guardrails set revision = (select revision from catalog_revision);
update ab_test_experiments set revision = (select revision from catalog_revision);
