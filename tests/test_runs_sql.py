"""The state machine of runs, and what follows from an end, as the SQL functions decide it."""

import threading
import uuid

import psycopg
import pytest
from fix_runs import Runs, runs_fixture  # noqa: F401

CHOICES = ("succeeded", "failed", "cancelled", "timed_out", "lost")


@pytest.fixture
def jobs(db):
    """Runs on a connection whose changes are rolled back."""
    return Runs(db)


def supervisor(jobs, folder="folder", lease="1 minute"):
    found = uuid.uuid4()
    jobs.ask("select kirby.register_supervisor(%s, 'here', %s, 1, 9, %s)", found, folder, lease)
    return found


def record(jobs, run_id, type, data="{}", owner=None):
    jobs.ask("select kirby.record_run(%s, %s, %s, 'test', %s)", run_id, type, data, owner)


def claim(jobs, owner, slots=10):
    return [row["claim_runs"] for row in jobs.ask("select kirby.claim_runs(%s, %s)", owner, slots)]


def running(jobs, deployment, owner=None):
    """A run of the deployment, under way at a supervisor."""
    owner = owner or supervisor(jobs)
    run_id = jobs.trigger(deployment)
    claim(jobs, owner)
    record(jobs, run_id, "run_started", '{"pid": 1}')
    return run_id


def refused(jobs, sqlstate):
    """A savepoint around a refusal, which must have this SQLSTATE."""

    class Refused:
        def __enter__(self):
            self.raises = pytest.raises(psycopg.Error)
            self.savepoint = jobs.conn.transaction()
            self.caught = self.raises.__enter__()
            self.savepoint.__enter__()

        def __exit__(self, *error):
            self.savepoint.__exit__(*error)
            assert self.raises.__exit__(*error)
            assert self.caught.value.sqlstate == sqlstate
            return True

    return Refused()


# One step after the other

STEPS = {
    "queued": {"run_claimed": "starting", "run_cancelled": "cancelled"},
    "starting": {
        "run_started": "running",
        "run_cancel_requested": "starting",
        "run_cancelled": "cancelled",
        "run_failed": "failed",
        "run_lost": "lost",
    },
    "running": {
        "run_cancel_requested": "running",
        "run_cancelled": "cancelled",
        "run_succeeded": "succeeded",
        "run_failed": "failed",
        "run_timed_out": "timed_out",
        "run_lost": "lost",
    },
    **{ended: {} for ended in CHOICES},
}
TYPES = sorted({type for steps in STEPS.values() for type in steps} | {"run_queued", "nonsense"})


def run_in(jobs, status):
    run_id = jobs.trigger(jobs.deploy())
    if status != "queued":
        record(jobs, run_id, "run_claimed")
    if status not in ("queued", "starting"):
        record(jobs, run_id, "run_started")
    if status in CHOICES:
        record(jobs, run_id, f"run_{status}")
    return run_id


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("status", STEPS)
def test_a_run_takes_only_the_steps_that_are_possible(jobs, status, type):
    run_id = run_in(jobs, status)

    if type in STEPS[status]:
        record(jobs, run_id, type)
        assert jobs.get(run_id)["status"] == STEPS[status][type]
        assert jobs.events(run_id)[-1] == type
    else:
        before = jobs.events(run_id)
        with refused(jobs, "KB008"):
            record(jobs, run_id, type)
        assert jobs.get(run_id)["status"] == status
        assert jobs.events(run_id) == before


def test_an_ended_run_has_an_end_and_the_others_have_none(jobs):
    for status in STEPS:
        run = jobs.get(run_in(jobs, status))
        assert (run["ended_at"] is not None) == (status in CHOICES)


def test_the_projection_can_be_rebuilt_from_the_first_event(jobs):
    run_id = jobs.trigger(jobs.deploy())

    [event] = jobs.ask("select * from kirby.job_event where run_id = %s", run_id)

    run = jobs.get(run_id)
    for name in ("id", "deployment_id", "environment_id", "version", "status", "cause", "actor"):
        assert event["data"][name] == run[name]


def test_there_is_no_run_of_a_deployment_that_does_not_exist(jobs):
    with refused(jobs, "KB002"):
        jobs.trigger(-1)
    with refused(jobs, "KB002"):
        record(jobs, -1, "run_claimed")
    with refused(jobs, "KB002"):
        jobs.ask("select kirby.cancel_run(-1, 'x', 'test')")
    with refused(jobs, "KB002"):
        jobs.ask("select kirby.retry_run(-1, 'test')")


