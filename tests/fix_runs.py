"""What tests of runs are made of: deployments put straight into the tables, and a supervisor."""

import hashlib
import sys
import textwrap
import time
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from kirby.server.supervisor import Supervisor

ENDED = ("succeeded", "failed", "cancelled", "timed_out", "lost")
VIRTUALENV = Path(sys.prefix)  # where the virtualenv is not the subject


class Runs:
    """Jobs and runs of one database, as an administrator sees them."""

    def __init__(self, conn):
        self.conn = conn

    def ask(self, query, *params):
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, params).fetchall()

    def value(self, query, *params):
        [row] = self.ask(query, *params)
        return next(iter(row.values()))

    def deploy(self, source="", *, name=None, kind="manual", environment="dev", **options):
        """A job in an environment, or its next version; the deployment's id."""
        name = name or f"job-{uuid.uuid4().hex[:8]}"
        release = self._release(
            name,
            textwrap.dedent(source),
            options.pop("requirements", ""),
            options.pop("filename", f"{name}.py"),
        )
        self.ask("insert into kirby.job (name, kind) values (%s, %s) on conflict do nothing"
                 " returning id", name, kind)  # fmt: skip
        deployment = self.value(
            """
            insert into kirby.deployment (job_id, environment_id, version)
            select j.id, e.id, 0 from kirby.job j, kirby.environment e
             where j.name = %s and e.name = %s
            on conflict (job_id, environment_id) do update set job_id = excluded.job_id
            returning id
            """,
            name, environment,
        )  # fmt: skip
        return self._version(deployment, release, **options)

    def _release(self, name, source, requirements, filename):
        digest = hashlib.sha256(source.encode()).hexdigest()
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        lock = hashlib.sha256(requirements.encode()).hexdigest()
        return self.value(
            """
            insert into kirby.release (name, filename, source, sha256, requirements, lock_hash,
                                       python, created_by)
            values (%s, %s, %s, %s, %s, %s, %s, 'test')
            on conflict (name, sha256, lock_hash) do update set name = excluded.name returning id
            """,
            name, filename, source, digest, requirements, lock, python,
        )  # fmt: skip

    def _version(self, deployment, release, **options):
        """Options are columns of kirby.deployment_version; the rest has its defaults."""
        values = {"actor": "test", **options, "release_id": release}
        convert = {dict: Jsonb, tuple: list}
        values = {n: convert.get(type(v), lambda v: v)(v) for n, v in values.items()}
        statement = sql.SQL(
            """
            with v as (
              insert into kirby.deployment_version (deployment_id, version, {})
              select id, version + 1, {} from kirby.deployment where id = {})
            update kirby.deployment set version = version + 1 where id = {} returning id
            """
        ).format(
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(sql.Placeholder() * len(values)),
            deployment, deployment,
        )  # fmt: skip
        self.conn.execute(statement, list(values.values()))
        return deployment

    def trigger(self, deployment):
        run_id = self.value("select kirby.queue_run(%s, 'manual', 'test')", deployment)
        self.conn.execute("notify kirby_run")
        return run_id

    def start(self, source, **options):
        """Deploy a script as a manual job, and queue a run of it."""
        return self.trigger(self.deploy(source, **options))

    def get(self, run_id):
        [row] = self.ask("select * from kirby.run where id = %s", run_id)
        return row

    def of(self, deployment):
        return self.ask("select * from kirby.run where deployment_id = %s order by id", deployment)

    def events(self, run_id):
        rows = self.ask(
            "select type from kirby.job_event where run_id = %s order by position", run_id
        )
        return [row["type"] for row in rows]

    def lines(self, run_id, *streams):
        streams = list(streams or ("stdout", "stderr", "kirby"))
        return self.ask(
            "select stream, level, text, at from kirby.log_line"
            " where run_id = %s and stream = any(%s) order by position",
            run_id, streams,
        )  # fmt: skip

    def texts(self, run_id, *streams):
        return [line["text"] for line in self.lines(run_id, *streams)]


def gone(pid):
    """Whether the process has ended, though its parent may not know yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def drive(supervisor, predicate, timeout=20.0):
    """Let the supervisor work, in this thread, until the predicate is true; returns its answer."""
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            pytest.fail(f"not true within {timeout} s")
        supervisor.tick()
        supervisor.wait(0.05)
    return answer


@pytest.fixture(name="runs")
def runs_fixture(dsn):
    """The runs of a database of its own."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Runs(conn)


@pytest.fixture(name="supervise")
def supervise_fixture(dsn, as_role, tmp_path):
    """Start supervisors in this process, without a loop: the test drives them."""
    started = []

    def supervise(**options):
        usual = {
            "dsn": as_role(dsn, "kirby_server"),
            "worker_dsn": as_role(dsn, "kirby_worker"),
            "data": tmp_path / "data",
            "host": "here",
            "ensure": lambda lock, sdk: VIRTUALENV,
        }
        supervisor = Supervisor(**{**usual, **options})
        supervisor.start()
        started.append(supervisor)
        return supervisor

    supervise.folder = tmp_path
    yield supervise
    for supervisor in started:
        if not supervisor._asked_to_stop:
            supervisor.stop()
