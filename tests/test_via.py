"""The stamp: everything that a handler writes says where it comes from, whatever the SDK call."""

import datetime
import json

import psycopg
import pytest
from fix_sdk import house_fixture, sdk_fixture, stop_after  # noqa: F401

import kirby
from kirby.sdk import stamps
from kirby.sdk.stamps import Origin, Stamp

orders, invoices = kirby.Topic("orders"), kirby.Topic("invoices")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def headers(house, topic):
    rows = house.ask(
        "select m.headers, m.parents from kirby.message m join kirby.topic t on t.id = m.topic_id"
        " where t.name = %s order by m.position",
        topic,
    )
    return rows


def hop(house, position, job="job", release=None, topic="orders"):
    """The hop over a message of a topic."""
    at = house.value("select recorded_at from kirby.message where position = %s", position)
    return [job, release, topic, position, at.astimezone(datetime.UTC).isoformat()]


def handle(function, count=1, **options):
    """Serve `orders` with this function until it was called so often."""
    seen = stop_after(count)

    @kirby.stream("orders", to="invoices", **options)
    def handler(message: kirby.Message):
        seen()
        return function(message)

    kirby.run()


WAYS = {
    "returned": lambda m, conn: 1,
    "out": lambda m, conn: kirby.Out(1, key="k"),
    "out elsewhere": lambda m, conn: kirby.Out(1, to="invoices", id="x"),
    "yielded": lambda m, conn: iter([1]),
    "publish": lambda m, conn: invoices.publish(1) and None,
    "publish later": lambda m, conn: invoices.publish(
        1, deliver_at=datetime.datetime.now(datetime.UTC)
    ),
    "publish_many": lambda m, conn: invoices.publish_many([1]) and None,
    "publish_many out": lambda m, conn: invoices.publish_many([kirby.Out(1)]) and None,
    "connection": lambda m, conn: invoices.publish(1, connection=conn) and None,
    "many on a connection": lambda m, conn: invoices.publish_many([1], connection=conn) and None,
}


def in_transaction(m, conn):
    with kirby.transaction():
        invoices.publish(1)


@pytest.mark.parametrize("way", [*WAYS.values(), in_transaction], ids=[*WAYS, "transaction"])
@pytest.mark.parametrize("replay", [None, 7])
def test_whatever_a_handler_publishes_is_stamped(sdk, monkeypatch, way, replay):
    monkeypatch.setenv("KIRBY_RELEASE", "carriers 1.4")
    position = orders.publish(1, headers={} if replay is None else {"replay": replay})

    with psycopg.connect(sdk.environ["KIRBY_DSN"], autocommit=True) as conn:
        handle(lambda message: way(message, conn))

    [(found, parents)] = headers(sdk, "invoices")
    expected = {"via": [hop(sdk, position, release="carriers 1.4")]}
    assert found == expected | ({} if replay is None else {"replay": replay})
    assert parents == [position]


def test_the_loop_form_stamps(sdk):
    position = orders.publish(1, headers={"replay": 7})
    seen = stop_after(1)

    for message in orders.consume():
        invoices.publish(message.value)
        kirby.state("seen")["a"] = 1
        seen()

    [(found, _)] = headers(sdk, "invoices")
    assert found == {"via": [hop(sdk, position)], "replay": 7}
    assert sdk.value("select headers from kirby.state_mutation") == found


def test_changes_of_states_are_stamped(sdk):
    position = orders.publish(1, headers={"replay": 7})
    state = kirby.state("seen")

    def change(message):
        state["set"] = 1
        state.increment("merged")
        state["read"] = state.get("read", 0) + 1
        with kirby.transaction():
            state.load({"many": 1})
        state["deleted"] = 1
        del state["deleted"]

    handle(change)

    found = dict(sdk.ask("select key, headers from kirby.state_mutation"))
    expected = {"via": [hop(sdk, position)], "replay": 7}
    keys = ("set", "merged", "read", "many", "deleted")
    assert found == dict.fromkeys(keys, expected)


def test_what_a_replay_changed_stays_marked_when_others_change_it_too(sdk):
    orders.publish_many([kirby.Out(1, headers={"replay": 7}), 2], key="a")
    state = kirby.state("seen")

    def change(message):
        state["a"] = message.value

    handle(change, 2)

    assert sdk.ask("select headers -> 'replay', value from kirby.state_mutation") == [(7, 2)]