def test_a_run_of_another_supervisor_is_not_recorded(jobs):
    run_id = running(jobs, jobs.deploy())

    with refused(jobs, "KB005"):
        record(jobs, run_id, "run_succeeded", owner=uuid.uuid4())


# Claiming


def test_runs_are_claimed_oldest_first_and_no_more_than_asked_for(jobs):
    deployment = jobs.deploy()
    ids = [jobs.trigger(deployment) for _ in range(3)]
    owner = supervisor(jobs)

    assert claim(jobs, owner, 2) == ids[:2]
    assert claim(jobs, owner, 2) == ids[2:]
    assert claim(jobs, owner, 0) == []
    assert {jobs.get(run_id)["supervisor_id"] for run_id in ids} == {owner}


def test_a_run_that_is_to_wait_is_not_claimed(jobs):
    deployment = jobs.deploy()
    jobs.ask("select kirby.queue_run(%s, 'manual', 'test', p_delay => '1 minute')", deployment)

    assert claim(jobs, supervisor(jobs)) == []


@pytest.mark.parametrize("why", ["unknown", "ended", "late"])
def test_a_supervisor_without_a_lease_claims_nothing(jobs, why):
    jobs.trigger(jobs.deploy())
    owner = supervisor(jobs, lease="-1 second" if why == "late" else "1 minute")
    if why == "ended":
        jobs.ask("select kirby.end_supervisor(%s, 'x')", owner)

    with refused(jobs, "KB005"):
        claim(jobs, uuid.uuid4() if why == "unknown" else owner)


def test_two_supervisors_never_claim_the_same_run(runs, dsn):
    deployment = runs.deploy()
    ids = {runs.trigger(deployment) for _ in range(60)}
    owners = [supervisor(runs, folder=str(n)) for n in range(4)]
    start = threading.Barrier(4)
    claimed = []

    def work(owner):
        with psycopg.connect(dsn, autocommit=True) as conn:
            start.wait()
            while found := claim(Runs(conn), owner, 7):
                claimed.extend(found)

    threads = [threading.Thread(target=work, args=[owner]) for owner in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claimed) == 60
    assert set(claimed) == ids


# Cancelling


def test_a_queued_run_is_cancelled_at_once(jobs):
    run_id = run_in(jobs, "queued")

    assert jobs.value("select kirby.cancel_run(%s, 'enough', 'me')", run_id)

    run = jobs.get(run_id)
    assert (run["status"], run["reason"]) == ("cancelled", "enough")


@pytest.mark.parametrize("status", ["starting", "running"])
def test_a_run_under_way_is_asked_to_end_once(jobs, status):
    run_id = run_in(jobs, status)

    assert jobs.value("select kirby.cancel_run(%s, 'enough', 'me')", run_id)
    assert not jobs.value("select kirby.cancel_run(%s, 'again', 'me')", run_id)

    run = jobs.get(run_id)
    assert (run["status"], run["reason"]) == (status, "enough")
    assert run["cancel_at"] is not None
    assert jobs.events(run_id).count("run_cancel_requested") == 1


@pytest.mark.parametrize("status", CHOICES)
def test_an_ended_run_is_not_cancelled(jobs, status):
    run_id = run_in(jobs, status)

    with refused(jobs, "KB008"):
        jobs.ask("select kirby.cancel_run(%s, 'x', 'test')", run_id)


def test_the_reason_of_a_cancellation_outlives_the_end(jobs):
    run_id = run_in(jobs, "running")
    jobs.ask("select kirby.cancel_run(%s, 'enough', 'me')", run_id)

    record(jobs, run_id, "run_cancelled", '{"signal": 15}')

    assert jobs.get(run_id)["reason"] == "enough"
    assert jobs.get(run_id)["signal"] == 15


# What follows from an end


@pytest.mark.parametrize("status", CHOICES)
def test_the_token_of_an_ended_run_is_revoked(jobs, status):
    run_id = run_in(jobs, "running")
    jobs.ask(
        "insert into kirby.token (hash, environment_id, run_id, name)"
        " values (%s, 1, %s, 'x') returning hash", run_id.to_bytes(8, "big"), run_id,
    )  # fmt: skip

    record(jobs, run_id, f"run_{status}")

    assert jobs.value("select revoked_at is not null from kirby.token where run_id = %s", run_id)


