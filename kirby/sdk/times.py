"""When a task may begin: by the clock of the database, which is the only one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kirby.core import tasks
from kirby.core.errors import Invalid
from kirby.sdk import session

MAX_SECONDS = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Times:
    """When a task may begin, by the clock of the database."""

    deliver_at: datetime | None = None
    expires_at: datetime | None = None

    @classmethod
    def of(
        cls, countdown: float | None, eta: datetime | None, expires: float | datetime | None
    ) -> Times:
        """Raises Invalid for two beginnings, and for what is no time."""
        if countdown is not None and eta is not None:
            raise Invalid("countdown and eta are two answers to one question: give one of them")
        if countdown is None and (expires is None or isinstance(expires, datetime)):
            return cls(eta, expires) if eta or expires else NEVER
        mine = session.get()
        now = mine.ask(lambda: tasks.now(mine.connection))
        deliver_at = eta if countdown is None else now + _seconds("countdown", countdown)
        if expires is not None and not isinstance(expires, datetime):
            expires = now + _seconds("expires", expires)
        return cls(deliver_at, expires)


NEVER = Times()


def _seconds(what: str, value: Any) -> timedelta:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not 0 <= value <= MAX_SECONDS:
        raise Invalid(f"{what} is {value!r}: from 0 seconds to a year")
    return timedelta(seconds=value)
