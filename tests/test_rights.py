"""What each role can do, asked of the catalog, so that a new object is not forgotten."""

import psycopg
import pytest
from fix_sdk import FOREIGN, TOKEN, house_fixture  # noqa: F401
from psycopg import errors, sql

PROTOCOL = {
    "begin_effect", "begin_export", "bury", "claim", "confirm_effect", "declare",
    "declare_columns", "end_export", "export_entries", "export_messages", "fly",
    "get_entries", "get_entries_at", "get_history", "hello", "land", "limit_subscription",
    "next_due", "now", "open_shadow", "open_topic", "protocol", "publish", "publish_within",
    "read", "release", "renew", "report_progress", "resume", "retract", "serve", "settle",
    "subscribe", "task_status", "write",
}  # fmt: skip
READABLE = {
    "state_at", "state_blame", "state_diff", "state_gaps", "typed_boolean", "typed_integer",
    "typed_number", "typed_text", "typed_time",
}  # fmt: skip
LOGS = ("audit_event", "job_event", "log_line", "message", "secret_access", "state_mutation")
FUNCTIONS = """
    select p.proname
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where (n.nspname = 'kirby' or starts_with(n.nspname, 'state_'))
"""
RELATIONS = """
    select format('%I.%I', n.nspname, c.relname), c.relkind
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where (n.nspname = 'kirby' or starts_with(n.nspname, 'state_'))
       and c.relkind in ('r', 'p', 'v', 'S')
"""
PRIVILEGES = {
    "r": "select,insert,update,delete,truncate,references,trigger",
    "S": "usage,select,update",
}


@pytest.fixture
def full(db):
    """A database in which every kind of thing exists, states and their views too."""
    db.execute("select kirby.publish('orders', '1')")
    db.execute("""select kirby.write(p_mutations => '{"sums": [{"k":"a","o":"set","v":1}]}')""")
    db.execute("select kirby.open_partitions(5)")
    return db


def allowed(db, role, wanted=None):
    """What a role may do with which relation of schema kirby and of the states."""
    found = set()
    for name, kind in db.execute(RELATIONS).fetchall():
        check = "has_sequence_privilege" if kind == "S" else "has_table_privilege"
        for privilege in PRIVILEGES.get(kind, PRIVILEGES["r"]).split(","):
            if db.execute(f"select {check}(%s, %s, %s)", [role, name, privilege]).fetchone()[0]:
                found.add((name, privilege))
    return found if wanted is None else {name for name, privilege in found if privilege == wanted}


def executable(db, role):
    may = "has_function_privilege(%s, p.oid, 'execute')"
    return {name for (name,) in db.execute(f"{FUNCTIONS} and {may}", [role]).fetchall()}


# By the catalog


def test_a_worker_may_call_the_protocol_and_nothing_else(full):
    assert executable(full, "kirby_worker") == PROTOCOL
    assert allowed(full, "kirby_worker") == set()


def test_a_worker_may_not_make_anything(full):
    may = "select has_schema_privilege('kirby_worker', %s, %s)"
    for schema in ("kirby", "state_dev", "public"):
        assert full.execute(may, [schema, "create"]).fetchone() == (False,)
    assert full.execute(may, ["state_dev", "usage"]).fetchone() == (False,)


def test_an_auditor_may_select_from_views_and_nothing_else(full):
    assert executable(full, "kirby_auditor") == READABLE
    assert allowed(full, "kirby_auditor") == {
        ("kirby.event_log", "select"),
        ("state_dev.sums", "select"),
        ("state_dev.sums_history", "select"),
    }


def test_nobody_else_may_do_anything(full):
    full.execute("create role kirby_test_stranger")

    assert executable(full, "kirby_test_stranger") == set()
    assert allowed(full, "kirby_test_stranger") == set()


