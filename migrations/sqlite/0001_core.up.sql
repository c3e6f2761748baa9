-- The tables of Chaperone in the embedded store: the same as in ../postgres, in SQLite's types.
--
-- Uuids, decimals, JSON and times are TEXT. Times are RFC 3339 in UTC, and within one column all of one
-- width, so that the order of the texts is the order of the times: the program writes executions with
-- six decimals, the defaults and triggers here write three. STRICT, because a value of the wrong type
-- is an error in PostgreSQL too.
-- Foreign keys hold only on connections that say `pragma foreign_keys = on`. `is null or json_valid`,
-- because older SQLite calls null invalid JSON.

-- === templates ===

create table prompt_templates (
    id text primary key not null,
    tenant_id text not null default 'default',
    name text not null,
    description text,
    category text,
    template_text text not null,
    template_syntax text not null default 'format' check (template_syntax in ('format', 'jinja')),
    -- Null when template_text alone is the template.
    messages text check (messages is null or json_valid(messages)),
    -- Where template_text goes when there are no messages.
    target text not null default 'user' check (target in ('system_instruction', 'user')),
    variables text not null default '[]' check (json_valid(variables)),
    model_config text not null default '{}' check (json_valid(model_config)),
    -- Template engines change their output between releases; this says which one the version was checked with.
    engine_version text,
    version integer not null check (version > 0),
    -- Restricts deletion on purpose: a lineage may not lose its middle.
    parent_version_id text references prompt_templates (id),
    is_active integer not null default 0 check (is_active in (0, 1)),
    -- Split without an experiment: used only while no experiment on this name is active.
    ab_test_group text,
    traffic_percentage text check (cast(traffic_percentage as real) between 0 and 100),
    ab_test_start_date text,
    ab_test_end_date text,
    -- Filled from prompt_executions by a roll-up, never by requests.
    total_executions integer not null default 0,
    success_count integer not null default 0,
    failure_count integer not null default 0,
    avg_response_time_ms real,
    avg_token_count real,
    avg_cost_usd text,
    created_by text,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_by text,
    updated_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    deactivated_at text,
    deactivated_by text,
    unique (tenant_id, name, version)
) strict;

-- Two active versions of one name would make "the active version" a matter of row order. Checked at
-- once, not at commit: deactivate the old version before activating the new one.
create unique index prompt_templates_one_active
    on prompt_templates (tenant_id, name) where is_active = 1 and ab_test_group is null;
create index prompt_templates_name on prompt_templates (name);
create index prompt_templates_active on prompt_templates (is_active, name);
create index prompt_templates_group on prompt_templates (ab_test_group, is_active);

-- === guardrails ===

create table prompt_guardrails (
    id text primary key not null,
    tenant_id text not null default 'default',
    name text not null,
    description text,
    rule_type text not null check (rule_type in ('pii', 'injection', 'toxic', 'secret', 'custom')),
    severity text not null check (severity in ('info', 'warning', 'error', 'critical')),
    is_active integer not null default 1 check (is_active in (0, 1)),
    blocking integer not null default 0 check (blocking in (0, 1)),
    rule_config text not null default '{}' check (json_valid(rule_config)),
    -- Names of templates and categories; both empty = everything.
    applies_to_templates text not null default '[]'
        check (json_valid(applies_to_templates) and json_type(applies_to_templates) = 'array'),
    applies_to_categories text not null default '[]'
        check (json_valid(applies_to_categories) and json_type(applies_to_categories) = 'array'),
    total_evaluations integer not null default 0,
    total_violations integer not null default 0,
    created_by text,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_by text,
    updated_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    unique (tenant_id, name)
) strict;

-- === experiments ===

