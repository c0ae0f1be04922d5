"""Several supervisors, as the SQL functions see them: where replicas go, draining, versions."""

import random
import threading
import uuid
from collections import Counter

import psycopg
import pytest
from fix_runs import Runs, runs_fixture  # noqa: F401

UNDER_WAY = ("starting", "running")


@pytest.fixture
def jobs(db):
    """Runs on a connection whose changes are rolled back."""
    return Runs(db)


def supervisor(jobs, host, *, labels=(), slots=100):
    found = uuid.uuid4()
    jobs.ask(
        "select kirby.register_supervisor(%s, %s, %s, 1, %s, '1 minute', %s)",
        found, host, str(found), slots, list(labels),
    )  # fmt: skip
    return found


def claim(jobs, owner, slots=100):
    """Claim, and start what was claimed."""
    ids = [row["claim_runs"] for row in jobs.ask("select kirby.claim_runs(%s, %s)", owner, slots)]
    for run_id in ids:
        jobs.ask("select kirby.record_run(%s, 'run_started', '{\"pid\": 1}', 'test')", run_id)
    return ids


def settle(jobs, owners, rounds=200):
    """Let everybody plan, claim, and end what was asked to end, until nothing changes any more."""
    for _ in range(rounds):
        changed = jobs.value("select kirby.plan_daemons()")
        changed += jobs.value("select kirby.balance_daemons()")
        changed += sum(len(claim(jobs, owner, free(jobs, owner))) for owner in owners)
        changed += finish(jobs)
        if not changed:
            return
    pytest.fail("it never comes to rest")


def free(jobs, owner):
    return jobs.value(
        "select s.slots - (select count(*) from kirby.run r where r.supervisor_id = s.id"
        " and r.status in ('starting', 'running')) from kirby.supervisor s where s.id = %s", owner,
    )  # fmt: skip


def finish(jobs):
    asked = jobs.ask(
        "select id from kirby.run where cancel_at is not null and ended_at is null order by id"
    )
    for row in asked:
        jobs.ask("select kirby.record_run(%s, 'run_cancelled', '{}', 'test')", row["id"])
    return len(asked)


def spread(jobs, deployment=None):
    """How many replicas each host has."""
    return Counter(
        row["host"]
        for row in jobs.ask(
            "select s.host from kirby.run r join kirby.supervisor s on s.id = r.supervisor_id"
            " where r.replica is not null and r.status in ('starting', 'running')"
            " and (%s::int is null or r.deployment_id = %s)", deployment, deployment,
        )
    )  # fmt: skip


def daemon(jobs, replicas=1, **options):
    return jobs.deploy("pass", kind="daemon", replicas=replicas, **options)


def expire(jobs, owner):
    jobs.ask("update kirby.supervisor set lease_until = kirby.now() where id = %s returning id",
             owner)  # fmt: skip
    jobs.value("select kirby.reap_supervisors()")


# Where replicas go


def test_whoever_asks_first_does_not_get_all_replicas(jobs):
    owners = [supervisor(jobs, host) for host in "abc"]
    deployment = daemon(jobs, 4)
    jobs.value("select kirby.plan_daemons()")

    for owner in owners:
        claim(jobs, owner)

    assert sorted(spread(jobs, deployment).values()) == [1, 1, 2]


def test_two_supervisors_of_a_host_share_what_is_the_hosts(jobs):
    owners = [supervisor(jobs, host) for host in ("a", "a", "b")]
    deployment = daemon(jobs, 4)

    settle(jobs, owners)

    assert spread(jobs, deployment) == {"a": 2, "b": 2}


def test_many_daemons_of_one_replica_are_spread_too(jobs):
    owners = [supervisor(jobs, host) for host in "abc"]
    for _ in range(10):
        daemon(jobs)

    settle(jobs, owners)

    assert sorted(spread(jobs).values()) == [3, 3, 4]


def test_slots_count(jobs):
    owners = [supervisor(jobs, "a", slots=10), supervisor(jobs, "b", slots=30)]
    for _ in range(12):
        daemon(jobs)

    settle(jobs, owners)

    assert spread(jobs) == {"a": 3, "b": 9}


