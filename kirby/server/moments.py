"""Points of the log as people write them: a time, how long ago, or a position."""

from __future__ import annotations

from datetime import UTC, datetime

from kirby.core.errors import Invalid
from kirby.server import spans

Moment = int | datetime

HIGHEST = 2**63 - 1


def parse(text: str, now: datetime) -> Moment | None:
    """``2h`` (ago), ``2027-03-28T01:00`` (UTC if it names no zone), ``4711``; None: now.

    Nothing and ``now`` are now. Raises Invalid in one line.
    """
    given = text.strip().removesuffix(" ago").strip()
    if given in ("", "now"):
        return None
    if given.isascii() and given.isdigit():
        return _position(given)
    if spans.WRITTEN.fullmatch(given):
        return _before(now, given)
    return _time(given)


def written(point: Moment | None) -> str:
    """A point so that ``parse`` reads the same one again; "" for now."""
    if point is None:
        return ""
    if isinstance(point, int):
        return str(point)
    return point.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _position(given: str) -> int:
    if len(given) > 19 or int(given) > HIGHEST:
        raise Invalid(f"{given[:30]} is beyond every position")
    return int(given)


def _before(now: datetime, given: str) -> datetime:
    try:
        span = spans.parse(given)
        return now if span is None else now - span
    except OverflowError:
        raise Invalid(f"{given} ago is before the calendar begins") from None


def _time(given: str) -> datetime:
    try:
        at = datetime.fromisoformat(given)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(
            f"{given[:40]!r} is no time and no position: write it like 2h, 2027-03-28T01:00 or 4711"
        ) from None
