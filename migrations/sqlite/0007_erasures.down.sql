-- Takes 0007 back. Nothing is archived: the audit says who ordered an erasure and when, and to keep the keys
-- would undo it.
drop index prompt_feedback_unit;
drop table prompt_erasures;