def test_tasks_and_their_results_are_stamped(sdk):
    seen = stop_after(2)

    @kirby.task(name="double")
    def double(number):
        seen()
        return 2 * number

    @kirby.stream("orders")
    def send(value):
        seen()
        double.delay(value)

    position = orders.publish(1, headers={"replay": 7})
    kirby.run()

    [(sent, _)] = headers(sdk, "task.double")
    assert sent == {"via": [hop(sdk, position)], "replay": 7}
    task = sdk.value(
        "select m.position from kirby.message m join kirby.topic t on t.id = m.topic_id"
        " where t.name = 'task.double'"
    )
    [(answer, parents)] = headers(sdk, "task.double.results")
    assert answer == {"via": [*sent["via"], hop(sdk, task, topic="task.double")], "replay": 7}
    assert parents == [task]


def test_the_answer_of_a_task_that_failed_is_stamped(sdk):
    seen = stop_after(1)

    @kirby.task(name="fails", max_attempts=1)
    def fails():
        seen()
        raise ValueError

    fails.delay()
    kirby.run()

    [(answer, _)] = headers(sdk, "task.fails.results")
    assert answer["via"][0][:3] == ["job", None, "task.fails"]


def test_outside_of_handlers_there_is_no_stamp(sdk):
    orders.publish(1)
    with kirby.transaction():
        orders.publish(1)
        kirby.state("seen")["a"] = 1

    assert headers(sdk, "orders") == [(None, None)] * 2
    assert sdk.value("select headers from kirby.state_mutation") is None


def test_via_keeps_the_newest_hops(sdk):
    before = [["old", None, "a", number, "2026-01-01T00:00:00+00:00"] for number in range(20)]
    position = orders.publish(1, headers={"via": before})

    handle(lambda message: 1)

    [(found, _)] = headers(sdk, "invoices")
    assert found["via"] == [*before[-15:], hop(sdk, position)]


@pytest.mark.parametrize("via", [5, {}, "text", None, [], [5]])
def test_what_others_published_as_via_is_no_obstacle(sdk, via):
    orders.publish(1, headers={"via": via})

    def look(message):
        assert message.via == ()
        return 1

    handle(look)

    [(found, _)] = headers(sdk, "invoices")
    assert found["via"][-1][0] == "job"


def test_a_message_shows_the_way_it_came(sdk):
    position = orders.publish(1)
    handle(lambda message: 1)

    [message] = invoices.read()

    assert message.via == (kirby.sdk.messages.Hop(*hop(sdk, position)),)
    assert (message.via[0].job, message.via[0].position) == ("job", position)
    assert not message.replay


def test_headers_of_the_handler_are_kept_and_win_nothing_over_the_stamp(sdk):
    position = orders.publish(1, headers={"replay": 7, "colour": "red"})
    given = {"colour": "blue", "replay": False, "via": []}

    handle(lambda message: kirby.Out(1, headers=given))

    [(found, _)] = headers(sdk, "invoices")
    assert found == {"colour": "blue", "via": [hop(sdk, position)], "replay": 7}


def test_a_handler_cannot_make_a_replay_of_its_own(sdk):
    position = orders.publish(1)

    handle(lambda message: kirby.Out(1, headers={"replay": 7}))

    assert headers(sdk, "invoices") == [({"via": [hop(sdk, position)]}, [position])]


def test_the_trace_goes_on_with_a_span_of_its_own(sdk):
    orders.publish(1, headers={"traceparent": PARENT, "tracestate": "a=b"})

    handle(lambda message: [invoices.publish(n) for n in range(2)] and kirby.Out(2, headers={}))

    found = [each for each, _ in headers(sdk, "invoices")]
    spans = {each["traceparent"] for each in found}
    assert len(spans) == 1
    version, trace, span, flags = spans.pop().split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != SPAN
    assert len(span) == 16
    assert {each["tracestate"] for each in found} == {"a=b"}


def test_headers_that_are_passed_on_do_not_take_the_span_along(sdk):
    orders.publish(1, headers={"traceparent": PARENT, "own": 1})

    handle(lambda message: kirby.Out(2, headers=message.headers))

    [(found, _)] = headers(sdk, "invoices")
    assert found["own"] == 1
    assert found["traceparent"] != PARENT
    assert TRACE in found["traceparent"]