def test_a_full_host_is_not_waited_for(jobs):
    full, free = supervisor(jobs, "a", slots=1), supervisor(jobs, "b")
    jobs.trigger(jobs.deploy())
    claim(jobs, full, 1)
    deployment = daemon(jobs, 2)
    jobs.value("select kirby.plan_daemons()")

    assert len(claim(jobs, free)) == 2
    assert spread(jobs, deployment) == {"b": 2}


def test_replicas_go_only_where_their_labels_are(jobs):
    owners = [supervisor(jobs, "a"), supervisor(jobs, "b", labels=["gpu"]),
              supervisor(jobs, "c", labels=["gpu"])]  # fmt: skip
    deployment = daemon(jobs, 4, labels=["gpu"])

    settle(jobs, owners)

    assert spread(jobs, deployment) == {"b": 2, "c": 2}


def test_a_replica_that_its_place_does_not_take_goes_to_whoever_asks(jobs):
    eager, _ = supervisor(jobs, "a"), supervisor(jobs, "b")
    daemon(jobs, 2)
    jobs.value("select kirby.plan_daemons()")
    assert len(claim(jobs, eager)) == 1

    jobs.conn.execute("update kirby.run set not_before = not_before - interval '6 seconds'")

    assert len(claim(jobs, eager)) == 1


