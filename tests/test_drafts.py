"""What a draft shows is what is planned once it is deployed."""

from datetime import timedelta

import pytest
from fix_schedules import house_fixture  # noqa: F401

from kirby.core.errors import Invalid
from kirby.server import drafts, exclusions
from kirby.server.exclusions import Calendars

LINES = ("30 2 * * *", "every 7h", "*/45 3 * * *")


def test_a_draft_shows_what_is_planned_then(house):
    house.conn.execute("insert into kirby.calendar (name, days, updated_by)"
                       " values ('feasts', '[\"2027-03-28\"]', 'test')")  # fmt: skip
    house.set("2027-03-27T12:00")
    feasts = Calendars((exclusions.of("feasts", "", ["2027-03-28"], []),))
    draft = drafts.draft(LINES, "Europe/Brussels", house.now(), 10, excluding=feasts, jitter=600,
                         deployment="dev/report")  # fmt: skip

    report = house.schedule(*LINES, tz="Europe/Brussels", exclude=["feasts"], jitter=600)

    planned = [(t["at"], t["fire_at"], t["note"], t["excluded"] or "") for t in house.ticks(report)]
    shown = [(t.at, t.starts, t.note, t.excluded) for t in draft.ticks]
    assert len(planned) >= 5
    assert shown[: len(planned)] == planned[:10]
    assert {excluded for *_, excluded in planned} == {"", "feasts: 2027-03-28"}
    assert all(timedelta(0) < t.starts - t.at < timedelta(minutes=10) for t in draft.ticks)
    assert any(t.note.startswith("shifted") for t in draft.ticks)


@pytest.mark.parametrize("n", [0, 1001])
def test_a_preview_has_an_end(house, n):
    with pytest.raises(Invalid, match="from 1 to 1,000 ticks"):
        drafts.draft(["@daily"], "UTC", house.now(), n)
