-- Takes 0003 back. Nothing is archived: the chain itself stays, and its end is read from it on the way up.

drop trigger prompt_audit_head on prompt_audit;
drop function chaperone_move_audit_head();
drop table prompt_audit_head;
