-- Takes 0002 back. Nothing is archived but feedback: the history of activations stands in prompt_audit
-- too, which stays, and nothing filled the tables of experiments yet that cannot be counted again from
-- executions.

create table if not exists chaperone_archive_feedback as
select *, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') as archived_at from prompt_feedback where false;

insert into chaperone_archive_feedback (
    id, tenant_id, execution_id, key, value, idempotency_key, created_by, created_at, updated_at, archived_at)
select id, tenant_id, execution_id, key, value, idempotency_key, created_by, created_at, updated_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
from prompt_feedback;

drop table prompt_feedback;
drop table ab_test_units;
drop table ab_test_phases;
drop table admin_idempotency_keys;
drop table prompt_template_activations;

drop trigger prompt_templates_immutable;
drop trigger prompt_templates_insert;
drop trigger prompt_templates_update;
drop trigger prompt_guardrails_insert;
drop trigger prompt_guardrails_update;
drop trigger ab_test_experiments_insert;
drop trigger ab_test_experiments_update;

drop index prompt_templates_revision;
alter table prompt_templates drop column revision;
drop index prompt_guardrails_revision;
alter table prompt_guardrails drop column revision;
drop index ab_test_experiments_revision;
alter table ab_test_experiments drop column revision;
alter table prompt_templates drop column tags;

-- As 0001 made them.

create trigger prompt_templates_insert after insert on prompt_templates
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

-- A process that holds rows by their revision must read them all again.
update catalog_revision set revision = max(revision + 1, cast(strftime('%s', 'now') as integer));