create table ab_test_experiments (
    id text primary key not null,
    tenant_id text not null default 'default',
    name text not null,
    description text,
    template_name text not null,
    status text not null default 'draft' check (status in ('draft', 'active', 'paused', 'completed')),
    control_template_id text not null references prompt_templates (id),
    variant_template_ids text not null default '[]'
        check (json_valid(variant_template_ids) and json_type(variant_template_ids) = 'array'),
    traffic_split text not null default '{}' check (json_valid(traffic_split)),
    -- [{ordinal, key, template_id, weight_millipercent}], written by the server: the order of arms
    -- must be explicit, for one that changes would reassign users.
    arms text check (arms is null or json_valid(arms)),
    enrollment_percentage text not null default '100'
        check (cast(enrollment_percentage as real) between 0 and 100),
    randomization_unit text not null default 'user',
    -- Null = the id. Goes into the hashed text between colons, so it may hold none.
    salt text check (length(salt) between 1 and 64 and salt not glob '*[^A-Za-z0-9_-]*'),
    hash_version integer not null default 1 check (hash_version > 0),
    start_date text,
    end_date text,
    target_sample_size integer check (target_sample_size > 0),
    -- A name, or an object of name, direction and parameters.
    primary_metric text check (primary_metric is null or json_valid(primary_metric)),
    secondary_metrics text not null default '[]' check (json_valid(secondary_metrics)),
    results text check (results is null or json_valid(results)),
    winner_template_id text references prompt_templates (id),
    -- 1 - p, rounded down: four places cannot hold a small p. The full value is in results.
    statistical_significance text check (cast(statistical_significance as real) between 0 and 1),
    created_by text,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_by text,
    updated_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    unique (tenant_id, name),
    -- Through julianday, so that times of different width compare as times.
    check (julianday(end_date) > julianday(start_date))
) strict;

create unique index ab_test_experiments_one_active
    on ab_test_experiments (tenant_id, template_name) where status = 'active';

-- === executions ===

-- No foreign keys: an execution outlives the template it used, and one served from a snapshot or
-- from files may name a template this store has never seen. No checks on words such as outcome
-- either: a row refused here is an execution lost.
create table prompt_executions (
    id text primary key not null,
    tenant_id text not null,
    request_id text not null,
    template_id text,
    template_name text,
    template_version integer,
    template_content_hash text,
    call text not null,
    streamed integer not null check (streamed in (0, 1)),
    user_id text,
    unit_key text,
    conversation_id text,
    variables_used text check (variables_used is null or json_valid(variables_used)),
    rendered_prompt text check (rendered_prompt is null or json_valid(rendered_prompt)),
    model_name text,
    model_config text check (model_config is null or json_valid(model_config)),
    execution_time_ms real not null,
    time_to_first_token_ms real,
    overhead_ms real,
    token_count integer,
    prompt_tokens integer,
    cached_tokens integer,
    candidates_tokens integer,
    thoughts_tokens integer,
    tool_use_tokens integer,
    usage_partial integer not null default 0 check (usage_partial in (0, 1)),
    -- Null = no price known, which is not the same as free.
    estimated_cost_usd text,
    price_version text,
    outcome text not null,
    success integer not null check (success in (0, 1)),
    error_type text,
    error_message text,
    http_status integer,
    finish_reason text,
    guardrails_evaluated text not null default '[]' check (json_valid(guardrails_evaluated)),
    guardrail_violations text not null default '[]' check (json_valid(guardrail_violations)),
    ab_test_group text,
    ab_test_experiment_id text,
    assignment_reason text,
    enroll_bucket integer,
    variant_bucket integer,
    body_sha256 text,
    catalog_generation integer not null default 0,
    catalog_source text not null default '',
    created_at text not null
) strict;

create index prompt_executions_template on prompt_executions (template_id, created_at);
create index prompt_executions_user on prompt_executions (user_id, created_at);
create index prompt_executions_experiment on prompt_executions (ab_test_experiment_id, created_at);
-- Pages of the newest executions of a tenant.
create index prompt_executions_page on prompt_executions (tenant_id, created_at desc, id desc);

-- === audit ===

