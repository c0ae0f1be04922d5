"""Tasks: what is sent is done once, its answer is kept, its failures are tried again."""

import asyncio
import datetime
import re
import threading
import time

import psycopg
import pytest
from fix_sdk import (  # noqa: F401
    house_fixture,
    scripts_fixture,
    sdk_fixture,
    stop_after,
)
from fix_subscription import CLOCK

import kirby
from kirby.core.errors import Invalid, NotFound
from kirby.sdk import limits, loop, tasks

# Retries at once: their pause is a matter of SQL (tests/test_retries.py).
NO_PAUSE = """
    create or replace function kirby.retry_pause(p_attempt integer) returns interval
      language sql as $$ select interval '0' $$
"""


@pytest.fixture(autouse=True)
def no_pause(house):
    house.conn.execute(NO_PAUSE)


@pytest.fixture
def later(house):
    """`later("1 minute")`: let so much time pass for the database."""
    house.conn.execute(CLOCK)
    return lambda interval: house.conn.execute(
        "update kirby.test_clock set shift = shift + %s::interval", [interval]
    )


@pytest.fixture
def work(monkeypatch):
    """`work()`: serve the tasks and streams of this process until there is nothing to do now."""

    def idle(mine, stop, *_):
        stop.asked = True

    def serve():
        monkeypatch.setattr(loop, "idle", idle)
        kirby.run()

    return serve


@pytest.fixture
def serving(monkeypatch):
    """Serve in another thread until the test is over."""
    stops = []

    def idle(mine, stop, *_):
        stops.append(stop)
        stop.asked = stop.asked or over.wait(0.01)

    over = threading.Event()
    monkeypatch.setattr(loop, "idle", idle)
    thread = threading.Thread(target=kirby.run)
    yield thread.start
    over.set()
    if thread.ident:
        thread.join(20)


def declare(function=None, /, **options):
    """A task of this test: its name is short."""
    if function is None:
        return lambda function: declare(function, **options)
    return kirby.task(name=function.__name__, **options)(function)


def parked(house):
    return house.ask(
        "select m.payload ->> 'id', d.attempt from kirby.due d"
        " join kirby.message m on m.position = d.position where d.parked_at is not null"
    )


# Sending and answering


def test_a_task_is_done_elsewhere_and_its_value_comes_back(sdk, serving):
    @declare
    def add(a, b=0):
        return {"sum": a + b}

    sent = add.delay(1, b=2)
    assert (sent.status, sent.ready()) == ("pending", False)
    serving()

    assert sent.get(timeout=20) == {"sum": 3}
    assert (sent.status, sent.ready()) == ("succeeded", True)
    assert kirby.result(add, sent.id).get() == kirby.result("add", sent.id).get() == {"sum": 3}


def test_the_function_is_still_that_function(sdk):
    @kirby.task
    def double(value):
        """Twice as much."""
        return 2 * value

    assert double(2) == 4
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")
    assert double.name == "test_tasks.double"
    assert sdk.values("task.test_tasks.double") == []


def test_the_answer_is_a_message_in_the_transaction_of_its_acknowledgement(sdk, work):
    @declare
    def bill(value):
        kirby.topic("invoices").publish(value)
        kirby.state("last")["value"] = value
        return value

    sent = bill.delay(7)
    work()

    [answer] = kirby.topic("task.bill.results").read()
    [task] = kirby.topic("task.bill").read()
    assert answer.value == {"id": sent.id, "status": "succeeded", "value": 7}
    assert answer.parents == (task.position,)
    rows = sdk.ask(
        "select m.xmin::text from kirby.message m join kirby.topic t on t.id = m.topic_id"
        " where t.name in ('task.bill.results', 'invoices')"
        " union select xmin::text from kirby.state_mutation"
    )
    assert len(rows) == 1


def test_without_a_result_nothing_is_kept(sdk, work):
    seen = []

    @declare(result=False)
    def note(value):
        seen.append(value)
        return value

    sent = note.delay(1)
    work()

    assert seen == [1]
    assert sent.get(timeout=0) is None
    assert sdk.values("task.note.results") == []


