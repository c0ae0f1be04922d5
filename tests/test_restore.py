"""A dump, restored into a fresh cluster: consumers go on there, nothing is lost or repeated."""

import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from fix_postgres import ROLE_PASSWORD, ROLES, as_role, fast_folder
from fix_sdk import (  # noqa: F401
    TOKEN,
    House,
    house_fixture,
    scripts_fixture,
    sdk_fixture,
)
from psycopg import sql
from psycopg.conninfo import make_conninfo

import kirby
from kirby.server import pg_programs
from kirby.server.postgres import Postgres
from kirby.server.schema import migrate

orders = kirby.Topic("orders")

# Bills every order once; some fail at first, one always does. Counts in a state, as bills do.
PIPELINE = """
count = kirby.state("count")

@kirby.stream("orders", to="bills", name="billing", max_attempts=4)
def bill(order):
    if order["n"] == 13:
        raise RuntimeError("never")
    if str(order["n"]) == os.environ.get("HOLD"):
        open(os.path.join(os.environ["FOLDER"], "held"), "w").close()
        sys.stdin.readline()
    count[order["key"]] = count.get(order["key"], 0) + 1
    return order

@kirby.stream("orders", name="flaky", on_failure="park", max_attempts=5, to="notes", ordered=False)
def note(order):
    seen = os.path.join(os.environ["FOLDER"], str(order["n"]))
    if order["n"] % 10 == 7 and not os.path.exists(seen):
        open(seen, "w").close()
        raise RuntimeError("not now")
    return order["n"]

@kirby.stream("bills", batch=20, name="ledger", to="ledger")
def book(bills: list):
    return kirby.Out({"n": [bill["n"] for bill in bills]})

kirby.run()
"""


class Restored:
    """A second cluster, with nothing in it."""

    def __init__(self, root):
        self.root = root
        self.postgres = Postgres(root, durable=False)
        self.postgres.start()
        self.admin = self.postgres.dsn("postgres")
        self.execute("create database restored")
        self.dsn = self.postgres.dsn("restored")

    def execute(self, statement):
        with psycopg.connect(self.admin, autocommit=True) as conn:
            conn.execute(statement)

    def stop(self):
        self.postgres.stop()
        shutil.rmtree(self.root)


@pytest.fixture
def fresh():
    made = Restored(Path(tempfile.mkdtemp(prefix="kirby-test-", dir=fast_folder())))
    yield made
    made.stop()


