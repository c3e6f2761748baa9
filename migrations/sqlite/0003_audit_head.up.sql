-- Where the audit's chain ends, kept beside it: a chain that lost its last entries, or all of them, still
-- holds together, and nothing in it says what is missing.
--
-- Expands only. The trigger keeps it, so that a binary that knows 0002 alone keeps it too.

create table prompt_audit_head (
    id integer primary key check (id = 1),
    -- Ever written.
    entries integer not null,
    -- Of the last one. Null = none was written.
    sequence integer,
    hash text
) strict;

insert into prompt_audit_head (id, entries, sequence, hash)
select 1, count(*), max(sequence), (select hash from prompt_audit order by sequence desc limit 1)
from prompt_audit;

create trigger prompt_audit_move_head after insert on prompt_audit
begin
    update prompt_audit_head
    set entries = entries + 1, sequence = new.sequence, hash = new.hash
    where id = 1;
end;
