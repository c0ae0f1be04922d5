"""From a claimed run to a started process: its virtualenv, script, folder, variables and token."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from kirby.core import db
from kirby.core.errors import KirbyError, Unavailable
from kirby.server import releases
from kirby.server import variables as variables_of
from kirby.server.locks import Lock
from kirby.server.supervisor import entry, process, strays, values
from kirby.server.supervisor.errands import Errands
from kirby.server.supervisor.folder import Folder
from kirby.server.supervisor.process import Process
from kirby.server.supervisor.pump import Pump
from kirby.server.supervisor.run import Run, Spec, give_token
from kirby.server.supervisor.wake import Wake
from kirby.server.virtualenvs import Fetch

PATIENCE = 600.0  # seconds that preparing a run waits for a database that went away
PAUSE = 1.0
TELLING = 8  # characters of a password that is looked for in what a run writes

Ensure = Callable[[Lock, Fetch | None], Path]
Hold = Callable[[Lock], IO[str]]


class Prepared(NamedTuple):
    """What a run needs on this host before it can start. `held` keeps its virtualenv there."""

    virtualenv: Path
    script: Path | None
    held: IO[str] | None = None


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
        *,
        dsn: str,
        hold: Hold | None = None,
    ) -> None:
        self._folder = folder
        self._ensure, self._hold = ensure, hold
        self._dsn = dsn
        self._worker_dsn = worker_dsn
        self._passwords = _passwords(worker_dsn)
        self._mark = mark
        self._pump = pump
        self._errands: Errands[Prepared] = Errands(wake)
        self._held: dict[int, IO[str]] = {}

    def prepare(self, run: Run) -> None:
        """Begin to prepare a run; ``fetch`` tells when it is ready."""
        spec = run.spec
        self._errands.send(spec.id, lambda: self._prepare(spec))

    def fetch(self) -> list[tuple[int, Prepared | Exception]]:
        """The runs that became ready since the last call, or what kept them from it."""
        found = self._errands.fetch()
        for run_id, result in found:
            if isinstance(result, Prepared) and result.held:
                self._held[run_id] = result.held
        return found

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
        run.process, run.large = self._start(run.id, arguments, variables)
        self._pump.attach(run.id, *run.process.output, hidden=[token, *self._passwords])

    def _start(
        self, run_id: int, arguments: list[str], variables: dict[str, str]
    ) -> tuple[Process, dict[str, str]]:
        """The started process, and the variables that are too large for an environment."""
        small, large = values.split(variables)
        folder = self._folder.open_run(run_id)
        if not large:
            return Process(arguments, small, folder), large
        fd = values.descriptor(large, run_id)
        try:
            small[values.VALUES_FD] = str(fd)
            return Process(arguments, small, folder, [fd]), large
        finally:
            os.close(fd)

    def clear(self, run_id: int) -> None:
        """Remove the run's folder, in a thread; its virtualenv may be removed as well."""
        if held := self._held.pop(run_id, None):
            held.close()
        self._errands.do(lambda: self._folder.close_run(run_id))

    def _own_variables(self, spec: Spec, token: str) -> dict[str, str]:
        return {
            "KIRBY_DSN": self._worker_dsn,
            "KIRBY_TOKEN": token,
            "KIRBY_ENVIRONMENT": spec.environment,
            "KIRBY_JOB": spec.job,
            "KIRBY_RUN": str(spec.id),
            "KIRBY_RELEASE": spec.release,
            strays.MARK: self._mark,
            **({} if spec.shadow_id is None else {"KIRBY_SHADOW": str(spec.shadow_id)}),
        }

    def _prepare(self, spec: Spec) -> Prepared:
        """In a thread of its own."""
        fetch = releases.fetcher(self._dsn, spec.files, spec.sdk_sha256)
        held = self._hold(spec.lock) if self._hold else None  # first: it may be removed just now
        try:
            return Prepared(self._virtualenv(spec, fetch), self._script(spec), held)
        except BaseException:
            if held:
                held.close()
            raise

    def _virtualenv(self, spec: Spec, fetch: Fetch) -> Path:
        """A database that goes away meanwhile is no fault of the run: it waits for it."""
        give_up_at = time.monotonic() + PATIENCE
        while True:
            try:
                return self._ensure(spec.lock, fetch)
            except KirbyError as error:
                if not isinstance(error, Unavailable) or time.monotonic() > give_up_at:
                    raise KirbyError(f"virtualenv: {error}") from error
            time.sleep(PAUSE)

    def _script(self, spec: Spec) -> Path | None:
        """A package has none."""
        if spec.source is None:
            return None
        return self._folder.script(spec.sha256, spec.filename, spec.source)


def _passwords(dsn: str) -> list[str]:
    """What of a DSN is to be kept out of logs: a script may print its variables."""
    try:
        given = str(conninfo_to_dict(dsn).get("password") or "")
    except psycopg.ProgrammingError:
        return []
    return [given] if len(given) >= TELLING else []