def program(name, *arguments, **options):
    """Run one of PostgreSQL's own programs; fails with what it said."""
    command = [pg_programs.find_bindir() / name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{name}: {done.stderr}"
    return done.stdout


def roles_of(dsn):
    """As the guide says: the roles belong to the cluster, not to the dump."""
    admin = make_conninfo(dsn, dbname="postgres")
    said = program("pg_dumpall", "--roles-only", "--no-role-passwords", "-d", admin)
    return "".join(line for line in said.splitlines(keepends=True) if " kirby_" in line)


class Plain:
    """Dumped as SQL after the workers were killed, read by psql."""

    live = False

    def dump(self, dsn, folder):
        program("pg_dump", "-d", dsn, "-f", folder / "kirby.sql")

    def load(self, dsn, folder):
        program("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f", folder / "kirby.sql")


class Custom:
    """Dumped while the workers are at work, restored by two jobs at once."""

    live = True

    def dump(self, dsn, folder):
        program("pg_dump", "-Fc", "-d", dsn, "-f", folder / "kirby.dump")

    def load(self, dsn, folder):
        program("pg_restore", "--exit-on-error", "-j2", "-d", dsn, folder / "kirby.dump")


def restore(how, roles, fresh, folder):
    """The backup chapter of the guide, step by step."""
    program("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", fresh.admin, input=roles)
    how.load(fresh.dsn, folder)
    migrate(fresh.dsn)
    program("psql", "-q", "-d", fresh.dsn, "-c", NOBODY_HOLDS)
    for role in ROLES:
        statement = sql.SQL("alter role {} login password {}")
        fresh.execute(statement.format(sql.Identifier(role), ROLE_PASSWORD))


class There(House):
    """The house in the fresh cluster; its tokens came with the dump."""

    def give_token(self, *_):
        pass


def publish(house, numbers):
    with house.conn.transaction():
        for n in numbers:
            house.publish("orders", {"n": n, "key": f"k{n % 20}"}, key=f"k{n % 20}")


NOBODY_HOLDS = "update kirby.claim set lease_until = '-infinity'"
OPEN = "select count(*) from kirby.claim"
RETRIES = "select count(*) from kirby.due where parked_at is null and reason <> 'done'"
PARKED = """
    select m.payload ->> 'n' from kirby.due d join kirby.message m using (position)
     where d.parked_at is not null
"""
CONTENTS = """
    select m.position, t.name, m.lane, m.key, m.payload, m.recorded_at
      from kirby.message m join kirby.topic t on t.id = m.topic_id order by 1
"""


@pytest.fixture(params=[Plain(), Custom()], ids=["plain", "custom"])
def moved(request, house, fresh, scripts, until, tmp_path):
    """A house that was stopped in the middle of its work, dumped and restored."""
    how = request.param
    publish(house, range(200))
    workers = [
        scripts(PIPELINE, FOLDER=str(tmp_path), LEASE="60", SLICE="0.02", HOLD="50")
        for _ in range(2)
    ]
    until(lambda: len(house.values("bills")) > 20 and (tmp_path / "held").exists())
    until(lambda: house.value(RETRIES) > 0)
    publish(house, range(200, 300))
    if how.live:
        how.dump(house.dsn, tmp_path)
    for worker in workers:
        worker.kill()  # one has a claim in its hands
    if not how.live:
        how.dump(house.dsn, tmp_path)

    restore(how, roles_of(house.dsn), fresh, tmp_path)
    there = There(fresh.dsn, as_role(fresh.dsn, "kirby_worker"))
    assert there.value(OPEN) > 0
    assert there.value(RETRIES) > 0
    assert how.live or there.ask(CONTENTS) == house.ask(CONTENTS)
    yield there
    there.conn.close()


def numbers(house, topic):
    return Counter(
        value["n"] if isinstance(value, dict) else value for value in house.values(topic)
    )


def test_consumers_go_on_and_nothing_is_lost_or_repeated(moved, scripts, until, tmp_path):
    last = moved.value("select max(position) from kirby.message")
    workers = [
        scripts(PIPELINE, FOLDER=str(tmp_path), LEASE="60", **moved.environ) for _ in range(2)
    ]
    publish(moved, range(300, 400))
    good = set(range(400)) - {13} - {n for n in range(14, 400) if n % 20 == 13}

    until(lambda: len(moved.values("bills")) >= len(good), 60)
    until(lambda: len(moved.values("notes")) >= 400, 60)
    until(lambda: sum(len(value["n"]) for value in moved.values("ledger")) >= len(good), 60)
    until(lambda: moved.ask(PARKED) == [("13",)], 60)
    for worker in workers:
        worker.signal()
        assert worker.end()[0] == 0

    assert numbers(moved, "bills") == Counter(good)
    assert numbers(moved, "notes") == Counter(range(400))
    assert sorted(n for value in moved.values("ledger") for n in value["n"]) == sorted(good)
    counts = dict(moved.ask("select key, value::integer from state_dev.count"))
    assert counts == Counter(f"k{n % 20}" for n in good)
    assert moved.value("select min(position) from kirby.message where position > %s", last) > last


def test_the_house_is_whole(moved, monkeypatch):
    """Positions, partitions, the horizon, tokens, rights: all work as in the first cluster."""
    for name, value in moved.environ.items():
        monkeypatch.setenv(name, value)
    kirby.sdk.session.close()
    last = moved.value("select max(position) from kirby.message")
    high = moved.value("select last_value from kirby.position")
    assert high >= last

    position = orders.publish({"n": 1, "key": "x"})
    assert position > high
    with psycopg.connect(moved.dsn) as slow:
        slow.execute("select kirby.publish('orders', '1')")
        orders.publish(2)
        assert list(orders.read(after=position)) == []  # the horizon waits for the open writer
    assert [message.value for message in orders.read(after=position)] == [1, 2]

    moved.conn.execute("select setval('kirby.position', 20000000)")
    with psycopg.connect(as_role(moved.dsn, "kirby_server"), autocommit=True) as server:
        assert server.execute("select kirby.open_partitions()").fetchone()[0] > 0
        server.execute("select kirby.add_environment('moon', 'test')")
        server.execute("set kirby.environment = 'moon'")
        server.execute(
            'select kirby.write(\'{}\', \'{"stock": [{"k": "a", "o": "set", "v": 1}]}\')'
        )
        assert server.execute("select key, value from state_moon.stock").fetchall() == [("a", 1)]
    orders.publish(3)
    assert moved.value("select count(*) from kirby.message_2") == 1
    assert moved.value("select count(*) from kirby.message_default") == 0
    with pytest.raises(psycopg.Error, match="append-only"):
        moved.conn.execute("delete from kirby.message_2")
    kirby.sdk.session.close()


def test_a_database_of_the_same_schema_is_not_told_from_a_restored_one(moved, dsn):
    """Owners, rights and definitions are those of a database that was never dumped."""
    described = [
        program("pg_dump", "--schema-only", "-n", "kirby", "-d", of) for of in (dsn, moved.dsn)
    ]
    ours, theirs = ({line for line in text.splitlines() if line} for text in described)
    assert {line for line in ours ^ theirs if not line.startswith("\\")} == set()
