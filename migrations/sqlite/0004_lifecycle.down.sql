-- Takes 0004 back. Who was assigned by hand and how a split had moved cannot be made again, so both are kept.

create table if not exists chaperone_archive_assignment as
select id, assignment, design, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') as archived_at
from ab_test_experiments where false;

insert into chaperone_archive_assignment (id, assignment, design, archived_at)
select id, assignment, design, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
from ab_test_experiments where assignment is not null;

create table if not exists chaperone_archive_phases as
select *, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') as archived_at from ab_test_phases where false;

insert into chaperone_archive_phases (
    experiment_id, phase, mode, arms, enrollment_percentage, moved_percentage, actor, reason,
    started_at, ended_at, salt, hash_version, archived_at)
select experiment_id, phase, mode, arms, enrollment_percentage, moved_percentage, actor, reason,
    started_at, ended_at, salt, hash_version, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
from ab_test_phases;

-- On the way up those that ran get a first phase again.
delete from ab_test_phases;

drop trigger prompt_templates_arms;
drop trigger ab_test_experiments_update;
drop index ab_test_phases_one_open;
alter table ab_test_phases drop column salt;
alter table ab_test_phases drop column hash_version;
alter table ab_test_experiments drop column assignment;
alter table ab_test_experiments drop column design;

-- As 0002 made it.

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

-- A process that holds rows by their revision must read them all again.
update catalog_revision set revision = revision + 1;
update ab_test_experiments set revision = (select revision from catalog_revision);
