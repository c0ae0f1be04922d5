-- What a schema needs before its first use: room in the logs, and environments to begin with.
select kirby.open_partitions();
select kirby.add_environment(name, 'kirby')
  from unnest(array['dev', 'preprod', 'prod']) as name
 where not exists (select from kirby.environment);
