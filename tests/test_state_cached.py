"""Cached computations: one of all processes computes, the others wait or take what there is."""

import threading
import time
from datetime import timedelta

import psycopg
import pytest
from fix_sdk import house_fixture, scripts_fixture, sdk_fixture, stop_after  # noqa: F401

import kirby
from kirby.core.errors import Invalid
from kirby.sdk import cached, session

costs = kirby.State("costs")


@pytest.fixture
def clock(sdk):
    """`clock("1 minute")`: every entry is as much older."""

    def later(interval):
        older = "update kirby.state_entry set updated_at = updated_at - %s::interval"
        sdk.conn.execute(older, [interval])

    return later


def test_a_result_is_computed_once_and_kept_under_its_key(sdk):
    calls = []

    @costs.cached("{carrier}/{month:02}")
    def cost(carrier, month=1, *, factor=2):
        """What it costs."""
        calls.append(carrier)
        return {"cost": len(carrier) * factor}

    assert cost("UA") == cost("UA", month=1) == {"cost": 4}
    assert cost("UA", 2) == {"cost": 4}
    assert calls == ["UA", "UA"]
    assert costs.items() == [("UA/01", {"cost": 4}), ("UA/02", {"cost": 4})]
    assert cost.key("UA") == "UA/01"
    assert cost.__doc__ == "What it costs."
    cost.forget("UA")
    assert "UA/01" not in costs
    cost("UA")
    assert len(calls) == 3
    assert sdk.ask("select 1 from kirby.flight") == []


def test_keys_of_all_arguments_and_by_a_function(sdk):
    @costs.cached()
    def one(a, b=2):
        return None

    @costs.cached(lambda a: f"my {a}")
    def other(a):
        return a

    assert one(1) is None
    assert one(1, b=3) is None
    assert other(5) == 5
    assert list(costs) == ["my 5", '{"a":1,"b":2}', '{"a":1,"b":3}']


@pytest.mark.parametrize("single_flight", [True, False])
def test_an_old_result_is_computed_again(sdk, clock, single_flight):
    results = iter(range(10))

    @costs.cached("k", ttl=timedelta(minutes=1), single_flight=single_flight)
    def number():
        return next(results)

    assert number() == number() == 0
    clock("59 seconds")
    assert number() == 0
    clock("2 seconds")
    assert number() == number() == 1
    assert [each.value for each in costs.history("k")] == [1, 0]


def test_an_error_is_the_caller_s_and_the_next_one_tries_again(sdk):
    results = iter([ZeroDivisionError("bad"), 5])

    @costs.cached("k")
    def number():
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    with pytest.raises(ZeroDivisionError):
        number()
    assert number() == 5


def test_a_result_that_is_no_json_is_refused(sdk):
    with pytest.raises(Invalid, match="the result of number cannot be stored"):
        costs.cached("k")(number)()
    assert sdk.ask("select 1 from kirby.flight") == []


def number():
    return {1, 2}


@pytest.mark.parametrize("ttl", ["1h", -1, True, float("inf")])
def test_a_bad_ttl_is_refused(ttl):
    with pytest.raises(Invalid, match=r"ttl is .*: seconds, or a timedelta"):
        costs.cached("k", ttl=ttl)


def test_what_is_async_is_refused():
    async def number():
        return 1

    with pytest.raises(Invalid, match="number is async: what is cached is a plain function"):
        costs.cached("k")(number)


def test_in_a_handler_it_is_written_at_once_and_the_handler_does_not_depend_on_it(sdk):
    kirby.topic("orders").publish(1)
    enough = stop_after(1)
    seen = []

    @costs.cached("k")
    def compute():
        return 7

    @kirby.stream("orders")
    def handle(value):
        seen.append(compute())
        assert sdk.ask("select value from state_dev.costs") == [(7,)]
        sdk.conn.execute(
            """select kirby.write('{}', '{"costs": [{"k": "k", "o": "set", "v": 8}]}')"""
        )
        seen.append(compute())
        kirby.topic("out").publish(seen[-1])
        enough()

    kirby.run()
    assert (seen, sdk.values("out")) == ([7, 8], [8])
    [message] = kirby.topic("orders").read()
    assert costs.history("k")[1].parents == (message.position,)


CROWD = """
    import time
    costs = kirby.state("costs")

    @costs.cached("{{key}}", ttl=1000)
    def slow(key):
        kirby.topic("computed").publish(os.getpid())
        time.sleep({seconds})
        return os.getpid()

    say("ready")
    sys.stdin.readline()
    say(slow("a"), slow("b"))
"""


def test_of_many_processes_one_computes_and_all_get_its_result(sdk, scripts):
    crowd = [scripts(CROWD.format(seconds=0.3)) for _ in range(4)]
    for script in crowd:
        script.line()
    for script in crowd:
        script.tell()
    said = {script.line() for script in crowd}
    assert [script.end() for script in crowd] == [(0, "")] * 4

    assert len(said) == 1
    assert len(sdk.values("computed")) == 2


def test_who_died_while_computing_is_given_up(sdk, scripts, monkeypatch, until):
    dead = scripts(CROWD.format(seconds=100))
    dead.line()
    dead.tell()
    until(lambda: sdk.values("computed"))
    dead.kill()
    sdk.conn.execute("update kirby.flight set until = now() + interval '0.5 seconds'")

    began = time.monotonic()
    assert costs.cached("{key}")(lambda key: 5)("a") == 5
    assert time.monotonic() - began > 0.2


def test_who_computes_for_long_keeps_the_right_to(sdk, monkeypatch, until):
    monkeypatch.setattr(cached, "LEASE", 0.3)
    go = threading.Event()
    calls = []

    @costs.cached("k")
    def slow():
        calls.append(1)
        go.wait(20)
        return 1

    threads = [threading.Thread(target=slow) for _ in range(2)]
    for thread in threads:
        thread.start()
    first = until(lambda: sdk.ask("select until from kirby.flight"))
    until(
        lambda: sdk.ask(
            "select 1 from kirby.flight where until > %s + interval '1 second'", *first[0]
        )
    )
    go.set()
    for thread in threads:
        thread.join()
    assert calls == [1]


def test_while_one_computes_the_others_may_take_an_old_result(sdk, clock, until):
    results = iter([1, 2])
    go = threading.Event()
    go.set()

    @costs.cached("k", ttl=60, stale=60)
    def slow():
        result = next(results)
        go.wait(20)
        return result

    assert slow() == 1
    clock("90 seconds")
    go.clear()
    got = []
    thread = threading.Thread(target=lambda: got.append(slow()))
    thread.start()
    until(lambda: sdk.ask("select 1 from kirby.flight"))
    assert slow() == 1  # at once
    go.set()
    thread.join()
    assert (got, slow()) == ([2], 2)
    with psycopg.connect(sdk.dsn) as conn:
        assert conn.execute("select 1 from kirby.flight").fetchall() == []


def test_in_a_folder_too(tmp_path, monkeypatch):
    monkeypatch.setenv("KIRBY_DSN", f"folder:{tmp_path}")
    session.close()
    calls = []

    @kirby.state("costs", columns={"n": "integer"}, index=["n"]).cached("{key}", ttl=60)
    def compute(key):
        calls.append(key)
        return {"n": 7}

    try:
        assert compute("a") == compute("a") == costs["a"] == {"n": 7}
        compute.forget("a")
        compute("a")
        assert calls == ["a", "a"]
    finally:
        session.close()
