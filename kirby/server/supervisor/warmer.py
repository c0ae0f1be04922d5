"""Have the virtualenvs of what is deployed before a run needs them, and room on the disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from kirby.core import db
from kirby.core.errors import KirbyError, Unavailable
from kirby.server import releases
from kirby.server.releases import Deployed
from kirby.server.supervisor.beside import Beside
from kirby.server.virtualenvs import Virtualenvs

log = logging.getLogger("kirby.supervisor")

LOOK = 30.0  # seconds between two looks if nobody says that something was deployed
PAUSE = 1.0  # at least
PRUNE = 600.0
AGAIN = 600.0  # until a virtualenv that could not be built is tried again; a run tries at once


class Warmer(Beside):
    """What it misses, a run does for itself. A build that is under way when it stops is left
    half-built; the next start removes it.

    `budget`: how many bytes all virtualenvs may take together. `labels` are those of the host.
    """

    def __init__(
        self, dsn: str, virtualenvs: Virtualenvs, budget: int, labels: Sequence[str] = ()
    ) -> None:
        super().__init__(dsn, "virtualenvs")
        self._dsn = dsn
        self._virtualenvs = virtualenvs
        self._budget = budget
        self._labels = labels
        self._failed: dict[str, float] = {}
        self._prune_at = 0.0

    def round(self) -> None:
        """Build what is missing, and make room if that is due. Raises Unavailable."""
        with self._link.use() as conn:
            found = releases.deployed(conn, self._labels)
        built = [each for each in found if each.is_current and self._warm(each)]
        if built or time.monotonic() >= self._prune_at:
            self._prune(found)

    def _warm(self, each: Deployed) -> bool:
        """Whether it was built now."""
        lock = each.lock
        if self._stopping.is_set() or self._virtualenvs.is_ready(lock):
            return False
        if time.monotonic() < self._failed.get(lock.hash, 0.0):
            return False
        try:
            with self._virtualenvs.hold(lock):
                fetch = releases.fetcher(self._dsn, each.files, each.sdk_sha256)
                self._virtualenvs.ensure(lock, fetch)
        except Unavailable:
            raise
        except KirbyError as error:
            log.warning("the virtualenv of release %s cannot be built: %s", each.id, error)
            self._failed[lock.hash] = time.monotonic() + AGAIN
            return False
        log.info("built the virtualenv of release %s", each.id)
        return True

    def _prune(self, found: Sequence[Deployed]) -> None:
        self._prune_at = time.monotonic() + PRUNE
        keep = {each.lock.hash for each in found}
        for name in self._virtualenvs.prune(self._budget, keep):
            log.info("removed the virtualenv %s, which was not used for longest", name)

    def _run(self) -> None:
        while not self._stopping.is_set():
            wait = PAUSE
            try:
                self.round()
                wait = LOOK
            except Unavailable:
                pass  # the link says so, once
            except KirbyError as error:
                log.warning("%s", error)
            except Exception:  # one bad round must not be the last
                log.exception("preparing virtualenvs stumbled")
            self._wait(wait)
        self._link.drop()

    def _wait(self, seconds: float) -> None:
        """Until a deploy says so, or for so long; never less than a moment."""
        until = time.monotonic() + seconds
        self._stopping.wait(PAUSE)
        while time.monotonic() < until and not self._stopping.is_set():
            if self._link.connection is None or self._heard(self._link.connection):
                return

    def _heard(self, conn: db.Connection) -> bool:
        try:
            with self._link.use():
                return bool(db.wait(conn, PAUSE))
        except Unavailable:
            return True

    def _prepare(self, conn: db.Connection) -> None:
        super()._prepare(conn)
        db.hear(conn, "kirby_run")