def test_many_are_sent_in_one_transaction_a_page_each(sdk, work):
    @declare
    def square(value):
        return value * value

    @declare
    def power(base, exponent):
        return base**exponent

    sent = square.map(range(2500))
    powers = power.starmap([(2, 3), (3, 2)], priority=9)
    assert square.map([]) == []
    work()

    assert [each.get(timeout=0) for each in sent[::500]] == [(n * 500) ** 2 for n in range(5)]
    assert [each.get(timeout=0) for each in powers] == [8, 9]
    assert len(sdk.ask(
        "select distinct m.xmin::text from kirby.message m join kirby.topic t on t.id = m.topic_id"
        " where t.name = 'task.square'"
    )) == 1  # fmt: skip
    assert len(sdk.values("task.square.results")) == 2500


def test_a_task_is_sent_with_its_unit_of_work_or_not_at_all(sdk, work):
    @declare
    def bill(value):
        return value

    with kirby.transaction():
        sent = bill.delay(1)
        assert sdk.values("task.bill") == []
        with pytest.raises(Invalid, match="cannot be waited for in it"):
            sent.get(timeout=1)
        assert sent.status == "unknown"
    with pytest.raises(ZeroDivisionError), kirby.transaction():
        bill.delay(1 / 0 if bill.delay(2) else 0)
    work()

    assert sent.get() == 1
    assert [task["args"] for task in sdk.values("task.bill")] == [[1]]


def test_a_handler_sends_tasks_with_its_acknowledgement(sdk, work):
    kirby.topic("orders").publish(3)

    @declare
    def bill(value):
        return value

    @kirby.stream("orders")
    def order(value):
        bill.map(range(value))

    work()
    work()

    assert sorted(answer["value"] for answer in sdk.values("task.bill.results")) == [0, 1, 2]


def test_a_task_sent_on_a_connection_commits_with_its_rows(sdk, work):
    @declare
    def bill(value):
        return value

    with psycopg.connect(sdk.dsn) as conn:
        conn.execute("create table public.orders (id integer)")
        conn.execute("insert into public.orders values (1)")
        sent = bill.apply_async([1], connection=conn)
        with pytest.raises(kirby.Timeout, match=r"task bill \w+ is unknown after 0 s"):
            sent.get(timeout=0)
        conn.commit()
        gone = bill.apply_async([2], connection=conn)
        conn.rollback()
    work()

    assert sent.get(timeout=0) == 1
    assert gone.status == "unknown"
    topic = sdk.ask("select bands, lanes from kirby.topic where name = 'task.bill'")
    assert topic == [(3, 24)]


def test_the_same_id_is_the_same_task(sdk, work):
    seen = []

    @declare
    def bill(value):
        seen.append(value)

    first = bill.apply_async(["a"], id="order-1")
    again = bill.apply_async(["b"], id="order-1")
    work()
    assert bill.apply_async(["c"], id="order-1").status == "succeeded"
    work()

    assert seen == ["a"]
    assert first == again == kirby.result("bill", "order-1")
    assert hash(first) == hash(again)
    assert repr(first) == "kirby.result('bill', 'order-1')"


def add(a, b=0, *, c=1):
    pass


def anything(*args, **kwargs):
    pass


def needs_keyword(a, *, b):
    pass


