-- What the life of an experiment needs: who is assigned by hand, by what it is analysed, and phases that
-- can be computed again from their own row. The same as in PostgreSQL.
--
-- Expands only. Where a phase changed the split, ab_test_phases.arms also hold `ranges`:
-- [{enroll: [from, to], variant: [from, to]}], the buckets of the arm, half open.

-- {phase, enrolled_most, forced_units, excluded_units, pinned_units}
alter table ab_test_experiments add column assignment text
    check (assignment is null or json_type(assignment) = 'object');
-- {alpha, baseline, target_sample_size, hash_version, frozen_at}
alter table ab_test_experiments add column design text
    check (design is null or json_type(design) = 'object');

-- Null = the experiment's own.
alter table ab_test_phases add column salt text
    check (length(salt) between 1 and 64 and salt not glob '*[^A-Za-z0-9_-]*');
alter table ab_test_phases add column hash_version integer not null default 1 check (hash_version > 0);

-- At any moment one phase, or none.
create unique index ab_test_phases_one_open on ab_test_phases (experiment_id) where ended_at is null;

-- The columns of a definition once more; see migrations/README.md.

drop trigger ab_test_experiments_update;

create trigger ab_test_experiments_update after update of
    id, tenant_id, name, description, template_name, status, control_template_id,
    variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
    hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
    winner_template_id, assignment, design
on ab_test_experiments
begin
    update catalog_revision set revision = revision + 1 where id = 1;
    update ab_test_experiments set
        revision = (select revision from catalog_revision where id = 1),
        updated_at = iif(new.updated_at is old.updated_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), new.updated_at)
     where id = new.id;
end;

-- === a version that is an arm stays ===

-- Of control a foreign key sees to it; variants stand in a list, which can have none.
create trigger prompt_templates_arms before delete on prompt_templates
when exists (select 1 from ab_test_experiments, json_each(variant_template_ids) where value = old.id)
begin
    select raise(abort, 'the version is an arm of an experiment');
end;

-- === what ran before has a first phase too ===

insert into ab_test_phases (
    experiment_id, phase, mode, arms, enrollment_percentage, actor, started_at, ended_at)
select id, 1, 'start', arms, enrollment_percentage, coalesce(updated_by, 'migration'),
       coalesce(start_date, created_at),
       iif(status = 'completed', coalesce(end_date, updated_at), null)
from ab_test_experiments
where status in ('active', 'completed') and arms is not null;

update ab_test_experiments
set assignment = json_object('phase', 1, 'enrolled_most', cast(enrollment_percentage as real)),
    design = json_object('alpha', 0.05, 'target_sample_size', coalesce(target_sample_size, 5000),
        'hash_version', hash_version, 'frozen_at', coalesce(start_date, created_at))
where status in ('active', 'completed') and arms is not null;
