"""What tests of exports and pulls are made of: another installation, by DSN and behind a server."""

import json
import threading
import types

import psycopg
import pytest
from fix_web import stop
from psycopg.conninfo import conninfo_to_dict

from kirby.server import database
from kirby.server.settings import Settings
from kirby.server.web import create_app, serve

FILL = """
    select count(*) from (
      select kirby.write(jsonb_build_object(%s::text, (
               select jsonb_agg(jsonb_build_object('k', 'K' || i %% 7, 'v',
                        jsonb_build_object('n', i, 'who', 'Anna-' || i)))
                 from generate_series(b * 1000, least(b * 1000 + 999, %s - 1)) i)))
        from generate_series(0, (%s - 1) / 1000) b) w
"""


class Far:
    """Another installation, as its administrator sees it."""

    def __init__(self, dsn, login):
        self.dsn, self.login = dsn, login
        self.conn = psycopg.connect(dsn, autocommit=True)
        self.ask("update kirby.installation set id = gen_random_uuid()")

    def ask(self, query, *params):
        cursor = self.conn.execute(query, params)
        return cursor.fetchall() if cursor.description else None

    def value(self, query, *params):
        [[value]] = self.ask(query, *params)
        return value

    def environment(self, name):
        self.value("select set_config('kirby.environment', %s, false)", name)

    def fill(self, topic, count):
        """So many messages of seven keys."""
        self.ask(FILL, topic, count, count)

    def publish(self, topic, value, key=None, headers=None):
        given = [topic, json.dumps(value), key, json.dumps(headers) if headers else None]
        return self.value("select kirby.publish(%s, %s, %s, %s)", *given)

    def set(self, state, **values):
        changes = [{"k": key, "o": "set", "v": value} for key, value in values.items()]
        self.ask("select kirby.write('{}', %s)", json.dumps({state: changes}))

    def token(self, role="developer", name="ci", environment=None):
        from kirby.server import tokens

        engine = database.engine(self.dsn)
        with database.unit(engine) as conn:
            given = tokens.add(conn, name, role=role, actor="test", environment=environment)
        engine.dispose()
        return given.token

    def audits(self, verb):
        return [
            after
            for (after,) in self.ask(
                "select after from kirby.audit_event where verb = %s order by position", verb
            )
        ]

    @property
    def place(self):
        parts = conninfo_to_dict(self.dsn)
        return f"{parts['host']}:{parts['port']}/{parts['dbname']}"


@pytest.fixture(name="far")
def far_fixture(databases, as_role):
    dsn = databases.create()
    found = Far(dsn, as_role(dsn, "kirby_server"))
    yield found
    found.conn.close()
    databases.drop(dsn)


@pytest.fixture(name="far_web")
def far_web_fixture(far):
    """The web of the other installation, a real server."""
    engine = database.engine(far.login)
    app = create_app(Settings(dsn=far.login), engine)
    listener = serve.listen("127.0.0.1", 0)
    ready = threading.Event()
    server = serve.Server(app, serve.address("127.0.0.1", listener), lambda _: ready.set())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(20)
    yield types.SimpleNamespace(url=server.url, app=app)
    stop(server, thread)
    listener.close()
    engine.dispose()


@pytest.fixture(name="no_pause")
def no_pause_fixture(monkeypatch):
    """Tries again at once."""
    from kirby.server import remotes

    monkeypatch.setattr(remotes, "PAUSES", (0.01, 0.01, 0.01, 0.01))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
