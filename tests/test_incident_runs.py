"""Incidents of real processes: a supervisor runs them, its leader watches and tells."""

from fix_runs import drive, runs_fixture, supervise_fixture  # noqa: F401

from kirby.core.errors import Invalid

NOTICES = """
    select m.payload from kirby.message m join kirby.topic t on t.id = m.topic_id
     where t.name = 'kirby.notices' order by m.position
"""


def incidents(runs):
    return runs.ask("select * from kirby.incident order by id")


def listen(runs):
    channel = runs.value("insert into kirby.channel (name, url, created_by)"
                         " values ('hook', 'json://127.0.0.1:1', 'test') returning id")  # fmt: skip
    runs.conn.execute("insert into kirby.route (channel_id, scope, created_by)"
                      " values (%s, 'everything', 'test')", [channel])  # fmt: skip


def test_a_script_that_raises_is_told_with_its_error_and_its_last_lines(runs, supervise):
    listen(runs)
    run_id = runs.start(
        """
        import sys
        print("reading orders")
        def main():
            raise ValueError(f"order {17} has no price")
        main()
        """,
        name="report",
    )
    supervisor = supervise()
    [incident] = drive(supervisor, lambda: incidents(runs))
    assert incident["kind"] == "failing"
    assert incident["run_id"] == run_id
    assert incident["title"].endswith("ValueError: order 17 has no price")
    assert "order # has no price" in incident["fingerprint"]
    assert incident["details"]["host"] == "here"

    runs.conn.execute("update kirby.incident set announce_at = kirby.now()")  # not in ten seconds
    [notice] = drive(supervisor, lambda: runs.ask(NOTICES))
    assert notice["payload"]["job"] == "report"
    assert notice["payload"]["log"][0] == "reading orders"
    assert notice["payload"]["log"][-1] == "ValueError: order 17 has no price"

    again = runs.trigger(runs.deploy("print('well')", name="report"))
    drive(supervisor, lambda: runs.get(again)["status"] == "succeeded")
    [incident] = incidents(runs)
    assert incident["status"] == "resolved"
    drive(supervisor, lambda: len(runs.ask(NOTICES)) == 2)
    assert runs.ask(NOTICES)[1]["payload"]["event"] == "resolved"


def test_a_virtualenv_that_does_not_build_says_why(runs, supervise):
    def ensure(lock, sdk):
        raise Invalid("numpy==9.9 cannot be built: gcc is missing\nlots of output")

    runs.start("pass", name="report")
    [incident] = drive(supervise(ensure=ensure), lambda: incidents(runs))
    assert incident["title"] == "virtualenv: numpy==9.9 cannot be built: gcc is missing"
    assert incident["details"]["stage"] == "not started"


def test_a_script_that_is_killed_by_its_timeout_is_failing(runs, supervise):
    runs.start("import time; time.sleep(600)", name="slow", timeout=0.5)
    [incident] = drive(supervise(grace=0.5), lambda: incidents(runs))
    assert incident["details"]["status"] == "timed_out"


def test_the_leader_leaves_a_pulse_and_its_successor_sees_the_gap(runs, supervise):
    first = supervise()
    drive(first, lambda: runs.ask("select at from kirby.pulse"))
    first.stop()
    runs.conn.execute("update kirby.pulse set at = at - interval '10 minutes'")
    runs.deploy("pass", name="worker", kind="daemon", replicas=1, start_by=1.0)
    runs.conn.execute("update kirby.deadline set due_at = kirby.now() - interval '1 minute'")

    [incident] = drive(supervise(), lambda: [i for i in incidents(runs) if i["kind"] == "platform"])
    assert "Kirby itself was down for 10 min" in incident["title"]
