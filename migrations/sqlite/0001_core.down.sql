-- Takes 0001 back. Executions and audit are copied into archive tables first; those tables stay, and
-- each further way down appends to them. Templates, guardrails and experiments are dropped: export
-- them before (`chaperone export`).

create table if not exists chaperone_archive_executions as
select *, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') as archived_at from prompt_executions where false;

create table if not exists chaperone_archive_audit as
select *, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') as archived_at from prompt_audit where false;

-- Columns by name: an archive may be older than the table and hold them in another order.
insert into chaperone_archive_executions (
    id, tenant_id, request_id, template_id, template_name, template_version, template_content_hash,
    call, streamed, user_id, unit_key, conversation_id, variables_used, rendered_prompt, model_name,
    model_config, execution_time_ms, time_to_first_token_ms, overhead_ms, token_count, prompt_tokens,
    cached_tokens, candidates_tokens, thoughts_tokens, tool_use_tokens, usage_partial,
    estimated_cost_usd, price_version, outcome, success, error_type, error_message, http_status,
    finish_reason, guardrails_evaluated, guardrail_violations, ab_test_group, ab_test_experiment_id,
    assignment_reason, enroll_bucket, variant_bucket, body_sha256, catalog_generation,
    catalog_source, created_at, archived_at)
select
    id, tenant_id, request_id, template_id, template_name, template_version, template_content_hash,
    call, streamed, user_id, unit_key, conversation_id, variables_used, rendered_prompt, model_name,
    model_config, execution_time_ms, time_to_first_token_ms, overhead_ms, token_count, prompt_tokens,
    cached_tokens, candidates_tokens, thoughts_tokens, tool_use_tokens, usage_partial,
    estimated_cost_usd, price_version, outcome, success, error_type, error_message, http_status,
    finish_reason, guardrails_evaluated, guardrail_violations, ab_test_group, ab_test_experiment_id,
    assignment_reason, enroll_bucket, variant_bucket, body_sha256, catalog_generation,
    catalog_source, created_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
from prompt_executions;

insert into chaperone_archive_audit (
    id, tenant_id, sequence, at, actor, action, object_type, object_id, before, after, reason,
    request_id, previous_hash, hash, archived_at)
select
    id, tenant_id, sequence, at, actor, action, object_type, object_id, before, after, reason,
    request_id, previous_hash, hash, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
from prompt_audit;

-- Triggers and indexes go with their tables.
drop view prompt_template_performance;
drop table ab_test_experiments;
drop table prompt_guardrails;
drop table prompt_templates;
drop table prompt_executions;
drop table prompt_audit;
drop table catalog_revision;
