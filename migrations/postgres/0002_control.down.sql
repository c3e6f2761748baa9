-- Takes 0002 back. Nothing is archived: the history of activations stands in prompt_audit too, which stays,
-- and nothing filled the tables of experiments yet that cannot be counted again from executions; feedback
-- is what nobody can make again, so it is kept.

create table if not exists chaperone_archive_feedback as
select *, now() as archived_at from prompt_feedback with no data;

insert into chaperone_archive_feedback (
    id, tenant_id, execution_id, key, value, idempotency_key, created_by, created_at, updated_at, archived_at)
select id, tenant_id, execution_id, key, value, idempotency_key, created_by, created_at, updated_at, now()
from prompt_feedback;

drop table prompt_feedback;
drop table ab_test_units;
drop table ab_test_phases;
drop table admin_idempotency_keys;
drop table prompt_template_activations;

-- The texts of the audit stay as they are, to the byte: the chain is over them. So must an archive keep them
-- that an earlier way down has made.
alter table if exists chaperone_archive_audit
    alter column before type json using before::json,
    alter column after type json using after::json;

drop trigger prompt_templates_immutable on prompt_templates;
drop trigger prompt_templates_lock on prompt_templates;
drop trigger prompt_templates_stamp on prompt_templates;
drop trigger prompt_templates_touch on prompt_templates;
drop trigger prompt_templates_bump on prompt_templates;
drop trigger prompt_guardrails_lock on prompt_guardrails;
drop trigger prompt_guardrails_stamp on prompt_guardrails;
drop trigger ab_test_experiments_lock on ab_test_experiments;
drop trigger ab_test_experiments_stamp on ab_test_experiments;
drop function chaperone_refuse_edit();
drop function chaperone_stamp_revision();
drop function chaperone_lock_catalog();

drop index prompt_templates_page;
drop index prompt_guardrails_page;
drop index ab_test_experiments_page;
alter table ab_test_experiments drop column revision;
alter table prompt_guardrails drop column revision;
alter table prompt_templates drop column revision, drop column tags;

-- As 0001 made them.

create or replace function chaperone_touch_updated_at() returns trigger
    language plpgsql
as $$
begin
    -- Not now(), which stands still within a transaction.
    new.updated_at := clock_timestamp();
    return new;
end
$$;

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

-- A sidecar that holds rows by their revision must read them all again.
update catalog_revision set revision = greatest(revision + 1, extract(epoch from now())::bigint);
