"""Random exceptions, changes and ends against a naive model: which ticks run."""

import os
from datetime import UTC, datetime, timedelta

import psycopg
from fix_schedules import House
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

BEGIN = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
ANCHOR = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = 8
EXAMPLES = int(os.environ.get("KIRBY_TEST_EXAMPLES", "12"))

minutes = st.integers(1, HOURS * 60 - 1)
effects = st.one_of(
    st.just({"effect": "pause"}),
    st.just({"effect": "manual"}),
    st.builds(lambda n: {"effect": "skip", "most": n}, st.integers(1, 5)),
    st.builds(
        lambda n, per: {"effect": "rate", "most": n, "per": per * 60},
        st.integers(1, 3),
        st.sampled_from([30, 60, 90]),
    ),
    st.builds(
        lambda every: {
            "effect": "schedule",
            "schedules": [f"every {every}m"],
            "density": 40320 / every,
        },
        st.sampled_from([20, 35, 50, 120]),
    ),
)
add = st.tuples(st.just("add"), effects, st.integers(2, 300))
end = st.tuples(st.just("end"), st.integers(0, 5), st.none())
move = st.tuples(st.just("move"), st.integers(0, 5), st.integers(2, 200))
acts = st.lists(st.tuples(minutes, st.one_of(add, add, end, move)), min_size=1, max_size=8)


class Model:
    """What is in force is looked up in a list; every instant is decided in its turn."""

    def __init__(self):
        self.exceptions = []
        self.ran, self.own = [], []

    def at(self, now):
        found = [x for x in self.exceptions if x["from"] <= now < x["until"]]
        order = ["pause", "manual", "skip", "schedule", "rate"]
        return sorted(found, key=lambda x: (order.index(x["effect"]), x.get("density", 0), x["n"]))

    def decide(self, now):
        own = now.minute % 10 == 0
        named, replaced, held = own, False, False
        for x in self.at(now):
            if x["effect"] in ("pause", "manual"):
                held = True
            elif x["effect"] == "skip":
                held |= sum(x["from"] <= at < now for at in self.own) < x["most"]
            elif x["effect"] == "schedule" and not replaced:
                replaced, every = True, int(x["schedules"][0][6:-1])
                named = (now - ANCHOR) % timedelta(minutes=every) == timedelta(0)
            elif x["effect"] == "rate":
                since = now - timedelta(seconds=x["per"])
                held |= sum(since < at < now for at in self.ran) >= x["most"]
        if named and not held:
            self.ran.append(now)
        if own:
            self.own.append(now)


def act(house, model, what, first, second):
    now = house.now()
    if what == "add":
        until = now + timedelta(minutes=second)
        house.add(scope="job", target="poll", until_at=until.isoformat(), **first)
        model.exceptions.append({**first, "from": now, "until": until, "n": len(model.exceptions)})
        return
    if not model.exceptions:
        return
    number = first % len(model.exceptions)
    chosen = model.exceptions[number]
    if chosen["until"] <= now:
        return
    id = house.ask("select id from kirby.schedule_exception order by id")[number]["id"]
    if what == "end":
        house.ask("select kirby.end_exception(%s, 'bob')", id)
        chosen["until"] = now
    else:
        chosen["until"] = now + timedelta(minutes=second)
        document = Jsonb({"until_at": chosen["until"].isoformat()})
        house.ask("select kirby.change_exception(%s, %s, 'bob')", id, document)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(plan=acts)
def test_what_runs_is_what_a_naive_look_at_all_exceptions_says(shared_dsn, plan):
    with (
        psycopg.connect(shared_dsn, autocommit=True) as conn,
        conn.transaction(force_rollback=True),
    ):
        house, model = House(conn), Model()
        house.set(BEGIN.replace(tzinfo=None).isoformat())
        poll = house.schedule("*/10 * * * *", name="poll")
        at = BEGIN
        stop = BEGIN + timedelta(hours=HOURS)
        for minute, what in [*sorted(plan, key=lambda each: each[0]), (HOURS * 60, None)]:
            goal = min(BEGIN + timedelta(minutes=minute), stop)
            house.go(goal)
            while (at := (at + timedelta(minutes=1)).replace(second=0)) <= goal:
                model.decide(at)
            at -= timedelta(minutes=1)
            if what:
                act(house, model, *what)

        assert [tick["at"].astimezone(UTC) for tick in house.ticks(poll, "queued")] == model.ran
