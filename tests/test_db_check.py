"""`kirby db check`: what is wrong, or near it, is said with who and what to do."""

import json
import threading

import psycopg
import pytest
from fix_log import log_fixture  # noqa: F401
from fix_runs import Runs

from kirby.core import subscriptions
from kirby.core.subscriptions import Failure
from kirby.server import check, database, health, schema
from kirby.server.postgres import Postgres
from kirby.server.supervisors import Supervisor

THROWAWAY = (
    "near: server: fsync, full_page_writes, synchronous_commit off; it says that it may be lost"
)
ALONE = "no supervisor is alive"


@pytest.fixture
def report(log, as_role):
    """`report()`: the findings, as the server's login sees them, but for what every test has."""
    engine = database.engine(as_role(log.dsn, "kirby_server"), size=1)

    def report():
        with database.unit(engine) as conn:
            found = check.report(conn)
        return [str(each) for each in found.findings
                if ALONE not in each.what and each.about != "server"]  # fmt: skip

    yield report
    engine.dispose()


def patient(monkeypatch, name, *limits):
    """Lower limits, so that no test has to wait for an hour."""
    monkeypatch.setattr(check, name, limits if len(limits) > 1 else limits[0])


def test_a_well_house_is_well(log, kirby):
    log.publish("orders", 1)
    log.drain(log.subscribe("orders"))

    done = kirby("db", "check")

    assert done.code == 0
    first, *rest = done.out.splitlines()
    assert first.endswith(f" is well: schema {schema.head()}")
    assert [line for line in rest if ALONE not in line] == [THROWAWAY]


def test_the_report_as_a_document(log, kirby):
    log.old("orders", 10, "3 days")
    log.subscribe("orders")
    log.keep("orders", "1 day")

    found = json.loads(kirby("db", "check", "--json").out)

    assert (found["well"], found["schema"]) == (True, schema.head())
    assert {each["level"] for each in found["findings"]} == {"near"}
    facts = found["facts"]
    assert [log["name"] for log in facts["logs"]] == [
        "message", "job_event", "log_line", "state_mutation", "secret_access", "audit_event",
    ]  # fmt: skip
    assert all(log["ahead"] == 2 and log["positions_left"] > 2 * 10**7 for log in facts["logs"])
    [policy] = facts["topics_kept"]
    assert (policy["keep"], policy["blocked_by"]) == ("1d", "job")
    assert facts["server"]["notifications"] == 0


# Who holds up the log


def test_who_holds_back_a_topic(log, report, monkeypatch):
    patient(monkeypatch, "HELD", 0.0, 3600.0)
    log.publish("orders", 1)
    with psycopg.connect(log.dsn, application_name="slow importer") as writer:
        writer.execute("select kirby.publish('orders', '2')")
        pid = writer.info.backend_pid
        [line] = report()

    assert line.startswith("near: topic dev/orders: its readers have been held back for 0 s by")
    assert f"pid {pid} (slow importer, idle in transaction)" in line
    assert line.endswith(f"end that transaction, or: select pg_terminate_backend({pid})")
    assert report() == []


def test_somebody_who_holds_back_a_topic_for_long_is_wrong(log, kirby, monkeypatch):
    patient(monkeypatch, "HELD", 0.0, 0.0)
    log.publish("orders", 1)
    with psycopg.connect(log.dsn) as writer:
        writer.execute("select kirby.publish('orders', '2')")
        done = kirby("db", "check")

    assert done.code == 1
    first, second, *_ = done.out.splitlines()
    assert first.endswith("is not well: 1 thing is wrong")
    assert second.startswith("wrong: topic dev/orders: ")


def test_old_snapshots_are_named_with_who_has_them(log, report, monkeypatch):
    patient(monkeypatch, "SNAPSHOT", 0.0, 3600.0)
    with psycopg.connect(log.dsn, application_name="report") as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select count(*) from kirby.topic")
        pid = reader.info.backend_pid
        [line] = [line for line in report() if "(report, idle in transaction)" in line]

    assert line.startswith(f"near: old snapshot: pid {pid} (report, ")
    assert "keeps dead rows" in line


def test_snapshots_of_other_databases_count_too(log, report, monkeypatch, server):
    patient(monkeypatch, "SNAPSHOT", 0.0, 3600.0)
    with psycopg.connect(server, application_name="elsewhere") as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select count(*) from pg_class")

        assert any(
            "(elsewhere, idle in transaction) in postgres keeps" in line for line in report()
        )


