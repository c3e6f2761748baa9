//! The statements of PostgreSQL, columns listed.

/// Definition columns only: counters change all the time and decide nothing.
pub(super) const TEMPLATES: &str = "
    select to_jsonb(one) from (
        select id, tenant_id, name, description, category, template_text, template_syntax,
           messages, target, variables, model_config, version, parent_version_id,
           is_active, ab_test_group, created_by, created_at, updated_by, updated_at
          from prompt_templates order by tenant_id, name, version) one";

pub(super) const GUARDRAILS: &str = "
    select to_jsonb(one) from (
        select id, tenant_id, name, description, rule_type, severity, is_active, blocking,
           rule_config, applies_to_templates, applies_to_categories, created_by,
           created_at, updated_by, updated_at
          from prompt_guardrails order by tenant_id, name) one";

pub(super) const EXPERIMENTS: &str = "
    select to_jsonb(one) from (
        select id, tenant_id, name, description, template_name, status, control_template_id,
           variant_template_ids, traffic_split, enrollment_percentage,
           randomization_unit, salt, start_date, end_date, created_by, created_at,
           updated_by, updated_at
          from ab_test_experiments order by tenant_id, name) one";

/// One parameter for a whole batch; the outbox may send a batch twice.
pub(super) const INSERT_EXECUTIONS: &str = "
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
    select id, tenant_id, request_id, template_id, template_name, template_version,
           template_content_hash, call, streamed, user_id, unit_key, conversation_id,
           variables_used, rendered_prompt, model_name, model_config, execution_time_ms,
           time_to_first_token_ms, overhead_ms, token_count, prompt_tokens,
           cached_tokens, candidates_tokens, thoughts_tokens, tool_use_tokens,
           usage_partial, estimated_cost_usd, price_version, outcome, success,
           error_type, error_message, http_status, finish_reason, guardrails_evaluated,
           guardrail_violations, ab_test_group, ab_test_experiment_id,
           assignment_reason, enroll_bucket, variant_bucket, body_sha256,
           catalog_generation, catalog_source, created_at
      from jsonb_populate_recordset(null::prompt_executions, $1)
        on conflict do nothing";

/// The cost goes out as text: JSON numbers would round it.
pub(super) const EXECUTIONS: &str = "
    select to_jsonb(one) || jsonb_build_object('estimated_cost_usd', one.estimated_cost_usd::text)
      from prompt_executions one
     where tenant_id = $1
       and ($2::timestamptz is null or (created_at, id) < ($2, $3::uuid))
       and ($4::text is null or template_name = $4)
       and ($5::text is null or user_id = $5)
       and ($6::text is null or outcome = $6)
     order by created_at desc, id desc
     limit $7";

pub(super) const SEED_TEMPLATES: &str = "
    insert into prompt_templates
          (id, tenant_id, name, description, category, template_text, template_syntax,
           messages, target, variables, model_config, version, parent_version_id,
           is_active, ab_test_group, created_by, created_at, updated_by, updated_at)
    select id, tenant_id, name, description, category, template_text, template_syntax,
           messages, target, variables, model_config, version, parent_version_id,
           is_active, ab_test_group, created_by, coalesce(created_at, now()),
           updated_by, coalesce(updated_at, now())
      from jsonb_populate_recordset(null::prompt_templates, $1)
        on conflict do nothing";

pub(super) const SEED_GUARDRAILS: &str = "
    insert into prompt_guardrails
          (id, tenant_id, name, description, rule_type, severity, is_active, blocking,
           rule_config, applies_to_templates, applies_to_categories, created_by,
           created_at, updated_by, updated_at)
    select id, tenant_id, name, description, rule_type, severity, is_active, blocking,
           rule_config, applies_to_templates, applies_to_categories, created_by,
           coalesce(created_at, now()), updated_by, coalesce(updated_at, now())
      from jsonb_populate_recordset(null::prompt_guardrails, $1)
        on conflict do nothing";

/// The number is this program's own; a transaction's lock needs no clean-up.
pub(super) const LOCK_MIGRATIONS: &str = "
    select pg_advisory_xact_lock(7120413300251);
    create table if not exists chaperone_migrations (
        version integer primary key,
        name text not null,
        checksum text not null,
        applied_at timestamptz not null default now())";

pub(super) const APPLIED: &str =
    "select version, applied_at::text from chaperone_migrations order by version";

pub(super) const CHECKSUM: &str = "select checksum from chaperone_migrations where version = $1";

pub(super) const REMEMBER_MIGRATION: &str =
    "insert into chaperone_migrations (version, name, checksum) values ($1, $2, $3)";

pub(super) const FORGET_MIGRATION: &str = "delete from chaperone_migrations where version = $1";

pub(super) const ROW_COUNTS: &str = "
    select (select count(*) from prompt_templates),
           (select count(*) from prompt_guardrails),
           (select count(*) from prompt_executions)";
