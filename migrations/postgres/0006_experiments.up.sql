-- What an experiment holds to is fixed as it starts, and which models answered it is counted.

-- === what is frozen ===

-- An experiment that starts now has its caps fixed as it starts, in the same transaction, and not with its first
-- execution. One that starts later has them fixed with the first execution, as before: the calls before its start
-- are yet to come.

create function chaperone_freeze_at_start() returns trigger
    language plpgsql set search_path from current
as $$
begin
    perform chaperone_freeze_parameters(array[new.id]);
    return null;
end
$$;

create trigger ab_test_experiments_freeze
    after update on ab_test_experiments
    for each row
    when (old.status = 'draft' and new.status = 'active'
          and new.start_date <= (new.design ->> 'frozen_at')::timestamptz)
    execute function chaperone_freeze_at_start();

-- === which models answered ===

-- As they name themselves. Another one in the same arm is another treatment.
create table ab_test_models (
    experiment_id uuid not null references ab_test_experiments (id),
    phase integer not null,
    arm text not null,
    model text not null,
    executions bigint not null,
    first_seen_at timestamptz not null,
    last_seen_at timestamptz not null,
    primary key (experiment_id, phase, arm, model)
);

create function chaperone_count_models() returns trigger
    language plpgsql set search_path from current
as $$
begin
    insert into ab_test_models as m
          (experiment_id, phase, arm, model, executions, first_seen_at, last_seen_at)
    select e.id,
           (select coalesce(max(phase), 1) from ab_test_phases
             where experiment_id = e.id and started_at <= call.created_at) as phase,
           call.ab_test_group, call.model_name, count(*), min(call.created_at), max(call.created_at)
      from added call
      join ab_test_experiments e on e.id = call.ab_test_experiment_id
     where call.ab_test_group is not null and call.unit_key is not null and call.token_count is not null
       and coalesce(call.assignment_reason, 'assigned') not in ('forced', 'left', 'paused', 'excluded')
       and call.model_name is not null
     group by 1, 2, 3, 4
     order by 1, 2, 3, 4
        on conflict (experiment_id, phase, arm, model) do update set
           executions = m.executions + excluded.executions,
           first_seen_at = least(m.first_seen_at, excluded.first_seen_at),
           last_seen_at = greatest(m.last_seen_at, excluded.last_seen_at);
    return null;
end
$$;

-- By its name it comes behind prompt_executions_count, which makes writers of an experiment take turns.
create trigger prompt_executions_count_models
    after insert on prompt_executions
    referencing new table as added
    for each statement execute function chaperone_count_models();