def test_prepared_transactions_are_named_and_what_they_hold_back(tmp_path, monkeypatch):
    """On a server of its own: they have to be switched on when it starts."""
    patient(monkeypatch, "HELD", 0.0, 3600.0)
    postgres = Postgres(tmp_path, durable=False, settings={"max_prepared_transactions": "5"})
    postgres.start()
    engine = database.engine(postgres.dsn("postgres"), size=1)
    try:
        schema.migrate(postgres.dsn("postgres"))
        with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as conn:
            conn.execute("select kirby.write(%s::jsonb)", ['{"orders": [{"v": 1}]}'])
            conn.execute("begin")
            conn.execute("select kirby.write(%s::jsonb)", ['{"orders": [{"v": 2}]}'])
            conn.execute("prepare transaction 'half done'")
        with database.unit(engine) as conn:
            lines = [str(finding) for finding in check.report(conn).findings]
    finally:
        engine.dispose()
        postgres.stop()

    assert any(
        line.startswith("near: prepared transaction: half done of kirby in postgres is open since")
        for line in lines
    )
    [line] = [line for line in lines if "topic dev/orders" in line]
    assert "by nobody connected (prepared as half done)" in line
    assert line.endswith("commit or roll back the prepared transaction")


def facts(log, as_role, **changed):
    """The facts as they are, with some of them made up."""
    import dataclasses

    engine = database.engine(as_role(log.dsn, "kirby_server"), size=1)
    with database.unit(engine) as conn:
        known = check.facts(conn)
    engine.dispose()
    server = changed.pop("server", {})
    changed["server"] = dataclasses.replace(known.server, **server)
    return dataclasses.replace(known, **changed)


def judged(known):
    return [str(finding) for judge in check.JUDGES for finding in judge(known)
            if finding.about != "leader"]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"unsafe": ["fsync"], "throwaway": False}, "wrong: server: fsync off: a power cut loses"),
        ({"notifications": 0.11}, "near: notifications: their queue is 11% full"),
        ({"notifications": 0.6}, "wrong: notifications: their queue is 60% full"),
        (
            {"transactions": 1_100_000_000},
            "near: wraparound: the oldest transaction is 1,100,000,000",
        ),
        ({"multixacts": 1_700_000_000}, "wrong: wraparound: the oldest multixact is 1,700,000,000"),
        ({"position": 2**62}, "near: positions: 4,611,686,018,427,387,904 of"),
        ({"sees_all": False}, "near: rights: this login does not see what other sessions do"),
    ],
)
def test_the_server_is_judged(log, as_role, changed, said):
    safe = {"unsafe": [], **changed}

    [line] = judged(facts(log, as_role, server=safe))

    assert line.startswith(said)


@pytest.mark.parametrize(
    ("slot", "said"),
    [
        (health.Snapshot("slot", None, "old", "logical", None, None, 5, False),
         "near: replication slot old: it is not in use and keeps 5 transactions of dead rows"),
        (health.Snapshot("slot", 7, "busy", "physical", None, None, 200_000_000, True),
         "wrong: replication slot busy: it is in use and keeps 200,000,000 transactions"),
        (health.Snapshot("slot", 7, "fine", "physical", None, None, 5, True), None),
    ],
)  # fmt: skip
def test_replication_slots_are_judged(log, as_role, slot, said):
    lines = judged(facts(log, as_role, server={"unsafe": []}, snapshots=[slot]))

    assert [line.startswith(said) for line in lines] == ([True] if said else [])


def test_dead_rows_are_judged(log, as_role):
    tables = [
        health.HotTable("cursor", 100, 9_000, None),
        health.HotTable("claim", 100, 20_000, None),
        health.HotTable("due", 1_000_000, 200_000, None),
        health.HotTable("run", 10, 200_000, None),
    ]

    lines = judged(facts(log, as_role, server={"unsafe": []}, hot_tables=tables))

    assert [line.partition(",")[0] for line in lines] == [
        "near: table kirby.claim: 20",
        "wrong: table kirby.run: 200",
    ]
    assert "20,000 dead rows beside 100 live ones, cleaned up: never" in lines[0]


def test_the_leader_is_judged(log, as_role):
    nobody = "00000000-0000-0000-0000-000000000000"
    alive = [
        Supervisor(nobody, "here", "/", 1, 1, [], "", 2, None, None, None, None, False, 0, 0, True)
    ]

    def said(**changed):
        return [str(finding) for finding in check._leader(facts(log, as_role, **changed))]

    held = [health.Lease("leader", "x", 1, None, True, "here", 1)]
    assert said(supervisors=[])[0].startswith("near: leader: no supervisor is alive")
    assert said(supervisors=alive, leases=[])[0].startswith("wrong: leader: none of the supervis")
    late = {"counted_ago": 700.0}
    assert said(supervisors=alive, leases=held, server=late) == [
        "wrong: counts: messages were last counted 12 min ago; lag and lookups by time get slower;"
        " look at the leader's output"
    ]
    assert said(supervisors=alive, leases=held, server={"counted_ago": 1.0}) == []


# Room and retention


