"""From a claimed run to a started process: its virtualenv, script, folder, variables and token."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kirby.core import db
from kirby.core.errors import KirbyError
from kirby.server import variables as variables_of
from kirby.server.locks import Lock
from kirby.server.supervisor import entry, process, strays, values
from kirby.server.supervisor.errands import Errands
from kirby.server.supervisor.folder import Folder
from kirby.server.supervisor.process import Process
from kirby.server.supervisor.pump import Pump
from kirby.server.supervisor.run import Run, Spec, give_token
from kirby.server.supervisor.wake import Wake

FILE = "select string_agg(content, '' order by number) from kirby.file_chunk where sha256 = %s"
WHEELS = 4  # SDK wheels kept in memory

Ensure = Callable[[Lock, bytes | None], Path]


class Prepared(NamedTuple):
    """What a run needs on this host before it can start."""

    virtualenv: Path
    script: Path


class Starter:
    """Prepares runs in threads, since a virtualenv may take minutes, and starts their processes."""

    def __init__(
        self,
        folder: Folder,
        ensure: Ensure,
        worker_dsn: str,
        pump: Pump,
        wake: Wake,
        mark: str,
    ) -> None:
        self._folder = folder
        self._ensure = ensure
        self._worker_dsn = worker_dsn
        self._mark = mark
        self._pump = pump
        self._errands: Errands[Prepared] = Errands(wake)
        self._wheels: dict[str, bytes] = {}

    def prepare(self, conn: db.Connection, run: Run) -> None:
        """Begin to prepare a run; ``fetch`` tells when it is ready."""
        spec, wheel = run.spec, self._wheel(conn, run.spec.sdk_sha256)
        self._errands.send(spec.id, lambda: self._prepare(spec, wheel))

    def fetch(self) -> list[tuple[int, Prepared | Exception]]:
        """The runs that became ready since the last call, or what kept them from it."""
        return self._errands.fetch()

    def launch(self, conn: db.Connection, run: Run, ready: Prepared, owner: uuid.UUID) -> None:
        """Start the process. Raises WrongTransition when the run is not to be started any more."""
        spec = run.spec
        with db.kirby_errors():
            given = variables_of.effective(conn, spec.deployment_id, spec.version)
        token = give_token(conn, spec, owner)
        variables = process.variables(
            {name: variable.value for name, variable in given.items()},
            self._own_variables(spec, token),
            virtualenv=ready.virtualenv,
            server=os.environ,
        )
        arguments = entry.arguments(
            ready.virtualenv,
            script=ready.script,
            source=spec.source,
            entry=spec.entry,
            command=spec.command,
        )
        started, run.large = self._start(run.id, arguments, variables)
        run.process = started
        self._pump.attach(run.id, *started.output, hidden=token)

    def _start(self, run: Run, arguments: list[str], variables: dict[str, str]) -> dict[str, str]:
        """Start it; returns the variables that are too large for an environment."""
        small, large = values.split(variables)
        folder = self._folder.open_run(run.id)
        if not large:
            run.process = Process(arguments, small, folder)
            return {}
        fd = values.descriptor(large, run.id)
        try:
            small[values.VALUES_FD] = str(fd)
            run.process = Process(arguments, small, folder, [fd])
        finally:
            os.close(fd)
        return large

    def clear(self, run_id: int) -> None:
        """Remove the run's folder, in a thread."""
        self._errands.do(lambda: self._folder.close_run(run_id))

    def _own_variables(self, spec: Spec, token: str) -> dict[str, str]:
        return {
            "KIRBY_DSN": self._worker_dsn,
            "KIRBY_TOKEN": token,
            "KIRBY_ENVIRONMENT": spec.environment,
            "KIRBY_JOB": spec.job,
            "KIRBY_RUN": str(spec.id),
            strays.MARK: self._mark,
        }

    def _wheel(self, conn: db.Connection, sha256: str | None) -> bytes | None:
        if sha256 is None:
            return None
        if sha256 not in self._wheels:
            while len(self._wheels) >= WHEELS:
                del self._wheels[next(iter(self._wheels))]
            self._wheels[sha256] = bytes(db.scalar(conn, FILE, [sha256]))
        return self._wheels[sha256]

    def _prepare(self, spec: Spec, wheel: bytes | None) -> Prepared:
        """In a thread of its own."""
        try:
            virtualenv = self._ensure(spec.lock, wheel)
        except KirbyError as error:
            raise KirbyError(f"virtualenv: {error}") from error
        return Prepared(virtualenv, self._folder.script(spec.sha256, spec.filename, spec.source))
