"""`kirby db verify`: clean after any workload; every row that is altered by hand is named."""

import json
import random

import psycopg
import pytest
from fix_log import log_fixture  # noqa: F401
from fix_runs import Runs

from kirby.core import subscriptions
from kirby.core.subscriptions import Failure
from kirby.server import lanes, verify

MUTATION = '{"sums": [{"k": "%s", "o": "%s", "v": %s}]}'


@pytest.fixture
def verify_it(kirby):
    """`verify_it()`: the lines that it prints, and its exit code."""

    def verify_it(*arguments):
        done = kirby("db", "verify", *arguments)
        assert done.err == ""
        return done.out.splitlines(), done.code

    return verify_it


def work(log, chance, jobs):
    """One step of somebody's day."""
    step = chance.randint(0, 11)
    key = str(chance.randint(0, 6))
    topic = chance.choice(["orders", "invoices"])
    job = chance.choice(jobs)
    if step <= 3:
        log.publish(topic, *range(chance.randint(1, 20)), key=key)
    elif step == 4:
        later = "now() + interval '1 hour'"
        log.value(f"select kirby.publish(%s, '1', %s, deliver_at => {later})", topic, key)
    elif step == 5:
        number = chance.randint(0, 9)
        log.value("select kirby.publish(%s, '1', %s, id => %s)", topic, key, f"id {number}")
    elif step == 6:
        operation = chance.choice(["set", "set", "delete"])
        log.value("select kirby.write('{}', %s::jsonb)", MUTATION % (key, operation, step))
    elif step <= 9:
        batch = subscriptions.claim(log.conn, job, chance.randint(1, 12))
        if batch and chance.random() < 0.9:
            failed = [
                Failure(position, chance.choice(["retry", "park"]), "bad", 0.0)
                for position in batch.positions
                if chance.random() < 0.2
            ]
            upto = chance.choice([None, None, chance.choice(batch.positions)])
            failed = [each for each in failed if upto is None or each.position <= upto]
            subscriptions.settle(log.conn, batch, failures=failed, upto=upto)
    elif step == 10:
        log.later("10 minutes")
        log.count()
    else:
        log.keep(topic, f"{chance.randint(1, 40)} minutes", even_unread=chance.random() < 0.5)
        log.retain()


@pytest.mark.parametrize("seed", range(6))
def test_it_is_clean_after_a_random_workload(log, seed):
    chance = random.Random(seed)
    for topic in ("orders", "invoices"):
        log.publish(topic, 0)
    jobs = [
        log.subscribe("orders", "block", on_failure="block"),
        log.subscribe("orders", "park", on_failure="park"),
        log.subscribe("invoices", "shared", mode="shared"),
    ]
    for number in range(150):
        work(log, chance, jobs)
        if number == 40:
            lanes.change(log.conn, log.topic_id("orders"), 16, actor="test")
        if number == 75:
            jobs.append(log.subscribe("invoices", "late"))
        if number % 30 == 0:
            assert log.wrong() == []

    assert log.wrong() == []


def test_it_is_clean_after_runs_of_all_kinds(log):
    runs = Runs(log.conn)
    runs.ask(
        "insert into kirby.supervisor (id, host, folder, pid, slots, lease_until)"
        " values (gen_random_uuid(), 'here', '/', 1, 9, now() + interval '1 hour') returning id"
    )
    supervisor = runs.value("select id from kirby.supervisor")
    deployment = runs.deploy(schedules=["* * * * *"], kind="scheduled", max_attempts=2)
    ends = {
        "run_succeeded": '{"exit_code": 0}',
        "run_failed": '{"exit_code": 3, "reason": "x"}',
        "run_timed_out": '{"reason": "late"}',
        "run_lost": '{"reason": "gone"}',
    }
    for end, data in ends.items():
        run = runs.trigger(deployment)
        runs.value("select count(*) from kirby.claim_runs(%s, 9)", supervisor)
        runs.ask("select kirby.record_run(%s, 'run_started', '{\"pid\": 7}')", run)
        runs.ask("select kirby.record_run(%s, %s, %s::jsonb)", run, end, data)
    cancelled = runs.trigger(deployment)
    runs.ask("select kirby.cancel_run(%s, 'enough', 'me')", cancelled)
    for minutes in (3, 2, 1):
        runs.ask(
            "insert into kirby.tick (deployment_id, at, local)"
            " values (%s, now() - %s * interval '1 minute', 'x') returning at",
            deployment, minutes,
        )  # fmt: skip
    runs.value("select kirby.fire_ticks()")

    statuses = {row["status"] for row in runs.of(deployment)}
    assert {"succeeded", "failed", "timed_out", "lost", "cancelled", "queued"} <= statuses
    assert log.wrong() == []