def test_a_trace_of_the_handlers_own_goes_before(sdk):
    orders.publish(1, headers={"traceparent": PARENT})
    own = f"00-{'a' * 32}-{'b' * 16}-00"

    handle(lambda message: kirby.Out(2, headers={"traceparent": own}))

    [(found, _)] = headers(sdk, "invoices")
    assert found["traceparent"] == own


@pytest.mark.parametrize("bad", [5, "", f"00-{'0' * 32}-{SPAN}-01", "x" * 55, None])
def test_what_is_no_trace_is_left_out(sdk, bad):
    orders.publish(1, headers={"traceparent": bad, "tracestate": "a=b"})

    handle(lambda message: 1)

    [(found, _)] = headers(sdk, "invoices")
    assert set(found) == {"via"}


def test_a_list_is_whole_of_a_replay_or_of_none(sdk):
    orders.publish_many(
        [kirby.Out(n, headers={"replay": 7} if 2 <= n < 5 else None) for n in range(8)], key="a"
    )
    seen, lists = stop_after(3), []

    @kirby.stream("orders", to="invoices", batch=100)
    def handler(values):
        lists.append(values)
        seen()
        return len(values)

    kirby.run()

    assert lists == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert [found.get("replay") for found, _ in headers(sdk, "invoices")] == [None, 7, None]


def test_the_stamp_is_made_once_for_a_message_and_only_if_it_is_needed(sdk, monkeypatch):
    made = []
    make = Stamp._made
    monkeypatch.setattr(Stamp, "_made", lambda self: made.append(1) or make(self))
    orders.publish_many([1, 0])

    handle(lambda message: iter(range(100 * message.value)), 2)

    assert len(headers(sdk, "invoices")) == 100
    assert len(made) == 1


def test_names_are_json(sdk):
    batch = kirby.core.subscriptions.Batch(
        1, 1, 1, [5], [None], [1], None, [datetime.datetime.now(datetime.UTC)], [None], None
    )
    found = json.loads(Stamp(Origin('a"b', "ж\n", 1), batch, 0).text)
    assert found["via"][0][:4] == ["ж\n", None, 'a"b', 5]


def test_parents_of_many_in_a_row_are_a_run():
    def batch(dense):
        return kirby.core.subscriptions.Batch(
            1, 1, 1, [5, 7, 9, 12], [None] * 4, [1] * 4, None, [None] * 4, [None] * 4, None, dense
        )

    assert stamps.parents(batch(True), 0, 3) == (5, -12)
    assert stamps.parents(batch(True), 1, 3) == (7, -12)
    assert stamps.parents(batch(True), 0, 1) == (5, 7)
    assert stamps.parents(batch(True), 2, 2) == (9,)
    assert stamps.parents(batch(False), 0, 3) == (5, 7, 9, 12)
    assert stamps.parents(batch(None), 0, 3) == (5, 7, 9, 12)


def test_a_list_names_its_messages_as_a_run(sdk):
    orders.publish_many(range(50), key="a")
    kirby.topic("others").publish(1)
    state, seen = kirby.state("sums"), stop_after(1)

    @kirby.stream("orders", to="invoices", batch=100)
    def handler(values):
        state["sum"] = sum(values)
        seen()
        return len(values)

    kirby.run()

    positions = [message.position for message in orders.read()]
    [(_, parents)] = headers(sdk, "invoices")
    assert parents == [positions[0], -positions[-1]]
    assert sdk.value("select parents from kirby.state_mutation") == parents
    assert sdk.value("select kirby.expand_parents(%s)", parents) == positions


def test_a_list_with_a_gap_names_each_of_its_messages(sdk):
    """One of them failed before, and is delivered by itself."""
    orders.publish_many(range(6), key="a")
    conn = kirby.sdk.session.get().connection
    id, _ = kirby.core.subscriptions.subscribe(conn, "orders", "job")
    sdk.conn.execute(
        "insert into kirby.due (subscription_id, position, lane, due_at, reason)"
        " select %s, m.position, m.lane, 'infinity', 'failed'"
        "   from kirby.message m where m.payload = '2'",
        [id],
    )
    seen = stop_after(1)

    @kirby.stream("orders", to="invoices", batch=6)
    def handler(values):
        seen()
        return values

    kirby.run()

    positions = [each.position for each in orders.read() if each.value != 2]
    assert sdk.values("invoices") == [[0, 1, 3, 4, 5]]
    [(_, parents)] = headers(sdk, "invoices")
    assert parents == positions