def with_message(a, message: kirby.Message, b=0):
    pass


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "complaint"),
    [
        (add, (), {}, r"task add\(a, b=0, \*, c=1\) cannot be called so: missing a required argu"),
        (add, (1, 2, 3), {}, "too many positional arguments"),
        (add, (1,), {"d": 1}, "got an unexpected keyword argument 'd'"),
        (add, (1,), {"a": 1}, "multiple values for argument 'a'"),
        (needs_keyword, (1,), {}, "missing a required"),
        (with_message, (), {}, r"task with_message\(a, b=0\) cannot be called so"),
        (with_message, (1,), {"message": 1}, "unexpected keyword argument 'message'"),
        (anything, ({1},), {}, r"cannot be stored: value\['args'\]\[0\] is of type set"),
        (anything, (), {"a": b"x"}, r"value\['kwargs'\]\['a'\] is of type bytes"),
    ],
)
def test_arguments_are_checked_where_they_are_sent(sdk, function, args, kwargs, complaint):
    task = declare(function)

    with pytest.raises(Invalid, match=complaint):
        task.delay(*args, **kwargs)

    assert sdk.values(f"task.{function.__name__}") == []


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (add, (1,), {}),
        (add, (1, 2), {"c": 3}),
        (add, (), {"a": 1}),
        (anything, (1, 2, 3), {"d": 4}),
        (needs_keyword, (1,), {"b": 2}),
        (with_message, (1,), {}),
        (with_message, (1, 2), {}),
    ],
)
def test_arguments_that_fit_are_sent_as_they_are(sdk, function, args, kwargs):
    sent = declare(function).delay(*args, **kwargs)

    assert sdk.values(f"task.{function.__name__}") == [
        {"id": sent.id, "args": list(args), "kwargs": kwargs}
    ]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"countdown": -1}, "countdown is -1: from 0 seconds to a year"),
        ({"countdown": "1"}, "countdown is '1': from 0"),
        ({"countdown": 1, "eta": datetime.datetime.now()}, "countdown and eta are two answers"),
        ({"eta": "tomorrow"}, "deliver_at is a datetime, not of type str"),
        ({"expires": float("nan")}, "expires is nan"),
        ({"priority": 10}, "priority is 10: from 0 to 9"),
        ({"priority": True}, "priority is True"),
        ({"id": ""}, "an id is a string of 1 to 200 characters"),
        ({"key": 1}, "a key is a string"),
        ({"headers": [1]}, "headers are a dictionary"),
    ],
)
def test_options_that_cannot_be_are_refused(sdk, options, complaint):
    with pytest.raises(Invalid, match=re.escape(complaint)):
        declare(add).apply_async([1], **options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_attempts": 0}, "max_attempts is 0: from 1 to 1000"),
        ({"time_limit": 0}, "time_limit is 0: from above 0 seconds"),
        ({"soft_time_limit": -1}, "soft_time_limit is -1"),
        ({"priority": -1}, "priority is -1: from 0 to 9"),
        ({"rate": 0}, "rate is 0: a number above zero"),
        ({"name": "a b"}, "'task.a b.results' is not a name for a topic"),
    ],
)
def test_a_task_that_cannot_be_is_refused_at_once(sdk, options, complaint):
    with pytest.raises(Invalid, match=complaint):
        kirby.task(**{"name": "add", **options})(add)


def test_an_async_function_is_refused(sdk):
    async def later():
        pass

    with pytest.raises(Invalid, match="later is async: a task is a plain function"):
        kirby.task(later)


def test_two_tasks_of_one_name_are_refused(sdk):
    kirby.task(name="same")(add)
    kirby.task(name="same")(add)  # the same function: its module was imported again

    with pytest.raises(Invalid, match=r"two tasks are named same: .*test_tasks.py:add and"):
        kirby.task(name="same")(anything)


# Who I am


def test_a_task_knows_its_id_and_attempt(sdk, work):
    got = []

    @declare
    def early(message: kirby.Message, a):
        got.append((message.id, message.attempt, message.key, message.headers, a))

    @declare
    def late(a, b=1, *, note: kirby.Message):
        got.append((note.id, note.attempt, a, b))

    @declare
    def asking(a):
        mine = kirby.current_task()
        got.append((mine.id, mine.attempt, mine.name, mine.message.value["args"]))
        if mine.attempt == 1:
            raise ValueError(a)

    one = early.apply_async([1], key="k", headers={"h": 1})
    work()
    two = late.delay(2)
    work()
    three = asking.delay(3)
    work()

    assert got == [
        (one.id, 1, "k", {"h": 1}, 1),
        (two.id, 1, 2, 1),
        (three.id, 1, "asking", [3]),
        (three.id, 2, "asking", [3]),
    ]
    assert kirby.current_task() is None