@pytest.mark.parametrize("status", CHOICES)
def test_the_claims_of_an_ended_run_are_free_and_fenced(jobs, status):
    run_id = run_in(jobs, "running")
    before = jobs.value(
        """
        with t as (insert into kirby.topic (environment_id, name) values (1, 'x') returning id),
             s as (insert into kirby.subscription (topic_id, name, mode)
                   select id, 'reader', 'ordered' from t returning id)
        insert into kirby.claim (subscription_id, lane, first, last, upto, run_id, lease_until)
        select id, 0, 1, 9, 9, %s, 'infinity' from s returning fence
        """,
        run_id,
    )

    record(jobs, run_id, f"run_{status}")

    assert jobs.value(
        "select lease_until = '-infinity' and fence > %s and suspect = %s"
        "  from kirby.claim where run_id = %s",
        before, status in ("failed", "timed_out"), run_id,
    )  # fmt: skip


def retries(jobs, run_id):
    return jobs.ask("select * from kirby.run where retry_of = %s", run_id)


@pytest.mark.parametrize("status", ["failed", "timed_out"])
def test_a_failed_run_is_tried_again_after_a_back_off_as_often_as_allowed(jobs, status):
    run_id = running(jobs, jobs.deploy(max_attempts=2))
    record(jobs, run_id, f"run_{status}")

    [again] = retries(jobs, run_id)
    assert (again["attempt"], again["cause"], again["status"]) == (2, "retry", "queued")
    assert again["not_before"] > jobs.value("select kirby.now()")

    record(jobs, again["id"], "run_claimed")
    record(jobs, again["id"], "run_started")
    record(jobs, again["id"], f"run_{status}")
    assert retries(jobs, again["id"]) == []


@pytest.mark.parametrize("status", ["succeeded", "cancelled"])
def test_a_run_that_did_not_fail_is_not_tried_again(jobs, status):
    run_id = running(jobs, jobs.deploy(max_attempts=5))

    record(jobs, run_id, f"run_{status}")

    assert retries(jobs, run_id) == []


def test_a_lost_run_is_run_again_at_once_and_it_costs_no_attempt(jobs):
    run_id = running(jobs, jobs.deploy(max_attempts=2))

    record(jobs, run_id, "run_lost")

    [again] = retries(jobs, run_id)
    assert again["attempt"] == 1
    assert again["not_before"] <= jobs.value("select kirby.now()")


def test_a_lost_run_is_run_again_at_its_own_version(jobs):
    run_id = running(jobs, jobs.deploy("1", name="moving"))
    jobs.deploy("2", name="moving")

    record(jobs, run_id, "run_lost")

    assert [run["version"] for run in retries(jobs, run_id)] == [1]


def test_a_lost_run_stays_lost_if_its_deployment_says_so(jobs):
    run_id = running(jobs, jobs.deploy(rerun_lost=False))

    record(jobs, run_id, "run_lost")

    assert retries(jobs, run_id) == []


@pytest.mark.parametrize("status", ["lost", "failed"])
def test_a_run_that_was_to_be_cancelled_is_not_run_again_however_it_ended(jobs, status):
    run_id = running(jobs, jobs.deploy(max_attempts=3))
    jobs.ask("select kirby.cancel_run(%s, 'enough', 'me')", run_id)

    record(jobs, run_id, f"run_{status}")

    assert retries(jobs, run_id) == []


def test_a_run_is_retried_by_hand_only_after_its_end(jobs):
    run_id = running(jobs, jobs.deploy())
    with refused(jobs, "KB008"):
        jobs.ask("select kirby.retry_run(%s, 'me')", run_id)

    record(jobs, run_id, "run_succeeded")
    again = jobs.value("select kirby.retry_run(%s, 'me')", run_id)

    assert jobs.get(again)["retry_of"] == run_id


# Daemons


def live(jobs, deployment):
    return [
        run for run in jobs.of(deployment) if run["status"] in ("queued", "starting", "running")
    ]


def daemon(jobs, **options):
    """A daemon with one replica, under way; its deployment and its run."""
    deployment = jobs.deploy("pass", kind="daemon", **options)
    jobs.value("select kirby.plan_daemons()")
    [run] = live(jobs, deployment)
    record(jobs, run["id"], "run_claimed")
    record(jobs, run["id"], "run_started")
    return deployment, run["id"]


def test_a_daemon_has_as_many_runs_as_replicas(jobs):
    deployment = jobs.deploy("pass", kind="daemon", replicas=3)

    jobs.value("select kirby.plan_daemons()")
    jobs.value("select kirby.plan_daemons()")

    assert [run["replica"] for run in live(jobs, deployment)] == [0, 1, 2]