def test_the_server_may_write_no_log_but_through_functions(full):
    changing = {"insert", "update", "delete", "truncate", "trigger", "references"}
    logs = [name for name, _ in full.execute(RELATIONS) if name.startswith(tuple(
        f"kirby.{log}" for log in LOGS))]  # fmt: skip
    found = {(name, may) for name, may in allowed(full, "kirby_server") if may in changing}

    assert len(logs) > 6 * 6
    assert {(name, may) for name, may in found if name in logs} == {("kirby.log_line", "insert")}
    assert not {name for name, may in found if may in ("truncate", "trigger", "references")}


def test_what_is_made_by_the_next_migration_is_closed_too(full):
    full.execute("set local role kirby_owner")
    full.execute("create function kirby.fresh() returns int language sql as 'select 1'")
    full.execute("create table kirby.fresh_table ()")

    assert "fresh" not in executable(full, "kirby_worker")
    assert "kirby.fresh_table" not in allowed(full, "kirby_worker", "select")


def test_functions_with_the_rights_of_the_owner_have_a_fixed_search_path(full):
    rows = full.execute(
        """
        select p.proname, p.proconfig, pg_get_userbyid(p.proowner)
          from pg_proc p where p.pronamespace = 'kirby'::regnamespace and p.prosecdef
        """
    ).fetchall()

    assert len(rows) > len(PROTOCOL)
    assert {config[0] for _, config, _ in rows} == {"search_path=pg_catalog, pg_temp"}
    assert {owner for _, _, owner in rows} == {"kirby_owner"}


def test_every_protocol_function_has_the_rights_of_the_owner(full):
    rows = full.execute(
        "select proname from pg_proc where pronamespace = 'kirby'::regnamespace and prosecdef"
    ).fetchall()

    assert {*PROTOCOL} - {name for (name,) in rows} == {"now", "protocol"}


@pytest.mark.parametrize("role", ["kirby_worker", "kirby_server", "kirby_auditor", "kirby_owner"])
def test_no_role_is_more_than_it_has_to_be(full, role):
    row = full.execute(
        "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls from pg_roles"
        " where rolname = %s",
        [role],
    ).fetchone()

    assert not any(row)
    member_of = full.execute(
        "select roleid::regrole::text from pg_auth_members where member = %s::regrole", [role]
    ).fetchall()
    assert member_of == ([("pg_read_all_stats",)] if role == "kirby_server" else [])


# By trying


@pytest.fixture
def log_in(house, as_role):
    """`log_in("kirby_worker", token=…)`: a connection with that role."""
    opened = []

    def log_in(role, token="", environment=""):
        conn = psycopg.connect(as_role(house.dsn, role), autocommit=True)
        opened.append(conn)
        conn.execute("select set_config('kirby.token', %s, false)", [token])
        conn.execute("select set_config('kirby.environment', %s, false)", [environment])
        return conn

    house.give_token(FOREIGN, "preprod")
    yield log_in
    for conn in opened:
        conn.close()


CALLS = {
    "hello": "select kirby.hello()",
    "publish": "select kirby.publish('orders', '1')",
    "write": "select kirby.write('{}', '{}')",
    "read": "select * from kirby.read('orders')",
    "subscribe": "select kirby.subscribe('orders', 'job')",
    "claim": "select kirby.claim(1)",
    "renew": "select kirby.renew(1, 1)",
    "release": "select kirby.release(1, 1)",
    "get_entries": "select * from kirby.get_entries('sums')",
}


@pytest.mark.parametrize("call", CALLS)
def test_without_a_valid_token_nothing_is_possible(house, log_in, call):
    house.publish("orders", 1)
    house.conn.execute("insert into kirby.subscription (topic_id, name) values (1, 'job')")
    house.give_token("revoked", "dev")
    house.conn.execute(
        "update kirby.token set revoked_at = now() where hash = sha256('revoked'::bytea)"
    )

    for token, environment in [
        ("", ""),
        ("", "dev"),
        ("wrong", ""),
        ("revoked", ""),
        (TOKEN.upper(), ""),
        (FOREIGN, "dev"),
        (TOKEN, "preprod"),
        (TOKEN, "nowhere"),
    ]:
        conn = log_in("kirby_worker", token, environment)
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(CALLS[call])
        assert caught.value.sqlstate == "KB003", (token, environment)


