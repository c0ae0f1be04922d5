"""What tests of channels are made of: a mail server, a web server, and a notifier to drive."""

import email
import email.policy
import http.server
import json
import threading
import types

import psycopg
import pytest
from aiosmtpd.controller import Controller
from fix_kirby import free_port
from fix_runs import Runs
from fix_subscription import CLOCK

from kirby.server.supervisor.notifier import Notifier

OPEN = """
    select kirby.open_incident((select id from kirby.environment where name = %s)::smallint, %s, %s,
                               %s, %s, %s, %s)
"""


class Mail:
    """A mail server; `refuse` makes it answer that to every mail."""

    def __init__(self):
        self.got, self.refuse = [], None
        self._controller = Controller(self, hostname="127.0.0.1", port=free_port())
        self._controller.start()

    @property
    def url(self):
        return f"mailto://127.0.0.1:{self._controller.port}?from=kirby@x.test&to=ops@x.test&mode=insecure"

    async def handle_DATA(self, server, session, envelope):
        if self.refuse:
            return self.refuse
        self.got.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 taken"

    def stop(self):
        self._controller.stop()


class Hook:
    """A web server that keeps what is posted; `broken` paths say no, `held` ones wait."""

    def __init__(self):
        self.got, self.broken, self.held = [], set(), {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                outer._take(self)

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def host(self):
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self):
        return f"json://{self.host}/hook"

    def of(self, channel):
        return [each for each in self.got if each.path == f"/{channel}"]

    def events(self, channel="hook"):
        return [each.body["kirby"]["event"] for each in self.of(channel)]

    def _take(self, handler):
        body = handler.rfile.read(int(handler.headers["content-length"]))
        taken = types.SimpleNamespace(
            path=handler.path, headers=dict(handler.headers), body=json.loads(body)
        )
        self.got.append(taken)
        if handler.path in self.held:
            self.held[handler.path].wait(30)
        try:
            handler.send_response(500 if handler.path in self.broken else 200)
            handler.end_headers()
            handler.wfile.write(b"no such room" if handler.path in self.broken else b"thanks")
        except OSError:
            pass  # whoever asked is gone

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


class Told(Runs):
    """A database whose incidents are told, as an administrator sees it, with a clock to move."""

    def __init__(self, conn, dsn):
        super().__init__(conn)
        self.notifier = self.another(dsn)

    def another(self, dsn, **options):
        return Notifier(dsn, lambda: True, **{"environ": {}, "url": "https://k.test", **options})

    def channel(self, name, url, *, environment="dev", route=True):
        channel = self.value(
            "insert into kirby.channel (environment_id, name, url, created_by) values"
            " ((select id from kirby.environment where name = %s), %s, %s, 'test') returning id",
            environment, name, url,
        )  # fmt: skip
        if route:
            self.route(channel)
        return channel

    def route(self, channel, scope="everything", target="", **options):
        values = {"environment": None, "events": ["opened", "resolved"], "kinds": [], **options}
        self.conn.execute(
            "insert into kirby.route"
            " (channel_id, environment_id, scope, target, events, kinds, created_by, created_at)"
            " values (%s, (select id from kirby.environment where name = %s), %s, %s, %s, %s,"
            " 'test', kirby.now())",
            [channel, values["environment"], scope, target, values["events"], values["kinds"]],
        )  # fmt: skip

    def wrong(self, title="it fails: exit code 3", *, deployment=None, kind="failing",
              fingerprint="f", environment="dev", details="{}", run=None):  # fmt: skip
        return self.value(OPEN, environment, deployment, kind, fingerprint, title, details, run)

    def well(self, incident):
        self.value("select kirby.resolve_incident(%s, 'kirby', 'it works')", incident)

    def later(self, interval="11 seconds"):
        self.conn.execute("update kirby.test_clock set shift = shift + %s::interval", [interval])

    def announce(self):
        return self.value("select kirby.announce_incidents()")

    def tell(self, interval="11 seconds"):
        """Let time pass, and have what is due announced and sent."""
        self.later(interval)
        self.announce()
        self.send()

    def say(self, run, *lines):
        for line in lines:
            self.conn.execute(
                "insert into kirby.log_line (position, run_id, stream, level, text, at) values"
                " (nextval('kirby.position'), %s, 'stderr', 'error', %s, now())", [run, line],
            )  # fmt: skip

    def send(self, notifier=None):
        """Let a notifier work until nothing is under way."""
        notifier, wait = notifier or self.notifier, threading.Event()
        for _ in range(2000):
            if not notifier.tick():
                return
            wait.wait(0.01)
        pytest.fail("a delivery does not end")

    def deliveries(self, channel):
        return self.ask("select * from kirby.delivery where channel_id = %s order by id", channel)

    def incidents(self, kind="channel"):
        return self.ask("select * from kirby.incident where kind = %s order by id", kind)


@pytest.fixture(name="mail")
def mail_fixture():
    mail = Mail()
    yield mail
    mail.stop()


@pytest.fixture(name="hook")
def hook_fixture():
    hook = Hook()
    yield hook
    hook.stop()


@pytest.fixture(name="told")
def told_fixture(dsn, as_role):
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(CLOCK)
        told = Told(conn, as_role(dsn, "kirby_server"))
        yield told
        told.notifier.stop()
