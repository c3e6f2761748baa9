drop trigger prompt_executions_count_models;
drop table ab_test_models;
drop trigger ab_test_experiments_freeze;
