"""Migrations: from nothing to the newest schema, all or nothing, as often as one likes."""

import shutil
import subprocess
import sys

import psycopg
import pytest
from fix_postgres import ROLES, missing
from fix_sdk import TOKEN, House

import kirby
from kirby.core.errors import KirbyError, Unavailable, WrongSchema
from kirby.sdk import session
from kirby.server import paths, pg_programs, schema

HEAD = schema.head()
NEXT = '''
"""The next one.

Revision ID: 9000
"""

from alembic import op

revision = "9000"
down_revision = "{head}"


def upgrade():
    op.get_bind().connection.driver_connection.execute({statement!r})
'''


@pytest.fixture
def migrations(tmp_path, monkeypatch):
    """A copy of the migrations that a test may change."""
    folder = tmp_path / "migrations"
    shutil.copytree(paths.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(schema, "MIGRATIONS", folder)
    return folder


@pytest.fixture
def program(databases):
    """Calls a program of PostgreSQL that is not older than the server."""
    bindir = pg_programs.find_bindir()
    with psycopg.connect(databases.dsn) as conn:
        major = conn.info.server_version // 10000
    if pg_programs.major_of(bindir) < major:
        missing(f"pg_dump of PostgreSQL {major}")

    def call(name, *arguments, **how):
        command = [bindir / name, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, **how).stdout

    return call


def ask(dsn, query, *params):
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(query, params)
        return cursor.fetchall() if cursor.description else None


def write(folder, name, text):
    (folder / name).write_text(text)


def next_revision(folder, statement):
    write(folder, "versions/9000_next.py", NEXT.format(statement=statement, head=HEAD))


def schemas(dsn):
    rows = ask(dsn, "select nspname from pg_namespace where nspname !~ '^(pg_|information_)'")
    return {name for (name,) in rows}


def dump(program, dsn, *options):
    """Without the lines that are different each time."""
    lines = program("pg_dump", *options, dsn).splitlines()
    return [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))]


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


# There and back again


def test_an_empty_database_gets_the_newest_schema(empty_dsn):
    schema.migrate(empty_dsn)

    schema.check(empty_dsn)
    assert schema.current(empty_dsn) == schema.head()
    assert ask(empty_dsn, "select name from kirby.environment order by id") == [
        ("dev",), ("preprod",), ("prod",),
    ]  # fmt: skip
    assert schemas(empty_dsn) == {"public", "kirby", "state_dev", "state_preprod", "state_prod"}
    assert ask(empty_dsn, "select kirby.publish('orders', '1')")


def test_everything_belongs_to_the_owner(empty_dsn):
    schema.migrate(empty_dsn)

    owners = ask(
        empty_dsn,
        """
        with kirby as (select oid, nspowner from pg_namespace where nspname ~ '^(kirby|state_)')
        select pg_get_userbyid(relowner) from pg_class where relnamespace in (select oid from kirby)
        union
        select pg_get_userbyid(proowner) from pg_proc where pronamespace in (select oid from kirby)
        union
        select pg_get_userbyid(nspowner) from kirby
        """,
    )
    assert owners == [("kirby_owner",)]


def test_migrating_again_changes_nothing(dsn, program):
    ask(dsn, "select kirby.publish('orders', '1', key => 'a')")
    before = dump(program, dsn, "--schema-only")
    positions = ask(dsn, "select last_value from kirby.position")

    schema.migrate(dsn)
    schema.migrate(dsn)

    assert dump(program, dsn, "--schema-only") == before
    assert ask(dsn, "select last_value from kirby.position") == positions
    assert ask(dsn, "select payload from kirby.read('orders')") == [(1,)]


def test_three_migrators_at_once_all_end_well(empty_dsn):
    code = "import sys; from kirby.server import schema; input(); schema.migrate(sys.argv[1])"
    command = [sys.executable, "-c", code, empty_dsn]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    migrators = [subprocess.Popen(command, **pipes, text=True) for _ in range(3)]
    for migrator in migrators:
        migrator.stdin.write("\n")
        migrator.stdin.flush()

    assert [migrator.communicate() for migrator in migrators] == [("", "")] * 3
    assert [migrator.returncode for migrator in migrators] == [0] * 3
    assert ask(empty_dsn, "select count(*) from kirby.environment") == [(3,)]