# Failures


def test_a_failing_task_is_tried_again_and_then_fails(sdk, work, capfd):
    tries = []

    @declare(max_attempts=3)
    def fragile(value):
        tries.append(value)
        kirby.topic("copies").publish(value)
        raise ZeroDivisionError(f"no {value}")

    sent = fragile.delay("luck")
    work()

    assert tries == ["luck"] * 3
    assert sdk.values("copies") == []
    assert sent.status == "failed"
    with pytest.raises(kirby.TaskFailed, match=f"task fragile {sent.id} failed: Zero") as caught:
        sent.get()
    error = caught.value
    assert (error.type, error.message) == ("ZeroDivisionError", "no luck")
    assert "raise ZeroDivisionError" in error.traceback
    assert "kirby/sdk" not in error.traceback
    assert error.__notes__ == [f"where it ran:\n{error.traceback}"]
    assert parked(sdk) == [(sent.id, 3)]
    [answer] = sdk.values("task.fragile.results")
    assert (answer["id"], answer["status"]) == (sent.id, "failed")
    assert "failed at attempt 3" in capfd.readouterr().err


def test_a_task_that_works_at_last_has_one_answer(sdk, work):
    tries = []

    @declare
    def fragile():
        tries.append(1)
        if len(tries) < 4:
            raise OSError("not yet")
        return len(tries)

    sent = fragile.delay()
    work()

    assert sent.get(timeout=0) == 4
    assert len(sdk.values("task.fragile.results")) == 1
    assert parked(sdk) == []


class OfMine(Exception):
    pass


@pytest.mark.parametrize("result", [True, False])
def test_errors_that_are_parked_or_ignored(sdk, work, result):
    tries = []

    @declare(park=(OfMine,), ignore=(KeyError,), result=result)
    def fragile(kind):
        tries.append(kind)
        raise {"park": OfMine, "ignore": KeyError}[kind]("nothing")

    put_aside, ignored = fragile.delay("park"), fragile.delay("ignore")
    work()

    assert sorted(tries) == ["ignore", "park"]
    assert ignored.get(timeout=0) is None
    with pytest.raises(kirby.TaskFailed, match="OfMine: nothing"):
        put_aside.get(timeout=0)
    assert parked(sdk) == [(put_aside.id, 1)]


def test_a_task_asks_for_another_try(sdk, work, later):
    tries = []

    @declare(max_attempts=3, park=(kirby.Retry,))
    def patient():
        tries.append(1)
        raise kirby.Retry("the other side is busy", countdown=60)

    sent = patient.delay()
    work()
    assert (len(tries), sent.status) == (1, "retrying")
    later("59 seconds")
    work()
    assert len(tries) == 1
    for _ in range(2):
        later("61 seconds")
        work()

    assert len(tries) == 3
    with pytest.raises(kirby.TaskFailed, match=r"kirby.sdk.failures.Retry: the other side is busy"):
        sent.get()


def test_a_stream_asks_for_another_try_too(sdk, work, later):
    kirby.topic("orders").publish(1)
    tries = []

    @kirby.stream("orders")
    def order(value, message):
        tries.append(message.attempt)
        if message.attempt == 1:
            raise kirby.Retry(countdown=60)

    work()
    assert tries == [1]
    later("61 seconds")
    work()

    assert tries == [1, 2]


@pytest.mark.parametrize("countdown", [-1, float("inf")])
def test_a_retry_that_cannot_be_is_refused(countdown):
    with pytest.raises(Invalid, match="countdown is"):
        kirby.Retry(countdown=countdown)


def test_a_value_that_is_not_json_fails_the_task_once(sdk, work):
    tries = []

    @declare
    def bad():
        tries.append(1)
        kirby.topic("copies").publish(1)
        return {"at": datetime.date(2026, 1, 1)}

    sent = bad.delay()
    work()

    assert len(tries) == 1
    assert sdk.values("copies") == []
    with pytest.raises(kirby.TaskFailed, match="the result of <task bad> cannot be stored: value"):
        sent.get()


