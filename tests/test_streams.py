"""Streams: each message once, its effects with its acknowledgement, whatever happens meanwhile."""

import datetime
import signal
from collections.abc import Iterator

import pytest
from fix_runs import Runs
from fix_sdk import (  # noqa: F401
    FOREIGN,
    house_fixture,
    scripts_fixture,
    sdk_fixture,
    stop_after,
)

import kirby
from kirby.core.errors import Invalid
from kirby.sdk import loop

NOW = datetime.timedelta(0)
orders, invoices = kirby.Topic("orders"), kirby.Topic("invoices")


def values(topic):
    return [message.value for message in topic.read()]


# What a handler gets, and what it gives


def test_a_handler_gets_every_value_in_order_and_its_results_are_published(sdk):
    orders.publish_many(range(250), key="a")
    seen = stop_after(250)

    @kirby.stream("orders", to="invoices")
    def double(value):
        seen()
        return 2 * value

    kirby.run()

    assert values(invoices) == [2 * number for number in range(250)]
    assert sdk.backlog() == 0


def annotated(message: kirby.Message):
    return message


def as_text(message: "kirby.Message"):
    return message


def optional(found: kirby.Message | None):
    return found


def value_first(value: int, found: kirby.Message):
    return found


def message_first(found: kirby.Message, value: int):
    return found


def by_name(value, message):
    return message


def with_defaults(value, message, extra=1, *rest, flag=True, **more):
    return message


@pytest.mark.parametrize(
    "function",
    [annotated, as_text, optional, value_first, message_first, by_name, with_defaults],
)
def test_a_handler_that_asks_for_the_message_gets_it(sdk, function):
    position = orders.publish(5, key="k", headers={"h": 1})
    got = []

    def stop(found):
        got.append(found)
        signal.raise_signal(signal.SIGTERM)

    function = with_result(function, stop)
    kirby.stream("orders")(function)
    kirby.run()

    [message] = got
    assert (message.topic, message.position, message.value) == ("orders", position, 5)
    assert (message.key, message.headers, message.replay) == ("k", {"h": 1}, False)
    assert message.recorded_at.tzinfo is not None


def with_result(function, take):
    """The same function, as far as its signature goes; its result is taken instead of returned."""

    def wrapped(*arguments):
        take(function(*arguments))

    wrapped.__wrapped__ = function
    wrapped.__name__ = function.__name__
    return wrapped


def test_one_parameter_that_is_called_message_is_the_value(sdk):
    orders.publish(5)
    got = []

    @kirby.stream("orders")
    def handle(message):
        got.append(message)
        signal.raise_signal(signal.SIGTERM)

    kirby.run()

    assert got == [5]


def test_a_handler_with_batch_gets_lists(sdk):
    orders.publish_many(range(25), key="a")
    seen, got = stop_after(3), []

    @kirby.stream("orders", to="invoices", batch=10)
    def handle(values: list, messages: list[kirby.Message]):
        assert values == [message.value for message in messages]
        got.append(values)
        seen()
        return sum(values)

    kirby.run()

    assert got == [list(range(10)), list(range(10, 20)), list(range(20, 25))]
    assert values(invoices) == [sum(part) for part in got]
    at = [message.position for message in orders.read()]
    parents = [message.parents for message in invoices.read()]
    assert parents == [(at[0], -at[9]), (at[10], -at[19]), (at[20], -at[24])]
    assert sdk.backlog() == 0


def test_a_handler_may_return_more_than_a_value(sdk):
    orders.publish_many(
        ["nothing", "value", "list", "false", "out", "elsewhere", "iterator", "empty"], key="k"
    )
    seen = stop_after(8)

    @kirby.stream("orders", to="invoices")
    def handle(value):
        seen()
        return {
            "nothing": None,
            "value": {"a": 1},
            "list": [1, 2],
            "false": False,
            "out": kirby.Out(2, key="own", headers={"h": 1}),
            "elsewhere": kirby.Out(3, to="others"),
            "iterator": iter([4, None, kirby.Out(5, key="five")]),
            "empty": iter([]),
        }[value]

    kirby.run()

    own = [{k: v for k, v in each.headers.items() if k != "via"} for each in invoices.read()]
    read = [(each.value, each.key, own[n]) for n, each in enumerate(invoices.read())]
    assert read == [
        ({"a": 1}, "k", {}),
        ([1, 2], "k", {}),
        (False, "k", {}),
        (2, "own", {"h": 1}),
        (4, "k", {}),
        (5, "five", {}),
    ]
    assert values(kirby.topic("others")) == [3]