def test_settle_needs_a_valid_token_too(house, log_in):
    house.publish("orders", 1)
    worker = log_in("kirby_worker", TOKEN)
    worker.execute("select kirby.subscribe('orders', 'job')")
    [(claim, fence)] = worker.execute("select claim_id, fence from kirby.claim(1)").fetchall()

    for token in ("", "wrong"):
        worker.execute("select set_config('kirby.token', %s, false)", [token])
        with pytest.raises(psycopg.Error) as caught:
            worker.execute("select kirby.settle(%s, %s)", [claim, fence])
        assert caught.value.sqlstate == "KB003"
    assert house.ask("select from kirby.claim")


def test_a_token_works_in_its_environment_only(house, log_in):
    house.publish("orders", "of dev")
    foreign = log_in("kirby_worker", FOREIGN)

    foreign.execute("select kirby.publish('orders', '\"of preprod\"')")

    rows = foreign.execute("select payload from kirby.read('orders')").fetchall()
    assert rows == [("of preprod",)]
    hello = foreign.execute("select environment from kirby.hello()").fetchone()
    assert hello == ("preprod",)


def test_a_token_is_stored_as_a_hash_only(house):
    rows = house.ask("select t::text from kirby.token t")

    assert len(rows) == 1
    assert TOKEN not in rows[0][0]


@pytest.mark.parametrize(
    "statement",
    [
        "select * from kirby.message",
        "select * from kirby.message_0",
        "select * from kirby.token",
        "select * from kirby.event_log",
        "select * from state_dev.sums",
        "insert into kirby.message_0 (position, topic_id, lane, payload) values (1, 1, 1, '1')",
        "select nextval('kirby.position')",
        "select last_value from kirby.position",
        "select kirby.append_messages(1::smallint, null, '{}')",
        "select kirby.queue_run(1, 'manual', 'me')",
        "select kirby.principal()",
        "create table kirby.mine ()",
        "create function kirby.mine() returns int language sql as 'select 1'",
        "set role kirby_server",
        "set role kirby_owner",
        "set session authorization kirby_server",
        "alter role kirby_worker superuser",
        "copy kirby.token to stdout",
    ],
)
def test_a_worker_with_a_token_is_refused_everything_else(house, log_in, statement):
    house.conn.execute(
        """select kirby.write(p_mutations => '{"sums": [{"k":"a","o":"set","v":1}]}')"""
    )
    worker = log_in("kirby_worker", TOKEN)

    with pytest.raises(errors.InsufficientPrivilege):
        worker.execute(statement)


@pytest.mark.parametrize(
    ("role", "may"),
    [("kirby_auditor", {"kirby.event_log", "state_dev.sums"}), ("kirby_worker", set())],
)
def test_an_auditor_reads_views_and_no_table(house, log_in, role, may):
    house.conn.execute(
        """select kirby.write(p_mutations => '{"sums": [{"k":"a","o":"set","v":1}]}')"""
    )
    conn = log_in(role)
    readable = set()
    for name in ("kirby.event_log", "state_dev.sums", "kirby.message", "kirby.token"):
        try:
            conn.execute(sql.SQL("select * from {}").format(sql.SQL(name)))
            readable.add(name)
        except errors.InsufficientPrivilege:
            pass

    assert readable == may


# Append-only