def test_replicas_that_are_too_many_are_ended(jobs):
    deployment, run_id = daemon(jobs, name="many", replicas=1)

    jobs.deploy("pass", name="many", kind="daemon", replicas=0)
    jobs.value("select kirby.plan_daemons()")
    assert jobs.get(run_id)["cancel_at"] is not None
    record(jobs, run_id, "run_cancelled")

    assert live(jobs, deployment) == []
    assert jobs.get(run_id)["reason"] == "fewer replicas are deployed"


def test_replicas_that_only_waited_are_ended_at_once(jobs):
    deployment = jobs.deploy("pass", name="many", kind="daemon", replicas=3)
    jobs.value("select kirby.plan_daemons()")

    jobs.deploy("pass", name="many", kind="daemon", replicas=1)
    jobs.value("select kirby.plan_daemons()")

    assert [run["replica"] for run in live(jobs, deployment)] == [0]


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_daemon_that_ends_soon_is_started_later_and_later(jobs, status):
    deployment, run_id = daemon(jobs)

    for restarts in (1, 2, 3):
        record(jobs, run_id, f"run_{status}")
        [again] = live(jobs, deployment)
        run_id = again["id"]
        assert again["restarts"] == restarts
        assert again["not_before"] > again["queued_at"]
        record(jobs, run_id, "run_claimed")
        record(jobs, run_id, "run_started")


def test_a_daemon_that_ran_for_long_is_started_soon_again(jobs):
    deployment, run_id = daemon(jobs)
    jobs.ask("update kirby.run set restarts = 5, started_at = started_at - interval '1 hour'"
             " where id = %s returning id", run_id)  # fmt: skip

    record(jobs, run_id, "run_failed")

    [again] = live(jobs, deployment)
    assert again["restarts"] == 0
    assert (again["not_before"] - again["queued_at"]).total_seconds() <= 1


@pytest.mark.parametrize("status", ["lost", "cancelled"])
def test_a_daemon_whose_end_is_not_its_fault_is_started_at_once(jobs, status):
    deployment, run_id = daemon(jobs)
    if status == "cancelled":
        jobs.ask("select kirby.cancel_run(%s, 'restart', 'me')", run_id)

    record(jobs, run_id, f"run_{status}")

    [again] = live(jobs, deployment)
    assert again["restarts"] == 0
    assert (again["not_before"] - again["queued_at"]).total_seconds() < 0.1


def test_a_daemon_that_is_cancelled_while_it_waits_is_started_at_once(jobs):
    """As a deploy does, to have the new version: the back-off of the old one is no concern."""
    deployment, run_id = daemon(jobs)
    record(jobs, run_id, "run_failed")
    [waiting] = live(jobs, deployment)

    jobs.ask("select kirby.cancel_run(%s, 'replaced', 'me')", waiting["id"])

    [again] = live(jobs, deployment)
    assert again["restarts"] == 0
    assert (again["not_before"] - again["queued_at"]).total_seconds() < 0.1


def test_a_daemon_comes_back_at_the_deployed_version(jobs):
    deployment, run_id = daemon(jobs, name="moving")
    jobs.deploy("2", name="moving", kind="daemon")

    record(jobs, run_id, "run_lost")

    assert [run["version"] for run in live(jobs, deployment)] == [2]


def test_a_daemons_run_is_not_retried_by_hand(jobs):
    _, run_id = daemon(jobs)
    record(jobs, run_id, "run_failed")

    with refused(jobs, "KB008"):
        jobs.ask("select kirby.retry_run(%s, 'me')", run_id)