def test_a_generator_is_a_handler(sdk):
    orders.publish(3)

    @kirby.stream("orders", to="invoices")
    def count(value) -> Iterator[int]:
        yield from range(value)
        signal.raise_signal(signal.SIGTERM)

    kirby.run()

    assert values(invoices) == [0, 1, 2]


def test_a_result_without_a_topic_for_it_fails_and_says_what_to_write(sdk, capfd):
    orders.publish(1)
    seen = stop_after(1)

    @kirby.stream("orders")
    def handle(value):
        seen()
        return value

    kirby.run()

    assert "handle returned a value, but its stream has no topic for" in capfd.readouterr().err
    assert sdk.ask("select reason from kirby.due") == [("failed",)]


def test_a_result_that_is_not_json_fails_and_names_the_message(sdk, capfd):
    position = orders.publish(1, key="k")
    seen = stop_after(1)

    @kirby.stream("orders", to="invoices")
    def handle(value):
        seen()
        return {1}

    kirby.run()

    errors = capfd.readouterr().err
    assert "value is of type set" in errors
    assert f"kirby: message {position} of topic orders (key 'k') failed at attempt 1" in errors


def nothing():
    pass


def three(value, message: kirby.Message, more):
    pass


def two_values(one, other):
    pass


def any_number(*values):
    pass


def keyword(value, *, needed):
    pass


async def asynchronous(value):
    pass


async def asynchronous_iterator(value):
    yield value


@pytest.mark.parametrize("function", [nothing, three, two_values, any_number, keyword])
def test_a_function_that_cannot_be_a_handler_is_refused(sdk, function):
    with pytest.raises(Invalid, match="cannot be a handler: it takes the value, the message"):
        kirby.stream("orders")(function)


@pytest.mark.parametrize("function", [asynchronous, asynchronous_iterator])
def test_an_async_function_is_refused(sdk, function):
    with pytest.raises(Invalid, match="is async: a handler is a plain function"):
        kirby.stream("orders")(function)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"topic": "a b"}, "'a b' is not a name for a topic"),
        ({"topic": "a", "to": ""}, "'' is not a name for a topic"),
        ({"topic": "a", "batch": 0}, "batch is 0: from 1 to 10000"),
        ({"topic": "a", "batch": 10_001}, "batch is 10001: from 1 to 10000"),
    ],
)
def test_a_stream_that_cannot_be_is_refused_at_once(arguments, complaint):
    with pytest.raises(Invalid, match=complaint):
        kirby.stream(**arguments)


def test_a_decorated_function_is_still_that_function(sdk):
    @kirby.stream("orders")
    def double(value):
        return 2 * value

    assert double(2) == 4


# Which streams are served


def test_running_without_a_stream_is_refused(sdk):
    with pytest.raises(Invalid, match=r"kirby\.run\(\) has nothing to serve: decorate a function"):
        kirby.run()


def test_two_streams_of_one_topic_need_names(sdk):
    kirby.stream("orders")(by_name)
    kirby.stream("orders")(value_first)

    with pytest.raises(Invalid, match="by_name and value_first both read topic orders as job: na"):
        kirby.run()


def test_two_streams_of_one_topic_each_get_everything(sdk):
    orders.publish_many(range(20), key="a")
    seen, got = stop_after(40), {"one": [], "other": []}

    @kirby.stream("orders", name="one")
    def first(value):
        got["one"].append(value)
        seen()

    @kirby.stream("orders", name="other")
    def second(value):
        got["other"].append(value)
        seen()

    kirby.run()

    assert got == {"one": list(range(20)), "other": list(range(20))}


