"""A batch is settled while the next one is handled already: quicker, and nothing else changes."""

import collections
import threading

import pytest
from fix_sdk import house_fixture, scripts_fixture  # noqa: F401

from kirby.sdk.behind import Behind

WORKER = """
    loop.AHEAD, loop.WORTH, loop.MUCH = 1, -1.0, 10.0  # always
    loop.FIRST_LIMIT = 8
    loop.Server._adapt = lambda *_: None
    loop.POLL = 0.2
    seen = set()

    @kirby.stream("inputs", to="outputs")
    def handle(value, message: kirby.Message):
        held = servers[0].consumer._all() if servers else []
        if len(held) > 1 and "two" not in seen:
            seen.add("two")
            say("two at once")
        return value

    servers = []
    make = loop.Server.__init__
    def init(self, *rest):
        servers.append(self)
        make(self, *rest)
    loop.Server.__init__ = init
    kirby.run()
"""
KEYS = 20


def publish(house, first, count):
    house.conn.execute(
        "select kirby.publish('inputs', to_jsonb(n), key => (n %% %s)::text)"
        "  from generate_series(%s::int, %s::int) n",
        [KEYS, first, first + count - 1],
    )


def faults(house, count):
    found = house.values("outputs")
    wrong = [f"{n} twice" for n, times in collections.Counter(found).items() if times > 1]
    wrong += [f"{n} is missing" for n in range(count) if n not in set(found)]
    for key in range(KEYS):
        mine = [n for n in found if n % KEYS == key]
        if mine != sorted(mine):
            wrong.append(f"key {key} is out of order")
    return wrong


@pytest.mark.parametrize("blow", ["none", "kill", "cut"])
def test_nothing_is_lost_doubled_or_out_of_order(house, scripts, until, blow):
    workers = [scripts(WORKER, LEASE="1") for _ in range(2)]
    for part in range(6):
        publish(house, part * 500, 500)
        until(lambda part=part: len(house.values("outputs")) > part * 500 + 100, timeout=30)
        if blow == "kill":
            workers[part % 2].kill()
            workers[part % 2] = scripts(WORKER, LEASE="1")
        elif blow == "cut":
            house.terminate()
    until(lambda: len(house.values("outputs")) >= 3000, timeout=60)
    assert faults(house, 3000) == []
    if blow == "none":
        assert [worker.line() for worker in workers] == ["two at once"] * 2


def test_asked_to_stop_nothing_stays_claimed(house, scripts, until):
    worker = scripts(WORKER)
    publish(house, 0, 2000)
    until(lambda: len(house.values("outputs")) > 100, timeout=30)
    worker.signal()
    assert worker.end() == (0, "")
    assert house.ask("select * from kirby.claim where lease_until > '-infinity'") == []
    scripts(WORKER)
    until(lambda: len(house.values("outputs")) >= 2000, timeout=30)
    assert faults(house, 2000) == []


def test_what_it_raised_is_raised_by_whoever_asks():
    def act():
        raise ValueError("boom")

    behind = Behind(act)
    with pytest.raises(ValueError, match="boom"):
        behind.result()


def test_its_own_thread_does_not_wait_for_itself():
    ready = threading.Event()
    made = []

    def act():
        ready.wait(5)
        made[0].wait()
        return "done"

    made.append(Behind(act))
    ready.set()
    assert made[0].result() == "done"
