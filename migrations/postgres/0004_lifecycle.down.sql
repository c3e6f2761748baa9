-- Takes 0004 back. Who was assigned by hand and how a split had moved cannot be made again, so both are kept.

create table if not exists chaperone_archive_assignment as
select id, assignment, design, now() as archived_at from ab_test_experiments with no data;

insert into chaperone_archive_assignment (id, assignment, design, archived_at)
select id, assignment, design, now() from ab_test_experiments where assignment is not null;

create table if not exists chaperone_archive_phases as
select *, now() as archived_at from ab_test_phases with no data;

insert into chaperone_archive_phases (
    experiment_id, phase, mode, arms, enrollment_percentage, moved_percentage, actor, reason,
    started_at, ended_at, salt, hash_version, archived_at)
select experiment_id, phase, mode, arms, enrollment_percentage, moved_percentage, actor, reason,
    started_at, ended_at, salt, hash_version, now()
from ab_test_phases;

-- On the way up those that ran get a first phase again.
delete from ab_test_phases;

drop trigger prompt_templates_arms on prompt_templates;
drop function chaperone_refuse_loss_of_arm();
drop function chaperone_is_arm(uuid);

drop trigger ab_test_experiments_touch on ab_test_experiments;
drop trigger ab_test_experiments_bump on ab_test_experiments;
drop trigger ab_test_experiments_lock on ab_test_experiments;
drop trigger ab_test_experiments_stamp on ab_test_experiments;

drop index ab_test_phases_one_open;
alter table ab_test_phases drop column salt, drop column hash_version;
alter table ab_test_experiments drop column assignment, drop column design;

-- As 0002 made them.

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

-- A sidecar that holds rows by their revision must read them all again.
update catalog_revision set revision = revision + 1;
update ab_test_experiments set revision = (select revision from catalog_revision);