def test_streams_of_two_topics_make_a_chain(sdk):
    orders.publish_many(range(20), key="a")
    seen, got = stop_after(20), []

    @kirby.stream("orders", to="invoices")
    def bill(value):
        return value + 100

    @kirby.stream("invoices")
    def post(value):
        got.append(value)
        seen()

    kirby.run()

    assert got == list(range(100, 120))


@pytest.mark.parametrize("name", ["", "a b", "a\n", "ä"])
def test_a_bad_name_of_a_subscription_is_refused(sdk, name):
    with pytest.raises(Invalid, match="is not a name for a subscription: letters, digits"):
        next(orders.consume(name=name or " "))


# The loop form


def test_what_a_loop_publishes_commits_when_the_next_message_is_asked_for(sdk):
    orders.publish_many(range(3), key="a")
    state, committed = kirby.state("last"), []

    for message in orders.consume():
        committed.append(sdk.values("invoices"))
        invoices.publish(10 * message.value, key=message.key)
        state["value"] = message.value
        assert len(sdk.values("invoices")) == message.value
        if message.value == 2:
            signal.raise_signal(signal.SIGTERM)

    assert committed == [[], [0], [0, 10]]
    assert values(invoices) == [0, 10, 20]
    assert state["value"] == 2
    assert sdk.backlog() == 0


def test_a_break_leaves_the_message_at_hand(sdk):
    orders.publish_many(range(4), key="a")
    for message in orders.consume():
        invoices.publish(message.value)
        if message.value == 1:
            break

    assert values(invoices) == [0]
    got = []
    for message in orders.consume():
        got.append(message.value)
        if message.value == 3:
            break
    assert got == [1, 2, 3]


def test_an_error_in_the_loop_leaves_the_message_at_hand(sdk):
    orders.publish_many(range(3), key="a")

    def work():
        for message in orders.consume():
            invoices.publish(message.value)
            if message.value == 1:
                raise KeyError(message.value)

    with pytest.raises(KeyError):
        work()

    assert values(invoices) == [0]
    assert next(orders.consume()).value == 1


def test_after_the_loop_publishing_is_outside_of_it(sdk):
    orders.publish(1)
    for _ in orders.consume():
        break

    assert invoices.publish("alone") is not None


def test_loops_under_two_names_each_get_everything(sdk):
    orders.publish_many(range(2), key="a")

    for name in ("one", "other"):
        got = []
        for message in orders.consume(name=name):
            got.append(message.value)
            if len(got) == 2:
                break
        assert got == [0, 1]


# One transaction


def test_results_states_and_the_acknowledgement_are_one_transaction(sdk):
    orders.publish_many(range(10), key="a")
    sums, seen = kirby.state("sums"), stop_after(10)

    @kirby.stream("orders", to="invoices")
    def handle(value):
        sums["all"] = sums.get("all", 0) + value
        kirby.topic("copies").publish(value)
        seen()
        return value

    kirby.run()

    assert sums["all"] == 45
    rows = sdk.ask(
        """
        select xmin::text from kirby.message where topic_id <> %s
        union select xmin::text from kirby.state_mutation
        union select xmin::text from kirby.state_entry
        """,
        sdk.topic_id("orders"),
    )
    assert len(rows) == 1
    assert sdk.ask("select version, parents from kirby.state_mutation") == [
        (1, [message.position for message in orders.read()])
    ]


