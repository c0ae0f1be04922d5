"""One run that this supervisor has: what it is made of, where it stands, what is to be recorded."""

from __future__ import annotations

import hashlib
import math
import secrets
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from kirby.core import db
from kirby.core.errors import WrongTransition
from kirby.server.locks import Lock
from kirby.server.supervisor.process import Exit, Process

LOAD = """
select r.id, r.deployment_id, r.version, r.environment_id, e.name as environment, j.name as job,
       r.canary, r.shadow_id,
       l.id as release_id, l.kind, l.filename, l.source, l.sha256, l.requirements,
       l.name || ' ' || coalesce(l.version, left(l.sha256, 8)) as release,
       l.python, l.sdk_sha256, v.entry, v.command, v.timeout, v.grace, v.no_progress_timeout,
       coalesce((select jsonb_object_agg(f.filename, f.sha256) from kirby.release_file f
                  where f.release_id = l.id), '{}') as files
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
insert into kirby.token (hash, environment_id, run_id, name, canary) values (%s, %s, %s, %s, %s)
"""
IS_MINE = "select true from kirby.run where id = %s and supervisor_id = %s and status = 'starting'"
RECORD = "select kirby.record_run(%s, %s, %s, p_supervisor_id => %s)"


@dataclass(frozen=True)
class Spec:
    """What a run is made of. Times are in seconds; None: no limit.

    `kind`: script (`source` is its text) or package (`entry` or `command` says what is run).
    `files`: what its virtualenv is made of, the sha256 of each stored file by its name.
    """

    id: int
    deployment_id: int
    version: int
    environment_id: int
    environment: str
    job: str
    canary: bool
    shadow_id: int | None
    release_id: int
    release: str
    kind: str
    filename: str
    source: str | None
    sha256: str
    requirements: str
    python: str
    sdk_sha256: str | None
    entry: str
    command: list[str] | None
    timeout: float | None
    grace: float
    no_progress_timeout: float | None
    files: dict[str, str]

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
    """What the loop knows of a run. Moments are on the monotonic clock; 0: not yet, or never."""

    spec: Spec
    process: Process | None = None
    started: bool = False  # and that is recorded
    cancelled: bool = False
    timed_out: str = ""  # why
    stopped: bool = False  # because the supervisor stops: it will be lost, and run again
    began_at: float = 0.0
    heard_at: float = 0.0  # when it last said how far it is
    progress_at: datetime | None = None
    kill_at: float = 0.0
    killed: bool = False
    end: End | None = None
    shipped: bool = False  # all its output is in the log
    large: dict[str, str] = field(default_factory=dict)  # variables that no environment takes

    @property
    def id(self) -> int:
        return self.spec.id

    def ask_to_end(self, grace: float) -> None:
        """SIGTERM to all that it started in its group; SIGKILL is due after so many seconds."""
        if self.process is not None:
            self.process.signal(signal.SIGTERM)
            self.kill_at = time.monotonic() + grace

    def kill(self) -> None:
        if self.process is not None:
            self.process.signal(signal.SIGKILL)
        self.killed, self.kill_at = True, 0.0

    def tell(self, progress_at: datetime | None) -> bool:
        """Take note of when it last told its progress; whether that is news."""
        if progress_at == self.progress_at:
            return False
        self.progress_at, self.heard_at = progress_at, time.monotonic()
        return True

    def due_at(self, printed_at: float) -> float:
        """When the next thing is to be done to it. `printed_at`: when it last wrote anything."""
        return self.kill_at or min((at for at, _ in self._limits(printed_at)), default=math.inf)

    def overdue(self, now: float, printed_at: float) -> str:
        """Why it is to end now, once; empty if it may go on."""
        if self.timed_out or self.cancelled or self.stopped:
            return ""
        return next((why for at, why in self._limits(printed_at) if at <= now), "")

    def _limits(self, printed_at: float) -> Iterator[tuple[float, str]]:
        if self.process is None or self.end or self.timed_out or self.cancelled:
            return
        limit, silence = self.spec.timeout, self.spec.no_progress_timeout
        if limit is not None:
            yield self.began_at + limit, f"it ran longer than its timeout of {limit:g} s"
        if silence is not None:
            heard_at = max(self.began_at, self.heard_at, printed_at)
            yield heard_at + silence, f"no line and no progress for {silence:g} s"

    def end_of(self, exit: Exit) -> End:
        """What the end of its process means for the run."""
        data: dict[str, Any] = (
            {"exit_code": exit.code} if exit.signal is None else {"signal": exit.signal}
        )
        data |= self._used(exit)
        if self.cancelled:
            return End("run_cancelled", data)
        if self.timed_out:
            return End("run_timed_out", {**data, "reason": self.timed_out})
        if exit.code == 0:
            return End("run_succeeded", data)
        reason = "out of memory: " if data.get("out_of_memory") else ""
        return End("run_failed", {**data, "reason": f"{reason}{exit.reason}"})

    def _used(self, exit: Exit) -> dict[str, Any]:
        """Figures, and whether the kernel killed it for want of memory (a shell says 137)."""
        if self.process is None:
            return {}
        meter = self.process.meter
        used: dict[str, Any] = {
            "peak_memory": meter.peak_memory or None,
            "cpu_seconds": round(meter.cpu_seconds, 3),
        }
        is_killed = exit.signal == signal.SIGKILL or exit.code == 128 + signal.SIGKILL
        if is_killed and not self.killed and meter.was_out_of_memory():
            used["out_of_memory"] = True
        return used


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
        name = f"run {spec.id}"
        conn.execute(GIVE, [digest, spec.environment_id, spec.id, name, spec.canary])
        if not conn.execute(IS_MINE, [spec.id, owner]).fetchall():
            raise WrongTransition(f"run {spec.id} is not to be started any more")
    return token


def record(
    conn: db.Connection, run_id: int, type: str, data: dict[str, Any], owner: uuid.UUID
) -> None:
    """Take the run one step further. Raises WrongTransition, Fenced, Unavailable."""
    with db.kirby_errors():
        conn.execute(RECORD, [run_id, type, Jsonb(data), owner])