@pytest.fixture
def full(log):
    """A house in which every projection has rows."""
    runs = Runs(log.conn)
    deployment = runs.deploy(schedules=["* * * * *"], kind="scheduled")
    runs.ask(
        "insert into kirby.tick (deployment_id, at, local)"
        " values (%s, now() - interval '1 minute', 'x') returning at", deployment,
    )  # fmt: skip
    runs.value("select kirby.fire_ticks()")
    for value in (1, 2, 3):
        log.value("select kirby.write('{}', %s::jsonb)", MUTATION % ("a", "set", value))
    log.value("select kirby.publish('orders', '1', 'a', id => 'first')")
    log.publish("orders", *range(20), key="a")
    job = log.subscribe("orders")
    batch = subscriptions.claim(log.conn, job, 4)
    subscriptions.settle(
        log.conn, batch, failures=[Failure(batch.positions[-1], "retry", "bad", 9.0)]
    )
    log.publish("orders", *range(10), key="c")
    for _ in "ac":
        subscriptions.claim(log.conn, job, 4)
    log.count()
    assert log.wrong() == []
    return log


ALTERED = [
    (
        "update kirby.state_entry set value = '9'",
        "state_entry: dev/sums/a: expected value 3, found value 9",
    ),
    (
        "update kirby.state_entry set version = 7",
        "state_entry: dev/sums/a: expected version 3, found version 7",
    ),
    ("delete from kirby.state_entry", "state_entry: dev/sums/a: expected "),
    (
        "insert into kirby.state_entry"
        " select state_id, 'b', 1, 'set', '1', 1, null, now() from kirby.state_entry",
        "state_entry: dev/sums/b: expected nothing, found",
    ),
    (
        "update kirby.run set status = 'starting'",
        "run: run 1: expected status queued, found status starting",
    ),
    ("update kirby.run set attempt = 5", "run: run 1: expected attempt 1, found attempt 5"),
    (
        "update kirby.run set started_at = now()",
        "run: run 1: expected started_at nothing, found started_at 20",
    ),
    ("update kirby.run set turn = turn - interval '1 s'", "run: run 1: expected turn 20"),
    ("update kirby.tick set run_id = null", "tick: deployment 1 at 20"),
    ("update kirby.tick set status = 'planned'", "tick: deployment 1 at 20"),
    (
        "update kirby.topic_count set messages = messages + 1 where lane = 2",
        "topic_count: dev/orders lane 2: expected messages 21, found messages 22",
    ),
    (
        "delete from kirby.topic_count",
        "topic_count: dev/orders lane 2: expected messages 21, position",
    ),
    (
        "update kirby.topic_count set position = position - 1",
        "topic_count: dev/orders lane 2: expected pos",
    ),
    (
        "update kirby.time_index set latest = latest - interval '1 s'",
        "time_index: up to position 4999: expected latest 20",
    ),
    ("delete from kirby.time_index", "time_index: up to position 4999: expected latest 20"),
    (
        "update kirby.cursor set delivered = 3 where lane = 3",
        "cursor: dev/orders/job lane 3: expected delivered 4, found delivered 3",
    ),
    (
        "update kirby.cursor set position = position + 2 where lane = 3",
        "cursor: dev/orders/job lane 3: expected delivered 6, found delivered 4",
    ),
    (
        "delete from kirby.cursor where lane = 7",
        "cursor: dev/orders/job lane 7: expected cursor there",
    ),
    ("update kirby.claim set last = last + 100 where kind = 'range'", "claim: claim "),
    (
        "insert into kirby.claim (subscription_id, lane, first, last, upto, lease_until)"
        " select subscription_id, lane, 1, 2, 2, now() from kirby.claim",
        "claim: claim ",
    ),
    (
        "insert into kirby.claim (subscription_id, lane, first, last, upto, lease_until, kind)"
        " select subscription_id, 2, position, position, position, now(), 'due' from kirby.due"
        " where reason = 'failed'",
        "expected due in hands",
    ),
    ("update kirby.due set key = 'z' where reason = 'failed'", "expected key a, found key z"),
    (
        "delete from kirby.due where reason = 'failed'",
        "expected reason its key is held by another",
    ),
    (
        "update kirby.due set due_at = 'infinity' where reason = 'failed'",
        "expected claim of its own",
    ),
    (
        "update kirby.due set position = 1 where reason = 'failed'",
        "expected message in this lane",
    ),
    (
        "update kirby.due set reason = 'done', due_at = 'infinity' where reason = 'failed'",
        "expected claim a range that covers it",
    ),
    (
        "update kirby.produced set position = 1",
        "produced: produced dev/orders first: expected message at 1",
    ),
]