def test_what_is_written_names_its_parents_and_its_run(sdk, monkeypatch):
    runs = Runs(sdk.conn)
    run_id = runs.start("", kind="daemon")
    sdk.give_token("of-the-run", "dev", run_id)
    monkeypatch.setenv("KIRBY_TOKEN", "of-the-run")
    orders.publish_many(["a", "b"], key="k")
    state, seen = kirby.state("seen"), stop_after(2)

    @kirby.stream("orders", to="invoices")
    def handle(value):
        state[value] = True
        seen()
        return value

    kirby.run()

    first, second = [message.position for message in orders.read()]
    written = [(message.value, message.parents, message.run_id) for message in invoices.read()]
    assert written == [("a", (first,), run_id), ("b", (second,), run_id)]
    assert sdk.ask("select key, parents, run_id from kirby.state_mutation order by position") == [
        ("a", [first], run_id),
        ("b", [second], run_id),
    ]
    assert sdk.value("select distinct run_id from kirby.message m where topic_id = %s",
                     sdk.topic_id("orders")) == run_id  # fmt: skip
    for message in invoices.consume():
        assert (message.parents, message.run_id) == ((first,), run_id)
        break


def test_a_state_that_moved_on_makes_the_handler_run_again(sdk, monkeypatch):
    monkeypatch.setattr(loop, "SLICE", 3600)
    orders.publish_many([1, 2, 3], key="a")
    sums, got = kirby.state("sums"), []
    sums["all"] = 0

    @kirby.stream("orders", to="invoices")
    def handle(value):
        sums["all"] = sums["all"] + value
        got.append(value)
        if got == [1, 2]:
            foreign_change(sdk, "sums", "all", 100)
        if len(got) == 6:
            signal.raise_signal(signal.SIGTERM)
        return sums["all"]

    kirby.run()

    assert got == [1, 2, 3, 1, 2, 3]
    assert values(invoices) == [101, 103, 106]
    assert sums["all"] == 106


def foreign_change(house, state, key, value):
    house.conn.execute(
        "select kirby.write(p_mutations => jsonb_build_object(%s::text, jsonb_build_array("
        "jsonb_build_object('k', %s::text, 'o', 'set', 'v', %s::integer))))",
        [state, key, value],
    )


def test_a_state_that_moved_on_gives_the_loop_the_message_again(sdk):
    orders.publish_many([1, 2], key="a")
    sums, got = kirby.state("sums"), []
    sums["all"] = 0

    for message in orders.consume():
        got.append(message.value)
        sums["all"] = sums["all"] + message.value
        if got == [1]:
            foreign_change(sdk, "sums", "all", 100)
        if message.value == 2:
            signal.raise_signal(signal.SIGTERM)

    assert got == [1, 1, 2]
    assert sums["all"] == 103


def test_a_slow_handler_is_settled_in_parts(sdk, monkeypatch):
    monkeypatch.setattr(loop, "SLICE", 0)
    orders.publish_many(range(20), key="a")
    seen, settled = stop_after(20), []

    @kirby.stream("orders", to="invoices")
    def handle(value):
        settled.append(len(sdk.values("invoices")))
        seen()
        return value

    kirby.run()

    assert settled == list(range(20))
    assert values(invoices) == list(range(20))


def test_many_results_are_settled_in_parts(sdk, monkeypatch):
    monkeypatch.setattr(loop, "SLICE", 3600)
    monkeypatch.setattr(loop, "SLICE_BYTES", 1)
    orders.publish_many(range(3), key="a")
    seen = stop_after(3)

    @kirby.stream("orders", to="invoices")
    def handle(value):
        assert len(sdk.values("invoices")) == value
        seen()
        return value

    kirby.run()

    assert values(invoices) == [0, 1, 2]


def test_a_batch_that_is_too_large_for_one_answer_is_asked_for_in_smaller_ones(sdk):
    """As PostgreSQL says it: a gigabyte of messages does not fit into one value."""
    sdk.conn.execute(
        """
        create function public.refuse() returns trigger language plpgsql as $$
        begin
          if (select count(*) from kirby.message m where m.position between new.first and new.last
                 and m.lane = new.lane) > 7 then
            raise program_limit_exceeded;
          end if;
          return new;
        end $$;
        create trigger refuse before insert on kirby.claim
          for each row execute function public.refuse();
        """
    )
    orders.publish_many(range(30), key="a")
    seen, got = stop_after(30), []

    @kirby.stream("orders")
    def handle(value):
        got.append(value)
        seen()

    kirby.run()

    assert got == list(range(30))