create table prompt_audit (
    id text not null unique,
    tenant_id text not null default 'default',
    -- The order of the chain. The primary key here, because only that numbers itself in SQLite.
    sequence integer primary key,
    at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    actor text not null,
    action text not null,
    object_type text not null,
    object_id text,
    before text check (before is null or json_valid(before)),
    after text check (after is null or json_valid(after)),
    reason text,
    request_id text,
    previous_hash text,
    hash text
) strict;

create index prompt_audit_page on prompt_audit (tenant_id, sequence desc);
create index prompt_audit_object on prompt_audit (object_type, object_id, sequence);

create trigger prompt_audit_no_update before update on prompt_audit
begin
    select raise(abort, 'prompt_audit is append-only');
end;

create trigger prompt_audit_no_delete before delete on prompt_audit
begin
    select raise(abort, 'prompt_audit is append-only');
end;

-- INSERT OR REPLACE would remove the old row without asking the triggers above.
create trigger prompt_audit_no_replace before insert on prompt_audit
when exists (select 1 from prompt_audit where id = new.id or sequence = new.sequence)
begin
    select raise(abort, 'prompt_audit is append-only');
end;

-- === what tells the catalog that something changed ===

create table catalog_revision (
    id integer primary key check (id = 1),
    revision integer not null
) strict;

-- Starts from the clock: a store that was migrated down and up again must not repeat a number that
-- a process already holds.
insert into catalog_revision (id, revision) values (1, cast(strftime('%s', 'now') as integer));

-- The columns named below are the definitions. Counters, averages and results are left out: a
-- roll-up is not an edit, and must neither rebuild the catalog each minute nor make ETags stale.
-- No trigger names updated_at, so setting it here starts none again.

create trigger prompt_templates_insert after insert on prompt_templates
begin
    update catalog_revision set revision = revision + 1 where id = 1;
end;

create trigger prompt_templates_delete after delete on prompt_templates
begin
    update catalog_revision set revision = revision + 1 where id = 1;
end;

create trigger prompt_templates_update after update of
    id, tenant_id, name, description, category, template_text, template_syntax, messages, target,
    variables, model_config, engine_version, version, parent_version_id, is_active, ab_test_group,
    traffic_percentage, ab_test_start_date, ab_test_end_date, deactivated_at, deactivated_by
on prompt_templates
begin
    update prompt_templates set updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') where id = new.id;
    update catalog_revision set revision = revision + 1 where id = 1;
end;

create trigger prompt_guardrails_insert after insert on prompt_guardrails
begin
    update catalog_revision set revision = revision + 1 where id = 1;
end;

create trigger prompt_guardrails_delete after delete on prompt_guardrails
begin
    update catalog_revision set revision = revision + 1 where id = 1;
end;

create trigger prompt_guardrails_update after update of
    id, tenant_id, name, description, rule_type, severity, is_active, blocking, rule_config,
    applies_to_templates, applies_to_categories
on prompt_guardrails
begin
    update prompt_guardrails set updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') where id = new.id;
    update catalog_revision set revision = revision + 1 where id = 1;
end;

create trigger ab_test_experiments_insert after insert on ab_test_experiments
begin
    update catalog_revision set revision = revision + 1 where id = 1;
end;

create trigger ab_test_experiments_delete after delete on ab_test_experiments
begin
    update catalog_revision set revision = revision + 1 where id = 1;
end;

create trigger ab_test_experiments_update after update of
    id, tenant_id, name, description, template_name, status, control_template_id,
    variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
    hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
    winner_template_id
on ab_test_experiments
begin
    update ab_test_experiments set updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') where id = new.id;
    update catalog_revision set revision = revision + 1 where id = 1;
end;

-- === report ===

-- Per version. success_rate is a percentage of success + failure: a block is the guardrail's doing,
-- and a rejected, abandoned or drained call says nothing about the template; all of them count in
-- total_executions only. Times leave out the calls that never reached Gemini. Costs and averages are
-- null, not 0, where nothing is known. Costs are sums of REAL here, for reading; exact sums are made
-- from the rows.
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