def test_supervisors_that_claim_at_once_keep_to_their_shares(runs, dsn):
    owners = [supervisor(runs, host) for host in "abcd"]
    deployments = [daemon(runs, 6) for _ in range(3)]
    runs.value("select kirby.plan_daemons()")
    start = threading.Barrier(4)

    def work(owner):
        with psycopg.connect(dsn, autocommit=True) as conn:
            start.wait()
            for _ in range(20):
                claim(Runs(conn), owner)

    threads = [threading.Thread(target=work, args=[owner]) for owner in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for deployment in deployments:
        assert max(spread(runs, deployment).values()) <= 2


# Hosts come and go


def test_a_host_that_comes_gets_its_share_one_after_the_other(jobs):
    first = supervisor(jobs, "a")
    deployment = daemon(jobs, 6)
    settle(jobs, [first])
    second = supervisor(jobs, "b")

    assert jobs.value("select kirby.balance_daemons()") == 1
    assert jobs.value("select kirby.balance_daemons()") == 0  # one at a time
    settle(jobs, [first, second])

    assert spread(jobs, deployment) == {"a": 3, "b": 3}
    moved = [run for run in jobs.of(deployment) if run["status"] == "cancelled"]
    assert [run["reason"] for run in moved] == ["moved to a host with fewer replicas"] * 3


def test_daemons_of_one_replica_move_too_a_tenth_at_a_time(jobs):
    first = supervisor(jobs, "a")
    for _ in range(40):
        daemon(jobs)
    settle(jobs, [first])
    others = [supervisor(jobs, "b"), supervisor(jobs, "c", slots=200)]

    assert jobs.value("select kirby.balance_daemons()") == 4
    settle(jobs, [first, *others])

    assert spread(jobs) == {"a": 10, "b": 10, "c": 20}
    assert jobs.value("select count(*) from kirby.run where status = 'cancelled'") == 30


def test_what_is_balanced_is_left_alone(jobs):
    owners = [supervisor(jobs, host) for host in "abc"]
    for replicas in (1, 2, 3, 4, 5):
        daemon(jobs, replicas)
    settle(jobs, owners)

    assert jobs.value("select kirby.balance_daemons()") == 0
    assert max(spread(jobs).values()) - min(spread(jobs).values()) <= 2


def test_replicas_of_a_host_that_died_come_back_elsewhere_and_spread_again(jobs):
    first, second = supervisor(jobs, "a"), supervisor(jobs, "b")
    deployment = daemon(jobs, 4)
    settle(jobs, [first, second])

    expire(jobs, second)
    settle(jobs, [first])
    assert spread(jobs, deployment) == {"a": 4}

    settle(jobs, [first, supervisor(jobs, "c")])
    assert spread(jobs, deployment) == {"a": 2, "c": 2}


def test_it_comes_to_rest_whatever_the_hosts_and_daemons_are(jobs):
    """A move that is not taken where it was meant to go would be made again for ever."""
    chance = random.Random(1)
    for _ in range(12):
        owners = [
            supervisor(jobs, chance.choice("abc"), slots=chance.choice([5, 20, 60]))
            for _ in range(chance.randint(2, 5))
        ]
        for owner in owners:  # other work, so that some are nearly full
            for _ in range(chance.randint(0, 3)):
                jobs.trigger(jobs.deploy())
            claim(jobs, owner, 3)
        for _ in range(chance.randint(1, 4)):
            daemon(jobs, chance.randint(1, 7))
        settle(jobs, owners[: chance.randint(1, len(owners))])
        settle(jobs, owners)
        assert jobs.value("select kirby.balance_daemons()") == 0
        for owner in owners:
            expire(jobs, owner)


# Draining


def drain(jobs, owner, stop=False):
    return jobs.value("select kirby.drain_supervisor(%s, true, %s)", owner, stop)


def test_a_draining_supervisor_gets_no_more_runs(jobs):
    owner = supervisor(jobs, "a")
    run_id = jobs.trigger(jobs.deploy())

    assert drain(jobs, owner)
    assert not drain(jobs, owner)
    assert claim(jobs, owner) == []

    assert jobs.value("select kirby.drain_supervisor(%s, false)", owner)
    assert claim(jobs, owner) == [run_id]


def test_its_daemons_move_one_replica_after_the_other_and_its_runs_go_on(jobs):
    first, second = supervisor(jobs, "a"), supervisor(jobs, "b")
    deployment = daemon(jobs, 4)
    settle(jobs, [first, second])
    run_id = jobs.trigger(jobs.deploy())
    claim(jobs, first)

    drain(jobs, first)
    assert jobs.value("select kirby.balance_daemons()") == 1
    settle(jobs, [first, second])

    assert spread(jobs, deployment) == {"b": 4}
    assert jobs.get(run_id)["status"] == "running"


def test_the_last_supervisor_can_be_drained_too(jobs):
    owner = supervisor(jobs, "a")
    daemon(jobs, 2)
    settle(jobs, [owner])

    drain(jobs, owner)
    for _ in range(5):
        jobs.value("select kirby.balance_daemons()")
        finish(jobs)
        claim(jobs, owner)

    assert spread(jobs) == {}


def test_a_supervisor_that_ended_cannot_be_drained(jobs):
    owner = supervisor(jobs, "a")
    jobs.ask("select kirby.end_supervisor(%s, 'x')", owner)

    with pytest.raises(psycopg.Error) as caught:
        drain(jobs, owner)
    assert caught.value.sqlstate == "KB002"


# Versions


def register(jobs, *more):
    marks = "".join(", %s" for _ in more)
    jobs.ask(f"select kirby.register_supervisor(%s, 'a', 'f', 1, 9{marks})", uuid.uuid4(), *more)


def test_supervisors_of_this_version_and_of_the_one_before_are_served(jobs):
    protocol = jobs.value("select kirby.server_protocol()")

    register(jobs, "1 minute", ["gpu"], "3.1", protocol)
    register(jobs, "1 minute", [], "3.0", protocol - 1)
    register(jobs)  # as one that knows of neither labels nor versions does

    assert (
        jobs.value("select count(*) from kirby.supervisor where protocol = %s - 1", protocol) == 2
    )


@pytest.mark.parametrize(("away", "words"), [(-2, "upgrade Kirby on a"), (1, "kirby db migrate")])
def test_others_are_told_what_to_do(jobs, away, words):
    protocol = jobs.value("select kirby.server_protocol()")

    with pytest.raises(psycopg.Error, match=words) as caught:
        register(jobs, "1 minute", [], "x", protocol + away)
    assert caught.value.sqlstate == "KB009"


def test_a_supervisor_of_the_version_before_claims_and_ends_runs(jobs):
    """The calls of one that was made before entries, labels and figures."""
    owner = uuid.uuid4()
    jobs.ask("select kirby.register_supervisor(%s, 'a', 'f', 1, 9, make_interval(secs => 15))",
             owner)  # fmt: skip
    run_id = jobs.trigger(jobs.deploy())

    assert claim(jobs, owner, 3) == [run_id]
    end = '{"exit_code": 0}'
    jobs.ask("select kirby.record_run(%s, 'run_succeeded', %s, p_supervisor_id => %s)",
             run_id, end, owner)  # fmt: skip
    jobs.ask("select kirby.end_supervisor(%s, 'the supervisor was stopped')", owner)

    assert jobs.get(run_id)["status"] == "succeeded"
    assert jobs.ask("select * from kirby.verify_runs()") == []
