//! The statements of SQLite, columns listed. Rows go in and out as JSON, as in PostgreSQL.

/// Definition columns only: counters change all the time and decide nothing.
pub(super) const TEMPLATES: &str = "
    select json_object(
               'id', id, 'tenant_id', tenant_id, 'name', name, 'description', description,
               'category', category, 'template_text', template_text,
               'template_syntax', template_syntax, 'messages', json(messages), 'target', target,
               'variables', json(variables), 'model_config', json(model_config),
               'version', version, 'parent_version_id', parent_version_id,
               'is_active', json(iif(is_active, 'true', 'false')),
               'ab_test_group', ab_test_group, 'created_by', created_by,
               'created_at', created_at, 'updated_by', updated_by, 'updated_at', updated_at)
      from prompt_templates order by tenant_id, name, version";

pub(super) const GUARDRAILS: &str = "
    select json_object(
               'id', id, 'tenant_id', tenant_id, 'name', name, 'description', description,
               'rule_type', rule_type, 'severity', severity,
               'is_active', json(iif(is_active, 'true', 'false')),
               'blocking', json(iif(blocking, 'true', 'false')),
               'rule_config', json(rule_config),
               'applies_to_templates', json(applies_to_templates),
               'applies_to_categories', json(applies_to_categories), 'created_by', created_by,
               'created_at', created_at, 'updated_by', updated_by, 'updated_at', updated_at)
      from prompt_guardrails order by tenant_id, name";

pub(super) const EXPERIMENTS: &str = "
    select json_object(
               'id', id, 'tenant_id', tenant_id, 'name', name, 'description', description,
               'template_name', template_name, 'status', status,
               'control_template_id', control_template_id,
               'variant_template_ids', json(variant_template_ids),
               'traffic_split', json(traffic_split),
               'enrollment_percentage', cast(enrollment_percentage as real),
               'randomization_unit', randomization_unit, 'salt', salt, 'start_date', start_date,
               'end_date', end_date, 'created_by', created_by, 'created_at', created_at,
               'updated_by', updated_by, 'updated_at', updated_at)
      from ab_test_experiments order by tenant_id, name";

/// The columns of an execution in the order of [`INSERT_EXECUTION`]'s parameters.
pub(super) const EXECUTION_COLUMNS: [&str; 45] = [
    "id",
    "tenant_id",
    "request_id",
    "template_id",
    "template_name",
    "template_version",
    "template_content_hash",
    "call",
    "streamed",
    "user_id",
    "unit_key",
    "conversation_id",
    "variables_used",
    "rendered_prompt",
    "model_name",
    "model_config",
    "execution_time_ms",
    "time_to_first_token_ms",
    "overhead_ms",
    "token_count",
    "prompt_tokens",
    "cached_tokens",
    "candidates_tokens",
    "thoughts_tokens",
    "tool_use_tokens",
    "usage_partial",
    "estimated_cost_usd",
    "price_version",
    "outcome",
    "success",
    "error_type",
    "error_message",
    "http_status",
    "finish_reason",
    "guardrails_evaluated",
    "guardrail_violations",
    "ab_test_group",
    "ab_test_experiment_id",
    "assignment_reason",
    "enroll_bucket",
    "variant_bucket",
    "body_sha256",
    "catalog_generation",
    "catalog_source",
    "created_at",
];

/// Columns that hold JSON text.
pub(super) const JSON_COLUMNS: [&str; 5] = [
    "variables_used",
    "rendered_prompt",
    "model_config",
    "guardrails_evaluated",
    "guardrail_violations",
];

/// One row, with a parameter a column: SQLite reads JSON again for every field it takes from it. The
/// outbox may send a row twice.
pub(super) const INSERT_EXECUTION: &str = "
    insert into prompt_executions
          (id, tenant_id, request_id, template_id, template_name, template_version,
           template_content_hash, call, streamed, user_id, unit_key, conversation_id,
           variables_used, rendered_prompt, model_name, model_config, execution_time_ms,
           time_to_first_token_ms, overhead_ms, token_count, prompt_tokens,
           cached_tokens, candidates_tokens, thoughts_tokens, tool_use_tokens,
           usage_partial, estimated_cost_usd, price_version, outcome, success,
           error_type, error_message, http_status, finish_reason, guardrails_evaluated,
           guardrail_violations, ab_test_group, ab_test_experiment_id,
           assignment_reason, enroll_bucket, variant_bucket, body_sha256,
           catalog_generation, catalog_source, created_at)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
           ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        on conflict (id) do nothing";

