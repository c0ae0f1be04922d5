"""A canary: which lanes it serves, its replicas, its beginning and end; rolling deploys."""

import psycopg
import pytest
from fix_runs import Runs, drive, supervise_fixture  # noqa: F401
from fix_subscription import CLOCK
from test_hosts import claim, settle, supervisor

TAKEN = """
    select (kirby.take_lane(s, %s, 10, '1 minute')).lane as lane
      from kirby.subscription s where s.name = %s
"""


@pytest.fixture
def jobs(dsn):
    """Runs of a database of its own: what is not committed cannot be claimed."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Runs(conn)


@pytest.fixture
def watch(jobs):
    """A daemon of two replicas that reads `orders`; version 2 is there, not deployed."""
    deployment = jobs.deploy("one", name="watch", kind="daemon", replicas=2)
    jobs.deploy("two", name="watch", kind="daemon", replicas=4)
    jobs.ask("update kirby.deployment set version = 1 where id = %s returning id", deployment)
    return deployment


def subscribe(jobs, lanes=8, bands=1, topic="orders", name="watch"):
    jobs.ask("select kirby.open_topic(%s, %s, %s)", topic, lanes, bands)
    jobs.ask("select kirby.subscribe(%s, %s)", topic, name)
    for key in range(20 * lanes):
        jobs.ask("select kirby.publish(%s, '{}', key => %s)", topic, f"key {key}")


def begin(jobs, deployment, share=0.25, version=2):
    jobs.ask("select kirby.set_canary(%s, %s, %s, 'test', 'why')", deployment, version, share)


def end(jobs, deployment, promote):
    return jobs.value("select kirby.end_canary(%s, %s, 'test', 'why')", deployment, promote)


def a_run(jobs, deployment, canary):
    return jobs.value(
        "select kirby.queue_run(%s, 'daemon', 'test', p_version => %s, p_canary => %s)",
        deployment, 2 if canary else 1, canary,
    )  # fmt: skip


def lanes(jobs, run_id, name="watch"):
    """Every lane that a run can claim of, one claim after the other."""
    found = set()
    while (lane := jobs.ask(TAKEN, run_id, name)[0]["lane"]) is not None:
        found.add(lane)
    return found


@pytest.mark.parametrize(
    ("share", "own"),
    [(0.25, {0, 1}), (0.01, {0}), (0.5, {0, 1, 2, 3}), (0.99, set(range(7)))],
)
def test_a_share_of_the_lanes_is_the_canarys_alone(share, own, jobs, watch):
    subscribe(jobs)
    begin(jobs, watch, share)

    assert lanes(jobs, a_run(jobs, watch, True)) == own
    assert lanes(jobs, a_run(jobs, watch, False)) == set(range(8)) - own


def test_whoever_has_no_run_is_no_canary(jobs, watch):
    subscribe(jobs)
    begin(jobs, watch)

    assert lanes(jobs, None) == set(range(2, 8))


def test_a_key_is_the_canarys_in_every_band(jobs, watch):
    subscribe(jobs, lanes=8, bands=2)
    for band in (0, 1):
        jobs.ask(
            "select kirby.publish_within(%s)",
            psycopg.types.json.Jsonb(
                {"orders": {"m": [{"v": 1, "k": f"key {n}", "b": band} for n in range(80)]}}
            ),
        )
    begin(jobs, watch)

    assert lanes(jobs, a_run(jobs, watch, True)) == {0, 4}
    assert lanes(jobs, a_run(jobs, watch, False)) == {1, 2, 3, 5, 6, 7}


def test_another_subscription_is_left_alone(jobs, watch):
    subscribe(jobs)
    subscribe(jobs, name="audit")
    begin(jobs, watch)

    assert lanes(jobs, a_run(jobs, watch, False), "audit") == set(range(8))


@pytest.mark.parametrize("promote", [True, False])
def test_at_its_end_everybody_serves_all(promote, jobs, watch):
    subscribe(jobs)
    begin(jobs, watch)

    assert end(jobs, watch, promote) == (2 if promote else 1)

    assert lanes(jobs, a_run(jobs, watch, False)) == set(range(8))
    [row] = jobs.ask("select * from kirby.deployment where id = %s", watch)
    assert (row["version"], row["rolling"]) == ((2, True) if promote else (1, False))
    assert (row["canary_version"], row["canary_share"]) == (None, None)


def test_the_share_can_be_changed(jobs, watch):
    subscribe(jobs)
    begin(jobs, watch, 0.25)
    begin(jobs, watch, 0.5)

    assert lanes(jobs, a_run(jobs, watch, True)) == {0, 1, 2, 3}


WRONG = {
    "another version": ("KB004", "version 2 is the canary of watch already", {"version": 1}),
    "no version": ("KB002", "watch has no version 9 in dev", {"version": 9}),
    "no share": ("KB001", "a share above 0% and below 100%", {"share": 0}),
    "all": ("KB001", "a share above 0% and below 100%", {"share": 1}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_canary_that_cannot_be(case, jobs, watch):
    state, text, asked = WRONG[case]
    if state == "KB004":
        begin(jobs, watch)

    with pytest.raises(psycopg.Error, match=text) as refused, jobs.conn.transaction():
        begin(jobs, watch, **asked)

    assert refused.value.sqlstate == state


def test_one_lane_cannot_be_shared_out(jobs, watch):
    subscribe(jobs, lanes=1, topic="single")

    with (
        pytest.raises(psycopg.Error, match=r"topic single has one lane.*kirby topic lanes"),
        jobs.conn.transaction(),
    ):
        begin(jobs, watch)


def test_a_canary_that_is_none_cannot_end(jobs, watch):
    with pytest.raises(psycopg.Error, match="watch has no canary in dev") as refused:
        end(jobs, watch, True)

    assert refused.value.sqlstate == "KB008"


def replicas(jobs, deployment):
    """The version, canary and number of each replica that is under way."""
    rows = jobs.ask(
        "select version, canary, replica from kirby.run where deployment_id = %s"
        " and status in ('starting', 'running') and cancel_at is null order by canary, replica",
        deployment,
    )
    return [tuple(row.values()) for row in rows]


def test_its_replicas_stand_beside_the_others_and_go_with_it(jobs, watch):
    owner = supervisor(jobs, "here")
    settle(jobs, [owner])
    begin(jobs, watch, 0.5)

    settle(jobs, [owner])

    assert replicas(jobs, watch) == [(1, False, 0), (1, False, 1), (2, True, 0)]
    end(jobs, watch, False)
    settle(jobs, [owner])
    assert replicas(jobs, watch) == [(1, False, 0), (1, False, 1)]
    told = jobs.ask("select verb, reason from kirby.audit_event order by position")
    assert [row["verb"] for row in told][-2:] == ["canary_set", "canary_aborted"]
    assert told[-1]["reason"] == "why"


# One after the other


@pytest.fixture
def later(jobs):
    """`later(6)`: six seconds pass; supervisors renew their leases."""
    jobs.conn.execute(CLOCK)

    def later(seconds):
        jobs.ask("update kirby.test_clock set shift = shift + make_interval(secs => %s)"
                 " returning shift", seconds)  # fmt: skip
        jobs.conn.execute("update kirby.supervisor set lease_until = kirby.now() + '1 minute'")

    return later


def roll(jobs, owner):
    """One round of the leader and a supervisor: what is asked to end ends, what is due starts."""
    jobs.value("select kirby.plan_daemons()")
    asked = jobs.ask("select id from kirby.run where cancel_at is not null and ended_at is null")
    for row in asked:
        jobs.ask("select kirby.record_run(%s, 'run_cancelled', '{}', 'test')", row["id"])
    claim(jobs, owner)
    return len(asked)


def test_replicas_are_replaced_one_after_the_other(jobs, watch, later):
    owner = supervisor(jobs, "here")
    settle(jobs, [owner])
    jobs.ask("update kirby.deployment set version = 2, rolling = true returning id")
    jobs.ask("update kirby.deployment_version set replicas = 2 returning version")
    later(10)
    seen = [[version for version, _, _ in replicas(jobs, watch)]]
    for _ in range(4):
        roll(jobs, owner)
        seen.append([version for version, _, _ in replicas(jobs, watch)])
        roll(jobs, owner)
        assert [version for version, _, _ in replicas(jobs, watch)] == seen[-1]  # it has to stay up
        later(6)

    assert [sorted(versions) for versions in seen] == [[1, 1], [1, 2], [2, 2], [2, 2], [2, 2]]
    assert jobs.value("select rolling from kirby.deployment where id = %s", watch) is False


def test_a_version_that_does_not_stay_up_stops_it(jobs, watch, later):
    owner = supervisor(jobs, "here")
    settle(jobs, [owner])
    jobs.ask("update kirby.deployment set version = 2, rolling = true returning id")
    jobs.ask("update kirby.deployment_version set replicas = 2 returning version")
    later(10)
    for _ in range(6):
        roll(jobs, owner)
        for row in jobs.ask("select id from kirby.run where version = 2 and status = 'running'"):
            later(1)
            jobs.ask("select kirby.record_run(%s, 'run_failed', '{}', 'test')", row["id"])
        later(20)

    assert [version for version, _, _ in replicas(jobs, watch)].count(1) == 1


def test_without_being_asked_nothing_is_replaced(jobs, watch, later):
    owner = supervisor(jobs, "here")
    settle(jobs, [owner])
    jobs.ask("update kirby.deployment set version = 2 returning id")
    jobs.ask("update kirby.deployment_version set replicas = 2 returning version")
    later(60)
    assert roll(jobs, owner) == 0

    assert [version for version, _, _ in replicas(jobs, watch)] == [1, 1]


# Whole: two versions of a stream at work beside each other

STREAM = """
    import kirby

    @kirby.stream("orders", to="done")
    def handle(order):
        return {{"order": order, "by": {}}}

    kirby.run()
