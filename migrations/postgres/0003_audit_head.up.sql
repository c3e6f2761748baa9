-- Where the audit's chain ends, kept beside it: a chain that lost its last entries, or all of them, still
-- holds together, and nothing in it says what is missing.
--
-- Expands only. The trigger keeps it, so that a binary that knows 0002 alone keeps it too.

create table prompt_audit_head (
    id smallint primary key check (id = 1),
    -- Ever written.
    entries bigint not null,
    -- Of the last one. Null = none was written.
    sequence bigint,
    hash text
);

insert into prompt_audit_head (id, entries, sequence, hash)
select 1, count(*), max(sequence), (select hash from prompt_audit order by sequence desc limit 1)
from prompt_audit;

create function chaperone_move_audit_head() returns trigger
    language plpgsql
    set search_path from current
as $$
begin
    -- Once for all rows of a statement: an import writes thousands.
    update prompt_audit_head
    set entries = entries + (select count(*) from added),
        sequence = last.sequence,
        hash = last.hash
    from (select added.sequence, added.hash from added order by added.sequence desc limit 1) as last
    where id = 1;
    return null;
end
$$;

create trigger prompt_audit_head
    after insert on prompt_audit
    referencing new table as added
    for each statement execute function chaperone_move_audit_head();
