"""What `kirby schedule show` says is what then happens."""

import json
import random
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from fix_schedules import House

from kirby.core.errors import Invalid, NotFound
from kirby.server import database, previews

BEGIN = datetime(2026, 11, 20, 12, tzinfo=UTC)
EFFECTS = (
    {"effect": "pause"},
    {"effect": "manual", "on_return": "run_once"},
    {"effect": "pause", "on_return": "run_once"},
    {"effect": "schedule", "schedules": ["*/50 * * * *"], "density": 800},
    {"effect": "schedule", "schedules": ["every 2h"], "density": 300},
    {"effect": "rate", "most": 2, "per": 7200},
    {"effect": "skip", "most": 3},
)


@pytest.fixture
def house(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield House(conn)


@pytest.fixture
def conn(house, dsn):
    engine = database.engine(dsn)
    with database.unit(engine) as conn:
        yield conn
    engine.dispose()


def told(found):
    return [(f"{tick.at.astimezone(UTC):%a %H:%M}", tick.decision) for tick in found]


def test_the_next_ticks_with_what_holds_them(house, conn):
    house.schedule("0 * * * *")
    house.add(scope="job", target="report", until_at="2026-11-20T14:30Z",
              from_at="2026-11-20T12:30Z", reason="source is broken")  # fmt: skip

    found = previews.preview(conn, "dev", "report", n=3)

    assert told(found) == [("Fri 13:00", "skip"), ("Fri 14:00", "skip"), ("Fri 15:00", "run")]
    assert "source is broken" in found[0].reason


def test_it_looks_farther_than_what_is_planned_and_changes_nothing(house, conn):
    job = house.schedule("0 * * * *")
    before, position = house.ticks(job), house.value("select count(*) from kirby.job_event")

    found = previews.preview(conn, "dev", "report", n=100)

    assert len(found) == 100
    assert found[-1].at == BEGIN + timedelta(hours=100)
    assert house.ticks(job) == before
    assert house.value("select count(*) from kirby.job_event") == position


def test_what_became_of_those_before(house, conn):
    house.schedule("0 * * * *")
    house.add(scope="job", target="report", until_at="2026-11-20T13:30Z",
              from_at="2026-11-20T12:30Z")  # fmt: skip
    house.go("2026-11-20T14:30")

    held, ran = previews.history(conn, "dev", "report", BEGIN)

    assert (held.decision, held.run_id) == ("skip", None)
    assert ran.decision == "run"
    assert ran.run_id


def test_what_is_asked_wrongly_is_one_line(house, conn):
    house.schedule("0 * * * *")
    with pytest.raises(NotFound, match="no job nothing in dev"):
        previews.preview(conn, "dev", "nothing")
    with pytest.raises(Invalid, match="from 1 to 1,000"):
        previews.preview(conn, "dev", "report", n=0)


@pytest.mark.parametrize("seed", range(8))
def test_what_it_says_is_what_then_happens(house, conn, seed):
    chance = random.Random(seed)
    job = house.schedule("*/20 * * * *", jitter=chance.choice([0, 300]))
    for _ in range(chance.randint(1, 4)):
        begin = BEGIN + timedelta(minutes=chance.randint(1, 500))
        end = begin + timedelta(minutes=chance.randint(5, 400))
        house.add(scope="job", target="report", from_at=begin.isoformat(),
                  until_at=end.isoformat(), **chance.choice(EFFECTS))  # fmt: skip
    house.go(timedelta(minutes=chance.randint(0, 200)))
    begin = house.now()

    said = [(tick.at, tick.decision, tick.reason)
            for tick in previews.preview(conn, "dev", "report", n=60)]  # fmt: skip
    house.go(said[-1][0] + timedelta(hours=1))

    fates = {"queued": "run", "skipped": "skip"}
    happened = [(tick["at"], fates[tick["status"]], tick["reason"] or "")
                for tick in house.ticks(job) if begin < tick["at"] <= said[-1][0]]  # fmt: skip
    assert happened == said


def test_the_command(house, kirby):
    house.schedule("0 * * * *")
    house.go("2026-11-20T13:30")

    [tick, _] = json.loads(kirby("schedule", "show", "report", "-n", "2", "--json").out)["ticks"]
    assert (tick["at"][:16], tick["decision"]) == ("2026-11-20T14:00", "run")
    past = kirby("schedule", "show", "report", "--since", "2026-11-20T12:00").out
    assert "2026-11-20 13:00:00" in past
    assert "run 1" in past
    assert "no job nothing in dev" in kirby("schedule", "show", "nothing").err
