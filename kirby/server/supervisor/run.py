"""One run that this supervisor has: what it is made of, where it stands, what is to be recorded."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from kirby.core import db
from kirby.core.errors import WrongTransition
from kirby.server.locks import Lock
from kirby.server.supervisor.process import Exit, Process

LOAD = """
select r.id, r.deployment_id, r.version, r.environment_id, e.name as environment, j.name as job,
       l.filename, l.source, l.sha256, l.requirements, l.python, l.sdk_sha256
  from kirby.run r
  join kirby.environment e on e.id = r.environment_id
  join kirby.deployment d on d.id = r.deployment_id
  join kirby.job j on j.id = d.job_id
  join kirby.deployment_version v on v.deployment_id = r.deployment_id and v.version = r.version
  join kirby.release l on l.id = v.release_id
 where r.id = any(%s) and r.status = 'starting'
 order by r.id
"""
GIVE = """
insert into kirby.token (hash, environment_id, run_id, name) values (%s, %s, %s, %s)
"""
IS_MINE = "select true from kirby.run where id = %s and supervisor_id = %s and status = 'starting'"
RECORD = "select kirby.record_run(%s, %s, %s, p_supervisor_id => %s)"


@dataclass(frozen=True)
class Spec:
    """What a run is made of."""

    id: int
    deployment_id: int
    version: int
    environment_id: int
    environment: str
    job: str
    filename: str
    source: str
    sha256: str
    requirements: str
    python: str
    sdk_sha256: str | None

    @property
    def lock(self) -> Lock:
        return Lock(self.requirements, self.sdk_sha256, self.python)


@dataclass
class End:
    """What is recorded when the run's output is in the log."""

    type: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Run:
    """What the loop knows of a run."""

    spec: Spec
    process: Process | None = None
    started: bool = False  # and that is recorded
    cancelled: bool = False
    stopped: bool = False  # because the supervisor stops: it will be lost, and run again
    kill_at: float = 0.0  # on the monotonic clock; 0: it was not asked to end
    end: End | None = None
    shipped: bool = False  # all its output is in the log

    @property
    def id(self) -> int:
        return self.spec.id

    def end_of(self, exit: Exit) -> End:
        """What the end of its process means for the run."""
        data = {"exit_code": exit.code} if exit.signal is None else {"signal": exit.signal}
        if self.cancelled:
            return End("run_cancelled", data)
        if exit.code == 0:
            return End("run_succeeded", data)
        return End("run_failed", {**data, "reason": exit.reason})


def load(conn: db.Connection, ids: Sequence[int]) -> list[Run]:
    """Those of these runs that are to be started, with all that is needed for it."""
    with conn.cursor(row_factory=class_row(Spec)) as cursor:
        return [Run(spec) for spec in cursor.execute(LOAD, [list(ids)])]


def give_token(conn: db.Connection, spec: Spec, owner: uuid.UUID) -> str:
    """A token for the run; the database keeps its hash. Raises WrongTransition if the run was lost.

    The foreign key locks the run, so it cannot be taken away between the two statements; if it
    is taken away later, the token is there to be revoked.
    """
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).digest()
    with db.kirby_errors(), conn.transaction():
        conn.execute(GIVE, [digest, spec.environment_id, spec.id, f"run {spec.id}"])
        if not conn.execute(IS_MINE, [spec.id, owner]).fetchall():
            raise WrongTransition(f"run {spec.id} is not to be started any more")
    return token


def record(
    conn: db.Connection, run_id: int, type: str, data: dict[str, Any], owner: uuid.UUID
) -> None:
    """Take the run one step further. Raises WrongTransition, Fenced, Unavailable."""
    with db.kirby_errors():
        conn.execute(RECORD, [run_id, type, Jsonb(data), owner])