pub(super) const EXECUTIONS: &str = "
    select json_object(
               'id', id, 'tenant_id', tenant_id, 'request_id', request_id,
               'template_id', template_id, 'template_name', template_name,
               'template_version', template_version,
               'template_content_hash', template_content_hash, 'call', call,
               'streamed', json(iif(streamed, 'true', 'false')), 'user_id', user_id,
               'unit_key', unit_key, 'conversation_id', conversation_id,
               'variables_used', json(variables_used), 'rendered_prompt', json(rendered_prompt),
               'model_name', model_name, 'model_config', json(model_config),
               'execution_time_ms', execution_time_ms,
               'time_to_first_token_ms', time_to_first_token_ms, 'overhead_ms', overhead_ms,
               'token_count', token_count, 'prompt_tokens', prompt_tokens,
               'cached_tokens', cached_tokens, 'candidates_tokens', candidates_tokens,
               'thoughts_tokens', thoughts_tokens, 'tool_use_tokens', tool_use_tokens,
               'usage_partial', json(iif(usage_partial, 'true', 'false')),
               'estimated_cost_usd', estimated_cost_usd, 'price_version', price_version,
               'outcome', outcome, 'success', json(iif(success, 'true', 'false')),
               'error_type', error_type, 'error_message', error_message,
               'http_status', http_status, 'finish_reason', finish_reason,
               'guardrails_evaluated', json(guardrails_evaluated),
               'guardrail_violations', json(guardrail_violations),
               'ab_test_group', ab_test_group, 'ab_test_experiment_id', ab_test_experiment_id,
               'assignment_reason', assignment_reason, 'enroll_bucket', enroll_bucket,
               'variant_bucket', variant_bucket, 'body_sha256', body_sha256,
               'catalog_generation', catalog_generation, 'catalog_source', catalog_source,
               'created_at', created_at)
      from prompt_executions
     where tenant_id = ?1
       and (?2 is null or (created_at, id) < (?2, ?3))
       and (?4 is null or template_name = ?4)
       and (?5 is null or user_id = ?5)
       and (?6 is null or outcome = ?6)
     order by created_at desc, id desc
     limit ?7";

pub(super) const SEED_TEMPLATES: &str = "
    insert into prompt_templates
          (id, tenant_id, name, description, category, template_text, template_syntax,
           messages, target, variables, model_config, version, parent_version_id,
           is_active, ab_test_group, created_by, created_at, updated_by, updated_at)
    select value ->> 'id', value ->> 'tenant_id', value ->> 'name',
           value ->> 'description', value ->> 'category', value ->> 'template_text',
           value ->> 'template_syntax', nullif(value -> 'messages', 'null'), value ->> 'target',
           nullif(value -> 'variables', 'null'), nullif(value -> 'model_config', 'null'), value ->> 'version',
           value ->> 'parent_version_id', value ->> 'is_active',
           value ->> 'ab_test_group', value ->> 'created_by',
           coalesce(value ->> 'created_at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
           value ->> 'updated_by',
           coalesce(value ->> 'updated_at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
      from json_each(?1)
     where true
        on conflict do nothing";

pub(super) const SEED_GUARDRAILS: &str = "
    insert into prompt_guardrails
          (id, tenant_id, name, description, rule_type, severity, is_active, blocking,
           rule_config, applies_to_templates, applies_to_categories, created_by,
           created_at, updated_by, updated_at)
    select value ->> 'id', value ->> 'tenant_id', value ->> 'name',
           value ->> 'description', value ->> 'rule_type', value ->> 'severity',
           value ->> 'is_active', value ->> 'blocking', nullif(value -> 'rule_config', 'null'),
           nullif(value -> 'applies_to_templates', 'null'), nullif(value -> 'applies_to_categories', 'null'),
           value ->> 'created_by',
           coalesce(value ->> 'created_at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
           value ->> 'updated_by',
           coalesce(value ->> 'updated_at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
      from json_each(?1)
     where true
        on conflict do nothing";

pub(super) const MIGRATIONS_TABLE: &str = "
    create table if not exists chaperone_migrations (
        version integer primary key,
        name text not null,
        checksum text not null,
        applied_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))";

pub(super) const APPLIED: &str =
    "select version, applied_at from chaperone_migrations order by version";

pub(super) const CHECKSUM: &str = "select checksum from chaperone_migrations where version = ?1";

pub(super) const REMEMBER_MIGRATION: &str =
    "insert into chaperone_migrations (version, name, checksum) values (?1, ?2, ?3)";

pub(super) const FORGET_MIGRATION: &str = "delete from chaperone_migrations where version = ?1";

pub(super) const ROW_COUNTS: &str = "
    select (select count(*) from prompt_templates),
           (select count(*) from prompt_guardrails),
           (select count(*) from prompt_executions)";