def test_errors_that_postgresql_cannot_store_are_answered_all_the_same(sdk, work):
    @declare(max_attempts=1)
    def strange():
        raise ValueError("a\0b \ud800 c")

    sent = strange.delay()
    work()

    with pytest.raises(kirby.TaskFailed, match=re.escape("a\u2400b ? c")):
        sent.get()


def test_what_is_no_task_is_parked(sdk, work):
    declare(add)
    kirby.topic("task.add").publish({"hello": 1})
    work()

    assert parked(sdk) == [(None, 1)]
    assert "this is not a task" in sdk.value("select error from kirby.due")


def test_a_parked_task_that_is_delivered_again_has_a_newer_answer(sdk, work):
    broken = [True]

    @declare(max_attempts=1)
    def fragile():
        if broken:
            raise ValueError("broken")
        return "mended"

    sent = fragile.delay()
    work()
    assert sent.status == "failed"
    broken.clear()
    sdk.conn.execute("select kirby.unpark(s.id, null, 'somebody') from kirby.subscription s")
    work()

    assert sent.get(timeout=0) == "mended"


# Times


def test_a_countdown_is_a_matter_of_the_database_clock(sdk, work, later):
    later("-1 day")  # as if this host were a day ahead
    seen = []

    @declare
    def remind(value):
        seen.append(value)

    now = remind.delay("now")
    soon = remind.apply_async(["soon"], countdown=60)
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1, seconds=-120)
    last = remind.apply_async(["last"], eta=moment)
    work()
    assert (seen, soon.status, now.status) == (["now"], "scheduled", "succeeded")
    later("59 seconds")
    work()
    assert seen == ["now"]
    later("2 seconds")
    work()
    assert seen == ["now", "soon"]
    later("1 minute")
    work()

    assert seen == ["now", "soon", "last"]
    assert last.get(timeout=0) is None


@pytest.mark.parametrize("moment", [False, True])
def test_an_expired_task_is_not_begun(sdk, work, later, moment):
    later("0")
    seen = []

    @declare
    def remind(value):
        seen.append(value)

    soon = datetime.datetime.now() + datetime.timedelta(seconds=60) if moment else 60
    sent = remind.apply_async(["late"], expires=soon)
    later("61 seconds")
    fresh = remind.apply_async(["fresh"], expires=3600)
    work()

    assert seen == ["fresh"]
    assert sent.status == "expired"
    with pytest.raises(kirby.Expired, match="expired before a worker had time for it"):
        sent.get()
    assert fresh.get(timeout=0) is None


def test_an_urgent_task_overtakes_a_backlog(sdk, monkeypatch):
    monkeypatch.setattr(loop, "SLICE", 0)
    monkeypatch.setattr(loop, "FIRST_TASKS", 1)
    monkeypatch.setattr(loop.Server, "_adapt", lambda *_: None)
    seen = []

    @declare
    def sort(value):
        seen.append(value)
        if value == "normal" and "urgent" not in seen and len(seen) == 10:
            sort.apply_async(["urgent"], priority=9)
        enough()

    sort.starmap([("later",)] * 30, priority=1)
    sort.map(["normal"] * 30)
    enough = stop_after(61)
    kirby.run()

    assert seen.count("urgent") == 1
    assert seen.index("urgent") < 20
    # one claim in sixteen takes what comes: nothing starves, and nothing else overtakes
    early = [value for value in seen[:40] if value == "later"]
    assert len(early) < 15


# Taking back


def test_a_task_is_taken_back_before_it_begins(sdk, work):
    seen = []

    @declare
    def send(value):
        seen.append(value)

    kept, gone = send.map(["kept", "gone"])
    planned = send.apply_async(["planned"], countdown=3600)
    assert gone.revoke() is True
    assert planned.revoke() is True
    work()

    assert seen == ["kept"]
    assert kept.revoke() is False
    assert (gone.status, gone.ready(), planned.status) == ("revoked", True, "revoked")
    for each in (gone, planned):
        with pytest.raises(kirby.Revoked, match="was revoked"):
            each.get()


