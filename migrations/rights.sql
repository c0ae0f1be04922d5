-- Who may do what, laid anew with every migration. Workers have the protocol functions and nothing else.
revoke all on schema kirby from public;
revoke all on all functions in schema kirby from public;
revoke all on all tables in schema kirby from public;
alter default privileges revoke execute on functions from public;

grant usage on schema kirby to kirby_server, kirby_worker, kirby_auditor;

-- The protocol: what the SDK and psql call. A changed meaning is a new name (…_v2).
grant execute on function
  kirby.hello(), kirby.protocol(), kirby.now(),
  kirby.publish(text, jsonb, text, jsonb, timestamptz, timestamptz, text),
  kirby.write(jsonb, jsonb),
  kirby.publish_within(jsonb, text, text),
  kirby.read(text, bigint, integer, timestamptz, timestamptz),
  kirby.subscribe(text, text, text, text, integer),
  kirby.open_topic(text, integer, integer),
  kirby.limit_subscription(integer, jsonb),
  kirby.claim(integer, integer, interval, boolean),
  kirby.settle(bigint, bigint, jsonb, jsonb, bigint, integer, interval, jsonb),
  kirby.renew(bigint, bigint, interval),
  kirby.release(bigint, bigint, boolean),
  kirby.resume(bigint[]),
  kirby.bury(text[], boolean, jsonb),
  kirby.next_due(integer[]),
  kirby.retract(text, text),
  kirby.task_status(text, text),
  kirby.get_entries(text, text[], text, text, integer, text, text, boolean),
  kirby.get_entries_at(text, timestamptz, bigint, text[], text, text, integer),
  kirby.get_history(text, text, bigint, integer),
  kirby.declare_columns(text, jsonb),
  kirby.fly(text, text, double precision, text, double precision), kirby.land(text, text, text),
  kirby.declare(integer, jsonb),
  kirby.serve(integer, text, jsonb),
  kirby.begin_effect(text, text, integer, bigint, integer, boolean, uuid),
  kirby.confirm_effect(bigint),
  kirby.open_shadow(integer, text, text, text),
  kirby.begin_export(jsonb, text),
  kirby.export_messages(bigint, text, bigint, integer, text),
  kirby.export_entries(bigint, text, text, integer, text),
  kirby.end_export(bigint, text),
  kirby.report_progress(double precision, text)
to kirby_worker, kirby_server;

-- The server: everything but changing what is in a log.
grant execute on all functions in schema kirby to kirby_server;
grant select on all tables in schema kirby to kirby_server;
grant select on all sequences in schema kirby to kirby_server;
grant insert, update, delete on
  kirby.job, kirby.file, kirby.file_chunk, kirby.package, kirby.package_file, kirby.release, kirby.release_file,
  kirby.deployment, kirby.deployment_version, kirby.tick, kirby.supervisor, kirby.lease, kirby.variable, kirby.token, kirby.account, kirby.session, kirby.login_failure
to kirby_server;
grant insert, update, delete on kirby.mask, kirby.pull to kirby_server;
grant insert, update, delete on kirby.calendar, kirby.channel, kirby.route to kirby_server;
grant insert on kirby.log_line to kirby_server;
grant usage on sequence kirby.position to kirby_server;

grant select on
  kirby.event_log
to kirby_auditor;

-- States of the past, for whoever reads the views of the present.
grant execute on function
  kirby.state_at(text, text, timestamptz, bigint, text, text),
  kirby.state_diff(text, text, timestamptz, timestamptz, bigint, bigint, text),
  kirby.state_blame(text, text, text),
  kirby.state_gaps(text, text, timestamptz, bigint, text, text),
  kirby.typed_integer(jsonb), kirby.typed_number(jsonb), kirby.typed_text(jsonb), kirby.typed_boolean(jsonb),
  kirby.typed_time(jsonb)
to kirby_auditor;
