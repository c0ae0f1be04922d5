"""Workers as processes: signals, lost connections, lost leases, several at once."""

import signal

import psycopg
import pytest
from fix_sdk import house_fixture, scripts_fixture  # noqa: F401

SERVE = """
    @kirby.stream("orders", to="invoices")
    def handle(value, message):
        say("at", value)
        sys.stdin.readline()
        return value

    kirby.run()
    say("done")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_message_at_hand_and_gives_back_the_rest(house, scripts, number):
    house.publish("orders", 1, 2, 3, key="a")
    script = scripts(SERVE)
    assert script.line() == "at 1"

    script.signal(number)
    script.tell()

    assert script.line() == "done"
    assert script.end() == (0, "")
    assert house.values("invoices") == [1]
    assert house.ask("select lease_until::text from kirby.claim") == [("-infinity",)]
    assert scripts(SERVE).line() == "at 2"


def test_a_signal_ends_the_loop_form_after_the_message_at_hand(house, scripts):
    house.publish("orders", 1, 2, key="a")
    script = scripts("""
        for message in kirby.topic("orders").consume():
            say("at", message.value)
            sys.stdin.readline()
            kirby.topic("invoices").publish(message.value)
        say("done")
    """)
    assert script.line() == "at 1"

    script.signal()
    script.tell()

    assert script.line() == "done"
    assert script.end() == (0, "")
    assert house.values("invoices") == [1]
    assert house.backlog() == 1


def test_a_signal_ends_a_worker_that_waits(house, scripts, until):
    script = scripts("say('ready')\n@kirby.stream('orders')\ndef f(v): pass\nkirby.run()")
    script.line()
    until(lambda: house.ask("select from kirby.cursor"))

    script.signal()

    assert script.end() == (0, "")


def test_a_waiting_worker_is_woken_by_a_publish(house, scripts, until):
    script = scripts("loop.POLL = 3600\n" + SERVE.replace("\n    ", "\n"))
    until(lambda: asleep(house))

    house.publish("orders", 1)

    assert script.line() == "at 1"


def asleep(house):
    """Whether the worker has looked for messages and waits for a notification."""
    return house.ask(
        "select from pg_stat_activity where datname = current_database() and state = 'idle'"
        " and query like '%%kirby.next_due(%%' and application_name = 'kirby job'"
    )


def test_a_frozen_worker_loses_its_claim_and_writes_nothing(house, scripts):
    house.publish("orders", 1, key="a")
    frozen = scripts(SERVE, LEASE="0.5")
    assert frozen.line() == "at 1"
    frozen.signal(signal.SIGSTOP)

    other = scripts(SERVE, LEASE="0.5")
    assert other.line() == "at 1"
    frozen.tell()
    frozen.signal(signal.SIGCONT)
    house.publish("orders", 2, key="b")
    assert frozen.line() == "at 2"
    assert house.values("invoices") == []
    other.tell()
    frozen.tell()
    for script in (other, frozen):
        script.signal()
        script.process.stdin.close()
        script.process.wait()

    assert sorted(house.values("invoices")) == [1, 2]


def test_a_long_handler_keeps_its_claim(house, scripts, until):
    house.publish("orders", 1, key="a")
    script = scripts(SERVE, LEASE="0.6")
    assert script.line() == "at 1"
    leases = set()

    def renewed():
        leases.update(house.ask("select lease_until, fence from kirby.claim"))
        return len(leases) >= 5  # more than a whole lease later

    until(renewed)

    assert house.value("select lease_until > clock_timestamp() from kirby.claim")
    assert len({fence for _, fence in leases}) == 1
    script.tell()
    until(lambda: house.values("invoices") == [1])


def test_a_worker_goes_on_after_a_lost_connection(house, scripts, until):
    house.publish("orders", 1, 2, key="a")
    script = scripts(SERVE)
    assert script.line() == "at 1"
    assert house.terminate() == 1
    script.tell()
    assert script.line() == "at 2"
    script.tell()
    until(lambda: house.values("invoices") == [1, 2])
    until(lambda: asleep(house))

    assert house.terminate() == 1
    house.publish("orders", 3, key="a")
    assert script.line() == "at 3"
    script.tell()
    until(lambda: house.values("invoices") == [1, 2, 3])
    script.signal()

    code, errors = script.end()
    assert code == 0
    assert "the connection to the database was lost" in errors
    assert "Traceback" not in errors


def test_a_handler_that_reads_goes_on_after_a_lost_connection(house, scripts, until):
    house.publish("orders", 1, key="a")
    script = scripts("""
        @kirby.stream("orders", to="invoices")
        def handle(value):
            say("at", value)
            sys.stdin.readline()
            return [kirby.state("a").get("b"), len(list(kirby.topic("orders").read()))]
        kirby.run()
    """)
    assert script.line() == "at 1"
    assert house.terminate() == 1

    script.tell()

    until(lambda: house.values("invoices") == [[None, 1]])


def test_a_worker_that_is_killed_loses_nothing(house, scripts, until):
    house.publish("orders", 1, 2, key="a")
    script = scripts(SERVE, LEASE="0.5")
    assert script.line() == "at 1"
    script.kill()

    script = scripts(SERVE)
    for value in (1, 2):
        assert script.line() == f"at {value}"
        script.tell()

    until(lambda: house.values("invoices") == [1, 2])


def test_several_workers_keep_the_order_of_each_key(house, scripts, until):
    count, keys = 600, 20
    with psycopg.connect(house.dsn) as conn:
        for number in range(count):
            conn.execute("select kirby.publish('orders', to_jsonb(%s::int), key => %s)",
                         [number, str(number % keys)])  # fmt: skip
    workers = [
        scripts("""
            loop.FIRST_LIMIT = loop.MAX_LIMIT = 5
            @kirby.stream("orders", to="invoices")
            def handle(value):
                return [os.getpid(), value]
            say("ready")
            sys.stdin.readline()
            kirby.run()
        """)
        for _ in range(3)
    ]
    for each in workers:
        each.line()
    for each in workers:
        each.tell()

    until(lambda: len(house.values("invoices")) >= count)
    for each in workers:
        each.signal()
        assert each.end() == (0, "")

    done = house.values("invoices")
    assert len(done) == count
    for key in range(keys):
        mine = [value for _, value in done if value % keys == key]
        assert mine == list(range(key, count, keys))
    assert len({pid for pid, _ in done}) > 1, "more than one worker had work"


def test_a_handler_that_leaves_the_process_leaves_what_came_before_unsettled(house, scripts):
    """Nothing of the slice is written; the messages come again one by one, and are counted."""
    house.publish("orders", 1, 2, key="a")

    code, _ = scripts("""
        @kirby.stream("orders", to="invoices")
        def handle(value):
            if value == 2:
                sys.exit(3)
            return value

        kirby.run()
    """).end()

    assert code == 3
    assert house.values("invoices") == []
    assert house.ask("select suspect, lease_until = '-infinity' from kirby.claim") == [(True, True)]