def test_many_planners_make_each_replica_once(runs, dsn):
    deployments = [runs.deploy("pass", kind="daemon", replicas=5) for _ in range(4)]
    start = threading.Barrier(4)

    def plan():
        with psycopg.connect(dsn, autocommit=True) as conn:
            start.wait()
            conn.execute("select kirby.plan_daemons()")

    threads = [threading.Thread(target=plan) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for deployment in deployments:
        assert sorted(run["replica"] for run in live(runs, deployment)) == [0, 1, 2, 3, 4]


# Supervisors


def test_a_supervisor_whose_lease_ran_out_loses_its_runs(jobs):
    owner = supervisor(jobs)
    run_id = running(jobs, jobs.deploy(), owner)
    jobs.ask("update kirby.supervisor set lease_until = kirby.now() where id = %s returning id",
             owner)  # fmt: skip

    assert jobs.value("select kirby.reap_supervisors()") == 1
    assert jobs.value("select kirby.reap_supervisors()") == 0

    assert jobs.get(run_id)["reason"] == "its supervisor stopped answering"
    with refused(jobs, "KB005"):
        jobs.ask("select kirby.register_supervisor(%s, 'here', 'folder', 1, 9)", owner)


def test_a_supervisor_that_renews_keeps_its_runs(jobs):
    owner = supervisor(jobs, lease="-1 second")
    run_id = running(jobs, jobs.deploy(), supervisor(jobs, folder="other"))

    jobs.ask("select kirby.register_supervisor(%s, 'here', 'folder', 1, 9)", owner)

    assert jobs.value("select kirby.reap_supervisors()") == 0
    assert jobs.get(run_id)["status"] == "running"


def test_a_new_supervisor_retires_the_one_before_it_in_its_folder_only(jobs):
    old, other = supervisor(jobs), supervisor(jobs, folder="other")
    run_id = running(jobs, jobs.deploy(), old)
    kept = running(jobs, jobs.deploy(), other)

    supervisor(jobs)

    assert jobs.get(run_id)["reason"] == "the supervisor was restarted"
    assert jobs.get(kept)["status"] == "running"


def test_ending_a_supervisor_twice_does_no_more(jobs):
    owner = supervisor(jobs)
    running(jobs, jobs.deploy(), owner)

    assert jobs.value("select kirby.end_supervisor(%s, 'x')", owner) == 1
    assert jobs.value("select kirby.end_supervisor(%s, 'x')", owner) == 0


def test_a_run_that_ends_while_its_supervisor_is_ended_has_one_end(runs, dsn):
    owner = supervisor(runs)
    run_id = running(runs, runs.deploy(), owner)

    with psycopg.connect(dsn) as slow:
        record(Runs(slow), run_id, "run_succeeded", owner=owner)
        done = threading.Thread(
            target=lambda: runs.ask("select kirby.end_supervisor(%s, 'x')", owner)
        )
        done.start()
        while not slow.execute(
            "select true from pg_stat_activity where wait_event_type = 'Lock'"
            " and datname = current_database()"
        ).fetchall():
            pass
        slow.commit()
    done.join()

    assert runs.get(run_id)["status"] == "succeeded"
    assert runs.events(run_id)[-1] == "run_succeeded"
    assert runs.value("select ended_at is not null from kirby.supervisor where id = %s", owner)


def test_lines_are_taken_from_a_supervisor_that_is_alive_only(jobs):
    owner = supervisor(jobs)
    run_id = running(jobs, jobs.deploy(), owner)
    lines = f'[{{"r": {run_id}, "s": "stdout", "l": "info", "x": "a", "t": 0}}]'
    jobs.ask("select kirby.append_log_lines(%s, %s)", owner, lines)

    jobs.ask("select kirby.end_supervisor(%s, 'x')", owner)
    with refused(jobs, "KB005"):
        jobs.ask("select kirby.append_log_lines(%s, %s)", owner, lines)

    assert jobs.texts(run_id) == ["a"]


def test_lines_take_their_positions_in_the_order_given(jobs):
    owner = supervisor(jobs)
    run_id = running(jobs, jobs.deploy(), owner)

    jobs.ask(
        "select kirby.append_log_lines(%s, (select jsonb_agg(jsonb_build_object('r', %s::bigint,"
        " 's', 'stdout', 'l', 'info', 'x', n::text, 't', 0) order by n)"
        " from generate_series(1, 3000) n))", owner, run_id,
    )  # fmt: skip

    assert jobs.texts(run_id) == [str(n) for n in range(1, 3001)]


def test_a_lease_has_one_holder_and_a_term_that_grows_with_each(jobs):
    one, two = uuid.uuid4(), uuid.uuid4()
    take = "select kirby.take_lease('x', %s, %s)"

    assert jobs.value(take, one, "1 minute") == 1
    assert jobs.value(take, one, "1 minute") == 1
    assert jobs.value(take, two, "1 minute") is None
    assert jobs.value(take, one, "-1 second") == 1
    assert jobs.value(take, two, "1 minute") == 2


def test_partitions_are_opened_once(jobs):
    jobs.value("select kirby.open_partitions()")

    assert jobs.value("select kirby.open_partitions()") == 0
    assert jobs.value("select kirby.open_partitions(3)") == 6