@pytest.mark.parametrize(("change", "said"), ALTERED, ids=[change[:60] for change, _ in ALTERED])
def test_a_row_that_was_altered_by_hand_is_named(full, verify_it, change, said):
    full.ask(change)

    lines, code = verify_it()

    assert code == 1
    assert any(said in line for line in lines), lines


def test_it_is_clean_and_says_so(full, verify_it):
    lines, code = verify_it()

    assert lines == [f"all {len(verify.PROJECTIONS)} projections are what the log says"]
    assert code == 0


def test_only_the_first_rows_are_named_and_all_are_counted(full, verify_it):
    for number in range(20):
        full.value("select kirby.write('{}', %s::jsonb)", MUTATION % (number, "set", 1))
    full.ask("update kirby.state_entry set value = '7'")

    lines, code = verify_it("-n", "3")
    assert code == 1
    assert len(lines) == 4
    assert lines[-1] == "state_entry: 18 more differ"

    lines, code = verify_it("--json", "-n", "3")
    document = json.loads("\n".join(lines))
    assert code == 1
    assert not document["well"]
    [bad] = [each for each in document["projections"] if each["different"]]
    assert (bad["table"], bad["different"], len(bad["rows"])) == ("state_entry", 21, 3)
    assert bad["rows"][0]["found"]["value"] == 7


def test_a_version_that_is_missing_is_named(full, verify_it):
    full.ask("alter table kirby.state_mutation disable trigger user")
    full.ask("alter table kirby.state_mutation_0 disable trigger user")
    full.ask("delete from kirby.state_mutation where version = 2")

    lines, _ = verify_it()

    assert [line for line in lines if line.startswith("state_mutation: dev/sums/a at ")]


def test_removed_messages_that_are_there_are_named(full, verify_it):
    full.ask(
        "insert into kirby.topic_retention (topic_id, gone_to) select id, 10^6 from kirby.topic"
    )

    lines, _ = verify_it()

    assert any(line.startswith("topic_count: dev/orders: expected removed up to") for line in lines)


def test_runs_older_than_their_events_are_passed_over(full, verify_it):
    full.value("select kirby.keep_log('job_event', '10 days', 'test')")
    full.later("30 days")
    assert full.value("select kirby.remove_rows('job_event')") > 0

    assert verify_it()[1] == 0


def test_it_reads_one_snapshot(full):
    """What happens meanwhile does not look like a difference."""
    from kirby.server import database

    engine = database.engine(full.dsn, size=1)
    with database.unit(engine) as conn:
        found = verify.verdicts(conn)
        first = next(found)
        full.publish("orders", *range(50), key="a")
        full.ask("update kirby.cursor set delivered = 1 where lane = 2")
        rest = list(found)
        writable = conn.exec_driver_sql("select current_setting('transaction_read_only')").scalar()
    engine.dispose()

    assert [each.table for each in (first, *rest) if each.different] == []
    assert writable == "on"
    with psycopg.connect(full.dsn) as conn:
        assert conn.execute("select count(*) from kirby.verify_cursors()").fetchone() == (1,)
