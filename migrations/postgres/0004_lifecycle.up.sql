-- What the life of an experiment needs: who is assigned by hand, by what it is analysed, and phases that
-- can be computed again from their own row.
--
-- Expands only. Where a phase changed the split, ab_test_phases.arms also hold `ranges`:
-- [{enroll: [from, to], variant: [from, to]}], the buckets of the arm, half open.

alter table ab_test_experiments
    -- {phase, enrolled_most, forced_units, excluded_units, pinned_units}
    add column assignment jsonb check (jsonb_typeof(assignment) = 'object'),
    -- {alpha, baseline, target_sample_size, hash_version, frozen_at}
    add column design jsonb check (jsonb_typeof(design) = 'object');

alter table ab_test_phases
    -- Null = the experiment's own.
    add column salt text check (salt ~ '^[A-Za-z0-9_-]{1,64}$'),
    add column hash_version integer not null default 1 check (hash_version > 0);

-- At any moment one phase, or none.
create unique index ab_test_phases_one_open on ab_test_phases (experiment_id) where ended_at is null;

-- The columns of a definition once more; see migrations/README.md.

drop trigger ab_test_experiments_touch on ab_test_experiments;
drop trigger ab_test_experiments_bump on ab_test_experiments;
drop trigger ab_test_experiments_lock on ab_test_experiments;
drop trigger ab_test_experiments_stamp on ab_test_experiments;

create trigger ab_test_experiments_touch
    before update of id, tenant_id, name, description, template_name, status, control_template_id,
        variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
        hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
        winner_template_id, assignment, design
    on ab_test_experiments
    for each row execute function chaperone_touch_updated_at();

create trigger ab_test_experiments_bump
    after insert or delete or truncate
        or update of id, tenant_id, name, description, template_name, status, control_template_id,
        variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
        hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
        winner_template_id, assignment, design
    on ab_test_experiments
    for each statement execute function chaperone_bump_catalog();

create trigger ab_test_experiments_lock
    before insert or delete
        or update of id, tenant_id, name, description, template_name, status, control_template_id,
        variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
        hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
        winner_template_id, assignment, design
    on ab_test_experiments
    for each statement execute function chaperone_lock_catalog();

create trigger ab_test_experiments_stamp
    before insert
        or update of id, tenant_id, name, description, template_name, status, control_template_id,
        variant_template_ids, traffic_split, arms, enrollment_percentage, randomization_unit, salt,
        hash_version, start_date, end_date, target_sample_size, primary_metric, secondary_metrics,
        winner_template_id, assignment, design
    on ab_test_experiments
    for each row execute function chaperone_stamp_revision();

-- === a version that is an arm stays ===

-- Of control a foreign key sees to it; variants stand in a list, which can have none.
create function chaperone_refuse_loss_of_arm() returns trigger
    language plpgsql
    set search_path from current
as $$
begin
    raise exception 'the version is an arm of an experiment'
        using errcode = 'restrict_violation', constraint = 'prompt_templates_arms';
end
$$;

create function chaperone_is_arm(version uuid) returns boolean
    language sql stable
    set search_path from current
return exists (
    select from ab_test_experiments where variant_template_ids @> to_jsonb(array[version::text]));

create trigger prompt_templates_arms
    before delete on prompt_templates
    for each row when (chaperone_is_arm(old.id)) execute function chaperone_refuse_loss_of_arm();

-- === what ran before has a first phase too ===

insert into ab_test_phases (
    experiment_id, phase, mode, arms, enrollment_percentage, actor, started_at, ended_at)
select id, 1, 'start', arms, enrollment_percentage, coalesce(updated_by, 'migration'),
       coalesce(start_date, created_at),
       case when status = 'completed' then greatest(coalesce(end_date, updated_at), start_date, created_at) end
from ab_test_experiments
where status in ('active', 'completed') and arms is not null;

update ab_test_experiments
set assignment = jsonb_build_object('phase', 1, 'enrolled_most', enrollment_percentage),
    design = jsonb_build_object('alpha', 0.05, 'target_sample_size', coalesce(target_sample_size, 5000),
        'hash_version', hash_version, 'frozen_at', coalesce(start_date, created_at))
where status in ('active', 'completed') and arms is not null;