def test_a_task_that_runs_is_not_taken_back(sdk, work):
    got = []

    @declare
    def send():
        mine = kirby.result("send", kirby.current_task().id)
        got.extend([mine.revoke(), mine.status])

    sent = send.delay()
    work()

    assert got == [False, "running"]
    assert sent.get(timeout=0) is None


def test_a_task_is_taken_back_between_its_attempts(sdk, work, later):
    later("0")
    tries = []

    @declare
    def fragile():
        tries.append(1)
        raise kirby.Retry(countdown=60)

    sent = fragile.delay()
    work()
    assert sent.revoke() is True
    later("2 minutes")
    work()

    assert len(tries) == 1
    assert sent.status == "revoked"


def test_who_was_never_sent_is_not_found(sdk):
    declare(add)
    for act in ("revoke", "get"):
        with pytest.raises(NotFound):
            getattr(kirby.result("add", "nobody"), act)()
    assert kirby.result("add", "nobody").status == "unknown"


# Waiting


def test_waiting_ends_in_time(sdk):
    sent = declare(add).delay(1)

    with pytest.raises(kirby.Timeout, match=r"task add \w+ is pending after 0.05 s") as caught:
        sent.get(timeout=0.05)

    assert isinstance(caught.value, TimeoutError)


def test_a_handler_waits_with_a_timeout_only(sdk, work):
    other = declare(add).delay(1)
    tasks.REGISTERED.clear()
    got = []

    @declare
    def waits():
        for timeout in (None, 0.01):
            try:
                other.get(timeout)
            except kirby.KirbyError as error:
                got.append(type(error))

    waits.delay()
    work()

    assert got == [Invalid, kirby.Timeout]


def test_an_answer_is_announced(sdk, scripts, until, monkeypatch):
    """Nobody polls here: who waits is woken."""
    monkeypatch.setattr("kirby.sdk.results.POLL", 3600)
    script = scripts("""
        @kirby.task(name="echo")
        def echo(value):
            sys.stdin.readline()
            return value
        kirby.run()
    """)

    @declare
    def echo(value):
        pass

    sent = echo.delay("hello")
    waiting = threading.Thread(target=lambda: got.append(sent.get()))
    got = []
    waiting.start()
    until(lambda: sdk.ask(
        "select from pg_stat_activity, kirby.topic where query like '%%kirby.task_status(%%'"
        " and state = 'idle' and name = 'task.echo.results'"
    ))  # fmt: skip
    script.tell()
    waiting.join(20)

    assert got == ["hello"]


def test_no_answer_is_missed_or_early(sdk, serving):
    """Whoever looks while it is being done sees it not done, or done with its value."""

    @declare(max_attempts=2)
    def fragile(value):
        if value % 3 == 0 and kirby.current_task().attempt == 1:
            raise ValueError(value)
        return value

    serving()

    for start in range(0, 300, 30):
        sent = [fragile.delay(value) for value in range(start, start + 30)]
        assert [each.get(timeout=20) for each in sent] == list(range(start, start + 30))


def test_asynchronous_applications_send_and_wait(sdk, serving):
    @declare
    def double(value):
        return 2 * value

    @declare(max_attempts=1)
    def bad():
        raise ValueError("bad")

    serving()

    async def act():
        async with await psycopg.AsyncConnection.connect(sdk.dsn) as conn:
            own = await double.aapply_async([5], connection=conn)
            gone = await double.aapply_async([6], connection=conn)
            assert gone.status == "unknown"
        assert await own.aget(timeout=20) == 10
        async with kirby.transaction():
            grouped = await double.adelay(7)
            with pytest.raises(Invalid, match="cannot be waited for in it"):
                await grouped.aget(timeout=1)
        assert await grouped.aget(timeout=20) == 14
        sent = await double.adelay(2)
        later = await double.aapply_async([3], countdown=0, priority=7)
        broken = await bad.adelay()
        with pytest.raises(kirby.TaskFailed, match="ValueError: bad"):
            await broken.aget(timeout=20)
        with pytest.raises(kirby.Timeout):
            await (await double.aapply_async([1], countdown=60)).aget(timeout=0.1)
        return await sent.aget(timeout=20), await later.aget()

    assert asyncio.run(act()) == (4, 6)


