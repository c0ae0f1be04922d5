"""What a supervisor that was killed left on disk: ship it if its runs may still be written to."""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from kirby.core import db
from kirby.core.errors import Fenced
from kirby.server.supervisor.lines import Lines, said
from kirby.server.supervisor.shipper import append, was_committed
from kirby.server.supervisor.spill import Part, Spill, runs_in

log = logging.getLogger("kirby.supervisor")

PIECE = 1_000_000  # bytes of a transaction
KILLED = "the supervisor was killed: lines before and after these may be missing"


class Leftovers:
    """``ship`` before a new supervisor registers on the folder: that takes the old one's runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._said: set[tuple[uuid.UUID, int]] = set()  # of which runs it is said

    def ship(self, conn: db.Connection, mine: uuid.UUID, is_stopping: Callable[[], bool]) -> None:
        """Write all that is left to the log, as its owners, and remove it.

        What belongs to a supervisor that lost its runs is only removed. Raises Unavailable; then
        the next call goes on. Each line is written once.
        """
        for folder in sorted(self._folder.glob("*")):
            owner = _owner(folder)
            if owner == mine or is_stopping():
                continue
            try:
                if owner is not None:
                    self._ship_of(conn, owner, folder, is_stopping)
            except Fenced:
                log.warning("output that supervisor %s left behind came too late", owner)
            if not is_stopping():
                shutil.rmtree(folder, ignore_errors=True)

    def _ship_of(
        self, conn: db.Connection, owner: uuid.UUID, folder: Path, is_stopping: Callable[[], bool]
    ) -> None:
        for run_id in runs_in(folder):
            spill = Spill.found(folder, run_id, lambda sent: was_committed(conn, sent))
            while not is_stopping() and (part := spill.read(PIECE)):
                lines = [*self._notice(owner, part), *part.lines]
                append(conn, owner, lines, part.mark)
                self._said.add((owner, run_id))
                spill.release(part)
            spill.leave()

    def _notice(self, owner: uuid.UUID, part: Part) -> list[Lines]:
        first = part.lines[0]
        if (owner, first.run_id) in self._said:
            return []
        return [said(first.run_id, "warning", KILLED, first.at or time.time())]


def _owner(folder: Path) -> uuid.UUID | None:
    try:
        return uuid.UUID(folder.name)
    except ValueError:
        return None