def test_an_environment_that_somebody_removed_does_not_come_back(dsn):
    ask(dsn, "delete from kirby.environment where name = 'preprod'")

    schema.migrate(dsn)

    assert ask(dsn, "select count(*) from kirby.environment") == [(2,)]


def test_roles_keep_their_logins(dsn, as_role):
    """They belong to the whole server, and their passwords are not ours to change."""
    schema.migrate(dsn)

    for role in ROLES:
        assert ask(as_role(dsn, role), "select current_user") == [(role,)]


def test_a_next_revision_is_applied(dsn, migrations):
    next_revision(migrations, "create table kirby.next ()")

    schema.migrate(dsn)

    assert schema.current(dsn) == schema.head() == "9000"
    assert ask(dsn, "select to_regclass('kirby.next') is not null") == [(True,)]


def test_functions_are_laid_anew(dsn, migrations):
    write(
        migrations,
        "functions/protocol.sql",
        "create or replace function kirby.protocol() returns integer language sql as 'select 7'",
    )

    schema.migrate(dsn)

    assert ask(dsn, "select kirby.protocol()") == [(7,)]
    execute = "select has_function_privilege('public', 'kirby.protocol()', 'execute')"
    assert ask(dsn, execute) == [(False,)]


def test_migrating_does_not_disturb_a_worker(dsn, as_role, monkeypatch):
    """Its prepared statements go on, with the new functions."""
    monkeypatch.setenv("KIRBY_DSN", as_role(dsn, "kirby_worker"))
    monkeypatch.setenv("KIRBY_TOKEN", TOKEN)
    session.close()
    House(dsn, "").conn.close()
    topic = kirby.topic("orders")
    for number in range(5):
        topic.publish(number)

    schema.migrate(dsn)
    topic.publish(5)

    assert [message.value for message in topic.read()] == list(range(6))
    session.get().close()


# All or nothing


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("functions/zzz.sql", "create function kirby.broken(", "syntax error at end of input"),
        ("views/zzz.sql", "create view kirby.v as select * from nowhere", "does not exist"),
        ("rights.sql", "grant select on kirby.nothing to kirby_worker", "does not exist"),
        ("seed.sql", "select 1 / 0", "division by zero"),
    ],
)
def test_a_file_that_fails_leaves_nothing_behind(empty_dsn, migrations, name, text, complaint):
    write(migrations, name, text)

    with pytest.raises(KirbyError, match="the migration was rolled back: ") as caught:
        schema.migrate(empty_dsn)

    assert complaint in one_line(caught)
    assert schemas(empty_dsn) == {"public"}
    assert schema.current(empty_dsn) is None


def test_a_file_that_fails_leaves_the_schema_as_it_was(dsn, migrations, program):
    before = dump(program, dsn)
    next_revision(migrations, "create table kirby.next ()")
    write(
        migrations,
        "functions/protocol.sql",
        "create or replace function kirby.protocol() returns integer language sql as 'select 7'",
    )
    write(migrations, "functions/zzz.sql", "nonsense")

    with pytest.raises(KirbyError, match='syntax error at or near "nonsense"'):
        schema.migrate(dsn)

    assert dump(program, dsn) == before


def test_a_revision_that_fails_leaves_nothing_behind(dsn, migrations):
    next_revision(migrations, "create table kirby.next (); select 1 / 0")

    with pytest.raises(KirbyError, match="the migration was rolled back: division by zero"):
        schema.migrate(dsn)

    assert schema.current(dsn) == HEAD
    assert ask(dsn, "select to_regclass('kirby.next')") == [(None,)]


def test_a_migration_gives_up_when_a_table_stays_locked(dsn, migrations):
    text = (migrations / "env.py").read_text()
    write(migrations, "env.py", text.replace('LOCK_TIMEOUT = "4s"', 'LOCK_TIMEOUT = "200ms"'))
    next_revision(migrations, "alter table kirby.message add column more integer")
    with psycopg.connect(dsn) as publisher:
        publisher.execute("select kirby.publish('orders', '1')")

        with pytest.raises(KirbyError, match="rolled back: canceling statement due to lock timeou"):
            schema.migrate(dsn)

    schema.migrate(dsn)


