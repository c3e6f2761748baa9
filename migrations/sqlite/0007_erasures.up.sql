-- Orders to erase what was recorded of a user.

-- An order stands for some time after it was carried out, so that what reaches the store late, from the outbox of
-- a sidecar that was cut off, goes too. Then the key is forgotten; its SHA-256 stays.
create table prompt_erasures (
    id text primary key,
    tenant_id text not null,
    user_id text,
    user_sha256 text not null,
    -- What was recorded before it goes.
    requested_at text not null,
    -- How many went so far.
    executions integer not null default 0,
    -- When there was nothing left for the first time.
    completed_at text
) strict;

create index prompt_erasures_standing on prompt_erasures (requested_at) where user_id is not null;

-- A user's words on executions that retention has dropped.
create index prompt_feedback_unit on prompt_feedback (tenant_id, unit_key) where unit_key is not null;