CHANGES = (
    "update {} set position = 0",
    "delete from {}",
    "truncate {}",
)


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("role", ["kirby_server", "kirby_owner", None])
def test_no_log_and_no_partition_of_it_can_be_changed(full, log, role):
    """The server has no right to; the owner and the superuser are refused by the triggers."""
    rows = full.execute(
        """
        select format('kirby.%%I', c.relname) from pg_class c
          left join pg_inherits i on i.inhrelid = c.oid
         where %s::regclass in (c.oid, i.inhparent)
        """,
        [f"kirby.{log}"],
    ).fetchall()
    assert len(rows) >= 1 + 6 + 1
    if role:
        full.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))

    for (name,) in rows:
        for change in CHANGES:
            with pytest.raises(psycopg.Error) as caught, full.transaction():
                full.execute(change.format(name))
            if role == "kirby_server":
                assert isinstance(caught.value, errors.InsufficientPrivilege)
            else:
                assert caught.value.sqlstate == "KB003"
                assert "is append-only" in caught.value.diag.message_primary


def test_a_partition_that_is_opened_later_is_append_only_too(full):
    full.execute("select setval('kirby.position', 900000000)")
    full.execute("select kirby.open_partitions()")

    with pytest.raises(psycopg.Error, match="message_90 is append-only: TRUNCATE is refused"):
        full.execute("truncate kirby.message_90")


# Objects that an attacker lays in the way

TRAPS = """
    create function {schema}.fail(text, text) returns void language plpgsql as $$
      begin raise exception 'trapped'; end $$;
    create function {schema}.now() returns timestamptz language plpgsql as $$
      begin raise exception 'trapped'; end $$;
    create function {schema}.sha256(bytea) returns bytea language plpgsql as $$
      begin raise exception 'trapped'; end $$;
    create function {schema}.coalesce_text(text, text) returns text language plpgsql as $$
      begin raise exception 'trapped'; end $$;
    create function {schema}.equal(text, text) returns boolean language plpgsql as $$
      begin raise exception 'trapped'; end $$;
    create operator {schema}.= (leftarg = text, rightarg = text, function = {schema}.equal);
    create function {schema}.nextval(regclass) returns bigint language plpgsql as $$
      begin raise exception 'trapped'; end $$;
    create function {schema}.jsonb_each(jsonb) returns table (key text, value jsonb)
      language plpgsql as $$ begin raise exception 'trapped'; end $$;
    create {temp} table {schema}.token as select 1 as trapped;
    create {temp} table {schema}.pg_locks as select 1 as trapped;
    create {temp} table {schema}.topic as select 1 as trapped;
"""


@pytest.mark.parametrize("schema", ["pg_temp", "public", "attacker"])
def test_objects_of_a_worker_are_never_called(house, log_in, schema):
    house.conn.execute("grant create on schema public to kirby_worker")
    house.conn.execute("create schema attacker authorization kirby_worker")
    worker = log_in("kirby_worker", TOKEN)
    worker.execute(TRAPS.format(schema=schema, temp="temp" if schema == "pg_temp" else ""))
    worker.execute(f"set search_path = {schema}, pg_catalog, kirby")
    with pytest.raises(psycopg.Error, match="trapped"):
        worker.execute(f"select {schema}.nextval('pg_class'::regclass)")

    mutations = '{"sums": [{"k": "a", "o": "set", "v": 1}]}'
    worker.execute("select kirby.hello()")
    worker.execute("select kirby.publish('orders', '1', 'a')")
    worker.execute('select kirby.write(\'{"orders": [{"v": 2}]}\', %s)', [mutations])
    worker.execute("select kirby.subscribe('orders', 'job')")
    claims = worker.execute("select claim_id, fence from kirby.claim(1)").fetchall()
    worker.execute("select kirby.renew(%s, %s)", claims[0])
    worker.execute("select kirby.settle(%s, %s, p_next => 5)", claims[0])
    entries = worker.execute("select key from kirby.get_entries('sums')").fetchall()
    rows = worker.execute("select payload from kirby.read('orders')").fetchall()

    assert entries == [("a",)]
    assert rows == [(1,), (2,)]