# Limits


def test_a_soft_limit_is_raised_in_the_task(sdk, work):
    tries = []

    @declare(soft_time_limit=0.05, max_attempts=2)
    def slow(tidy):
        tries.append(tidy)
        try:
            time.sleep(30)
        except kirby.SoftTimeLimit:
            if not tidy:
                raise
            return "tidied"

    @declare(soft_time_limit=30)
    def quick():
        return "quick"

    bad, good, other = slow.delay(False), slow.delay(True), quick.delay()
    started = time.monotonic()
    work()

    assert time.monotonic() - started < 10
    assert good.get(timeout=0) == "tidied"
    assert other.get(timeout=0) == "quick"
    with pytest.raises(kirby.TaskFailed, match="SoftTimeLimit: the task ran longer than its soft"):
        bad.get(timeout=0)
    assert tries.count(False) == 2


def test_a_soft_limit_in_the_middle_of_a_statement_costs_the_connection_only(sdk, work):
    @declare(soft_time_limit=0.1, max_attempts=1)
    def asks():
        with sdk.conn.transaction():
            sdk.conn.execute("lock table kirby.state_entry in access exclusive mode")
            kirby.state("any").get("key")

    kirby.state("any")["key"] = 1
    sent = asks.delay()
    work()

    with pytest.raises(kirby.TaskFailed, match="SoftTimeLimit"):
        sent.get(timeout=0)
    assert kirby.state("any")["key"] == 1


def test_a_soft_limit_reaches_other_threads(sdk, work):
    @declare(soft_time_limit=0.05)
    def busy(seconds):
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                pass
        except kirby.SoftTimeLimit:
            return "stopped"
        return "done"

    slow, quick = busy.delay(30), busy.delay(0)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)

    assert slow.get(timeout=0) == "stopped"
    assert quick.get(timeout=0) == "done"


def test_a_bell_that_was_not_heard_does_not_ring_later():
    bell = limits.Bell()
    for _ in range(2000):
        try:
            bell.arm(0)
            bell.look(time.monotonic() + 1)
            bell.disarm()
        except kirby.SoftTimeLimit:
            bell.disarm()
        for _ in range(20):
            time.monotonic()  # here it would be heard


def test_limits_of_a_task_are_those_of_its_subscription(sdk, work):
    declare(max_in_flight=3, rate=5, key_in_flight=2, key_rate=1.5, max_attempts=7)(add)
    work()

    assert sdk.ask(
        "select name, mode, max_attempts, max_in_flight, rate, key_in_flight, key_rate"
        " from kirby.subscription"
    ) == [("workers", "shared", 7, 3, 5.0, 2, 1.5)]


# Serving


def test_streams_and_tasks_are_served_together(sdk, work):
    orders, seen = kirby.topic("orders"), []

    @kirby.stream("orders")
    def order(value):
        seen.append(value)

    @declare
    def bill(value):
        seen.append(value)

    orders.publish("order")
    bill.delay("bill")
    work()

    assert sorted(seen) == ["bill", "order"]


def test_slow_tasks_do_not_starve_others(sdk, monkeypatch):
    monkeypatch.setattr(loop, "SLICE", 0.01)
    seen = []

    @declare
    def slow():
        time.sleep(0.02)
        seen.append("slow")
        enough()

    @declare
    def quick():
        seen.append("quick")
        enough()

    slow.starmap([()] * 30)
    quick.starmap([()] * 5)
    enough = stop_after(35)
    kirby.run()

    assert seen[:15].count("quick") == 5


def test_the_names_of_tasks_in_scripts(house, scripts):
    source = "import __main__\nprint(kirby.task(lambda: 0).name if 0 else kirby.task(say).name)"
    assert scripts(source).line() == "job.say"
    assert scripts(source, KIRBY_JOB="").line() == "-c.say"