def test_a_default_partition_in_use_is_wrong(log, report):
    log.publish("orders", 1)
    log.value("select setval('kirby.position', 95000000)")
    log.publish("orders", 1)

    lines = report()

    assert "wrong: log message: its default partition has rows: none was opened in time" in lines[0]
    assert any("wrong: log job_event: partitions are open for 0 more positions" in x for x in lines)
    log.value("select kirby.open_partitions()")
    assert report() == []


def test_little_room_is_near(log, report):
    log.ask("insert into kirby.pace (at, position) values (now() - interval '1000 s', 0)")
    log.value("select setval('kirby.position', 20000000)")

    assert any(
        line.startswith(
            "near: log message: partitions are open for 9,999,999 more positions, 8 min"
        )
        for line in report()
    )


def test_who_keeps_a_topic_from_shrinking(log, report):
    log.old("orders", 10, "3 days")
    log.subscribe("orders", "forgotten")
    log.keep("orders", "1 day")
    log.count()

    [late, behind] = report()

    assert late.startswith(
        "near: topic dev/orders: its oldest message is 2 d older than the 1d it is kept:"
        " subscription forgotten is not done with it (not handed out yet)"
    )
    assert "kirby topic retention orders --env dev --keep 1d --even-unread" in late
    assert behind.startswith("near: subscription dev/orders/forgotten: 10 messages are not done")


def test_retention_that_does_not_happen_is_wrong(log, report):
    log.old("orders", 10, "3 days")
    log.keep("orders", "1 day")
    log.ask(
        "insert into kirby.log_line (position, run_id, stream, level, text, at)"
        " select nextval('kirby.position'), 1, 'stdout', 'info', 'x', now() - interval '200 days'"
    )

    lines = report()

    assert lines[0].startswith(
        "wrong: topic dev/orders: its oldest message is 2 d older than the 1d"
    )
    assert lines[1].startswith("wrong: log log_line: its oldest row is 110 d older than the 90d")
    log.retain()
    assert report() == []


# Subscriptions


def test_who_is_behind(log, report):
    log.old("orders", 10, "10 minutes")
    job = log.subscribe("orders")

    [line] = report()
    assert line == (
        "near: subscription dev/orders/job: 10 messages are not done, the oldest is 10 min old;"
        " start its job, give it replicas, or look at its run"
    )
    log.value("select kirby.pause_subscription(%s, true, 'test')", job)
    assert report() == []


def test_what_is_parked(log, report):
    job = log.subscribe("orders")
    log.publish("orders", 1)
    batch = subscriptions.claim(log.conn, job, 10)
    subscriptions.settle(log.conn, batch, failures=[Failure(batch.positions[0], "park", "bad")])

    assert report() == [
        "near: subscription dev/orders/job: 1 messages are parked;"
        " kirby subscription show orders job --env dev"
    ]


def test_claims_that_nobody_takes_over(log, report):
    job = log.subscribe("orders")
    log.publish("orders", 1)
    subscriptions.claim(log.conn, job, 10)
    log.later("3 minutes")

    [line] = report()
    assert "1 claims ended a minute ago and nobody took them over" in line


def test_it_is_quick_with_many_topics_and_subscriptions(log, report):
    """No figure of the report is asked for topic by topic, table by table, from here."""
    log.ask(
        "insert into kirby.topic (environment_id, name)"
        " select 1, 't' || n from generate_series(1, 300) n"
    )
    for number in range(100):
        log.subscribe(f"t{number + 1}")
    done = threading.Event()

    def look():
        assert report() == []
        done.set()

    thread = threading.Thread(target=look)
    thread.start()
    assert done.wait(10)
    thread.join()


def test_the_page_shows_it(log, admin):
    log.old("orders", 10, "3 days")
    log.subscribe("orders", "forgotten")
    log.keep("orders", "1 day")

    page = admin.get("/health").text

    assert "What is wrong, or near it" in page
    assert "forgotten is not done with it: not handed out yet" in page
    assert "kirby topic retention orders --env dev --keep 1d --even-unread" in page
    assert "by topic" in page


def test_runs_that_nobody_may_take_are_named(log, as_role):
    runs = Runs(log.conn)
    owner = "00000000-0000-0000-0000-000000000001"
    runs.ask("select kirby.register_supervisor(%s, 'a', 'f', 1, 9, '1 hour', array['eu'])", owner)
    late = "p_delay => -interval '5 minutes'"
    for labels in (["gpu"], ["gpu"], ["eu"], []):
        deployment = runs.deploy(labels=labels)
        runs.ask(f"select kirby.queue_run(%s, 'manual', 'test', {late})", deployment)

    [finding] = [line for line in judged(facts(log, as_role)) if "labels" in line]

    assert finding == (
        "near: labels gpu: 2 queued for them, the oldest 5 min ago, and no supervisor has them;"
        " start 'kirby supervisor --labels gpu' on such a host"
    )
