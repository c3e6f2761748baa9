drop trigger prompt_executions_count_models on prompt_executions;
drop function chaperone_count_models();
drop table ab_test_models;
drop trigger ab_test_experiments_freeze on ab_test_experiments;
drop function chaperone_freeze_at_start();