def test_the_files_may_contain_anything(empty_dsn, migrations):
    write(migrations, "functions/odd.sql", "-- 100% :name {braces} %s\nselect ':a', '%', '{}';")

    schema.migrate(empty_dsn)


# Which schema is there


def test_a_database_without_a_schema_is_told_so(empty_dsn):
    with pytest.raises(WrongSchema, match="has no Kirby schema: run 'kirby db migrate'") as caught:
        schema.check(empty_dsn)
    one_line(caught)


def test_an_older_schema_is_told_so(dsn, migrations):
    next_revision(migrations, "create table kirby.next ()")

    with pytest.raises(WrongSchema, match=f"{HEAD}, this Kirby needs 9000: run 'kirby d"):
        schema.check(dsn)


@pytest.mark.parametrize("act", [schema.check, schema.migrate])
def test_a_newer_schema_is_left_alone(dsn, act):
    ask(dsn, "update kirby.alembic_version set version_num = '9099'")

    with pytest.raises(WrongSchema, match=rf"9099, newer than this Kirby \({HEAD}\): upg"):
        act(dsn)

    assert ask(dsn, "select version_num from kirby.alembic_version") == [("9099",)]


@pytest.mark.parametrize("act", [schema.check, schema.migrate])
def test_a_database_that_does_not_answer_is_told_so(act):
    with pytest.raises(Unavailable, match=r"no database at 127\.0\.0\.1:1/nothing: ") as caught:
        act("postgresql://me:geheim@127.0.0.1:1/nothing")

    assert "geheim" not in one_line(caught)


@pytest.mark.parametrize("what", ["migrate", "check"])
def test_the_command_says_it_in_one_line(empty_dsn, what):
    command = [sys.executable, "-m", "kirby", "db", what]
    done = subprocess.run(
        command, env={"KIRBY_DSN": empty_dsn, "PATH": ""}, capture_output=True, text=True
    )

    if what == "migrate":
        assert (done.returncode, done.stderr) == (0, "")
        assert f"is at schema {HEAD} (was empty before)" in done.stdout
    else:
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert line.startswith("kirby: the database at ")
        assert line.endswith("has no Kirby schema: run 'kirby db migrate'")


# Dump and restore


def test_a_restored_dump_goes_on_where_it_was(dsn, empty_dsn, as_role, program, monkeypatch):
    monkeypatch.setenv("KIRBY_DSN", as_role(dsn, "kirby_worker"))
    monkeypatch.setenv("KIRBY_TOKEN", TOKEN)
    monkeypatch.setenv("KIRBY_JOB", "job")
    session.close()
    House(dsn, "").conn.close()
    orders, sums = kirby.topic("orders"), kirby.state("sums")
    orders.publish_many([1, 2, 3, 4], key="a")
    for message in orders.consume():
        sums["all"] = sums.get("all", 0) + message.value
        if message.value == 3:
            break
    last = max(message.position for message in orders.read())

    dump = program("pg_dump", dsn)
    program("psql", "--quiet", "--set=ON_ERROR_STOP=1", empty_dsn, input=dump)
    session.get().close()
    monkeypatch.setenv("KIRBY_DSN", as_role(empty_dsn, "kirby_worker"))
    session.close()

    schema.check(empty_dsn)
    assert sums["all"] == 3
    assert orders.publish(5, key="a") > last
    got = []
    for message in orders.consume():
        got.append(message.value)
        sums["all"] = sums["all"] + message.value
        if message.value == 5:
            break
    assert got == [3, 4, 5]
    assert [message.value for message in orders.read()] == [1, 2, 3, 4, 5]
    rows = ask(empty_dsn, "select version, value from state_dev.sums_history order by version")
    assert rows == [(1, 1), (2, 3), (3, 6), (4, 10)]
    with pytest.raises(psycopg.Error, match="message is append-only"):
        ask(empty_dsn, "delete from kirby.message")
    schema.migrate(empty_dsn)
    session.get().close()