"""
DONE = """
    select m.key, m.payload ->> 'by' as by, (m.payload ->> 'order')::int as number
      from kirby.message m join kirby.topic t on t.id = m.topic_id
     where t.name = 'done' order by m.position
"""


def publish(jobs, first, count):
    for number in range(first, first + count):
        jobs.ask("select kirby.publish('orders', %s::text::jsonb, key => %s)", str(number),
                 f"key {number % 40}")  # fmt: skip


def handled(jobs, first, count):
    """Which versions handled each key, once all of them are done."""
    rows = [row for row in jobs.ask(DONE) if row["number"] >= first]
    if len(rows) < count:
        return None
    by = {}
    for row in rows:
        by.setdefault(row["key"], set()).add(row["by"])
    return by


def test_each_key_is_served_by_one_version_and_nothing_twice(jobs, supervise):
    deployment = jobs.deploy(STREAM.format(1), name="watch", kind="daemon", replicas=2)
    supervisor = supervise()
    publish(jobs, 0, 80)
    assert drive(supervisor, lambda: handled(jobs, 0, 80), 60)

    jobs.deploy(STREAM.format(2), name="watch", kind="daemon", replicas=2)
    jobs.ask("update kirby.deployment set version = 1 where id = %s returning id", deployment)
    begin(jobs, deployment)
    drive(supervisor, lambda: (2, True, 0) in replicas(jobs, deployment), 60)
    publish(jobs, 100, 200)
    served = drive(supervisor, lambda: handled(jobs, 100, 200), 60)

    assert {frozenset(by) for by in served.values()} == {frozenset("1"), frozenset("2")}
    end(jobs, deployment, True)
    publish(jobs, 300, 80)  # while its replicas are replaced
    drive(supervisor, lambda: replicas(jobs, deployment) == [(2, False, 0), (2, False, 1)], 60)
    drive(supervisor, lambda: handled(jobs, 300, 80), 60)
    publish(jobs, 400, 80)
    served = drive(supervisor, lambda: handled(jobs, 400, 80), 60)

    assert set().union(*served.values()) == {"2"}
    numbers = [row["number"] for row in jobs.ask(DONE)]
    assert sorted(numbers) == [*range(80), *range(100, 380), *range(400, 480)]
    for key in range(40):
        mine = [row["number"] for row in jobs.ask(DONE) if row["key"] == f"key {key}"]
        assert mine == sorted(mine)
