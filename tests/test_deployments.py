"""Deploying: versions, kinds, both logs, two at once, and whose word counts."""

import threading
from dataclasses import replace

import psycopg
import pytest
from fix_deploy import made_release
from fix_runs import Runs, drive, supervise_fixture  # noqa: F401

from kirby.core.errors import Invalid, Taken
from kirby.server import database, deployments, plans, targets
from kirby.server.needs import Needs
from kirby.server.plans import Order, Plan


@pytest.fixture
def engine(dsn, as_role):
    engine = database.engine(as_role(dsn, "kirby_server"))
    yield engine
    engine.dispose()


@pytest.fixture
def deploy(engine):
    """`deploy(plan, source)` in a unit of work of its own."""

    def deploy(plan, source="print(1)\n", lock="", **asked):
        with database.unit(engine) as conn:
            release_id = made_release(conn, plan.name, source, lock)
            order = Order(plan.environment, **asked)
            return deployments.deploy(conn, plan, release_id, actor="test", order=order)

    return deploy


@pytest.fixture
def ask(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Runs(conn).ask


NIGHTLY = Plan(name="nightly", environment="dev")


def test_the_first_deploy_is_version_1_and_a_change_the_next(deploy, ask):
    first = deploy(NIGHTLY)
    second = deploy(NIGHTLY, "print(2)\n")

    assert (first.version, first.changed, first.kind) == (1, True, "manual")
    assert (second.version, second.changed) == (2, True)
    assert second.release_id != first.release_id
    [row] = ask("select version from kirby.deployment")
    assert row["version"] == 2


def test_the_same_again_is_no_version(deploy, ask):
    deploy(NIGHTLY)

    again = deploy(replace(NIGHTLY, reason="another reason is no change"))

    assert (again.version, again.changed) == (1, False)
    assert len(ask("select from kirby.audit_event where verb = 'job_deployed'")) == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"schedules": ("0 3 * * *",)}, "scheduled"),
        ({"schedules": ("0 2 * * *", "0 4 * * *")}, "scheduled"),
        ({"tz": "Europe/Brussels"}, "scheduled"),
        ({"max_attempts": 2}, "scheduled"),
        ({"variables": {"A": "1"}}, "scheduled"),
        ({"entry": "acme:main"}, "scheduled"),
        ({"command": ("sh", "-c", "true")}, "scheduled"),
        ({"retry_pause": 0.1}, "scheduled"),
        ({"timeout": 86401.0}, "scheduled"),
        ({"grace": 0.0}, "scheduled"),
        ({"no_progress_timeout": 90.0}, "scheduled"),
        ({"priority": -5}, "scheduled"),
        ({"labels": ("eu", "gpu")}, "scheduled"),
        ({"concurrency": "queue"}, "scheduled"),
        ({"rerun": "current"}, "scheduled"),
        ({"needs": Needs(reads=("orders",))}, "scheduled"),
    ],
)
def test_each_setting_makes_a_version(change, kind, deploy):
    plan = replace(NIGHTLY, schedules=("0 2 * * *",))
    deploy(plan)

    done = deploy(replace(plan, **change))
    again = deploy(replace(plan, **change))

    assert (done.version, done.changed, done.kind) == (2, True, kind)
    assert done.next_tick is not None
    assert (again.version, again.changed) == (2, False)


def test_back_to_an_earlier_source_is_a_new_version_of_the_old_release(deploy):
    first = deploy(NIGHTLY)
    deploy(NIGHTLY, "print(2)\n")

    back = deploy(NIGHTLY)

    assert (back.version, back.release_id) == (3, first.release_id)


def test_environments_have_versions_of_their_own(deploy):
    deploy(NIGHTLY)
    deploy(NIGHTLY, "print(2)\n")

    prod = deploy(replace(NIGHTLY, environment="prod"), "print(2)\n")

    assert (prod.version, prod.changed) == (1, True)


def test_both_logs_tell_who_what_and_why(deploy, ask):
    first = deploy(NIGHTLY)
    second = deploy(replace(NIGHTLY, reason="faster"), "print(2)\n")

    [_, audit] = ask("select * from kirby.audit_event where verb = 'job_deployed'")
    [_, event] = ask("select * from kirby.job_event order by position")

    assert (audit["actor"], audit["object"]) == ("test", "job/dev/nightly")
    assert audit["reason"] == "faster"
    assert audit["before"]["release_id"] == first.release_id
    assert audit["after"]["release_id"] == second.release_id
    assert (event["actor"], event["data"]["version"]) == ("test", 2)


KINDS = {
    "manual": NIGHTLY,
    "scheduled": replace(NIGHTLY, schedules=("@daily",)),
    "daemon": replace(NIGHTLY, daemon=True),
}


@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_job_keeps_its_kind(kind, other, deploy, ask):
    assert deploy(KINDS[kind]).kind == kind
    if kind == other:
        return

    with pytest.raises(Taken, match=f"nightly is a {kind} job already") as refused:
        deploy(replace(KINDS[other], environment="prod"))

    assert "\n" not in str(refused.value)
    assert len(ask("select from kirby.deployment")) == 1


def test_replacing_stops_the_runs_of_older_versions_only(deploy, ask):
    for environment in ("dev", "prod"):
        deploy(replace(NIGHTLY, environment=environment))
    [dev, prod] = [row["id"] for row in ask("select id from kirby.deployment order by id")]
    ask("select kirby.queue_run(%s, 'manual', 'test')", dev)
    ask("select kirby.queue_run(%s, 'manual', 'test')", prod)
    left = deploy(NIGHTLY, "print(2)\n")
    ask("select kirby.queue_run(%s, 'manual', 'test')", dev)

    done = deploy(NIGHTLY, "print(2)\n", replace=True)

    assert (left.stopped, done.stopped, done.changed) == (0, 1, False)
    rows = ask("select status, reason from kirby.run order by id")
    assert [row["status"] for row in rows] == ["cancelled", "queued", "queued"]
    assert rows[0]["reason"] == "replaced by version 2"


def test_deploys_at_once_make_one_version_each(deploy, ask):
    start = threading.Barrier(6)
    done, failed = [], []

    def one(number):
        start.wait()
        try:
            done.append(deploy(NIGHTLY, f"print({number % 3})\n").version)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    rows = ask("select version from kirby.deployment_version order by version")
    assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))
    assert ask("select version from kirby.deployment") == [{"version": len(rows)}]
    assert set(done) == {row["version"] for row in rows}


def test_jobs_of_another_kind_at_once_are_never_mixed(deploy, ask):
    start = threading.Barrier(6)
    refused = []

    def one(plan):
        start.wait()
        try:
            deploy(plan)
        except Taken:
            refused.append(plan)

    threads = [threading.Thread(target=one, args=(p,)) for p in list(KINDS.values()) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    [job] = ask("select kind from kirby.job")
    assert len(refused) == 4
    assert all(plan.kind != job["kind"] for plan in refused)
    assert len(ask("select from kirby.deployment_version")) == 1


# The script's own word, and that of the command line

TABLE = """\
# /// script
# [tool.kirby]
# name = "own-name"
# description = "of its own"
# {}
# tz = "Europe/Brussels"
# max_attempts = 3
# variables = {{ DAYS = "31", PLACE = "here" }}
# ///
"""


def planned(line, name=None, reason="", **options):
    jobs = targets.jobs_of_script(TABLE.format(line), "file.py")
    order = Order("dev", job=name, options=plans.options(options), reason=reason)
    [made] = plans.of(order, "script", jobs)
    return made


def test_what_the_script_says_of_itself_holds_where_no_option_does():
    made = planned('schedule = ["@daily", "@hourly"]')

    assert made == Plan(
        name="own-name",
        environment="dev",
        schedules=("@daily", "@hourly"),
        tz="Europe/Brussels",
        max_attempts=3,
        variables={"DAYS": "31", "PLACE": "here"},
        description="of its own",
    )


def test_an_option_wins_over_what_the_script_says():
    made = planned(
        'schedule = "@daily"', name="other", schedule=("@weekly",), tz="UTC", max_attempts=1,
        variables=("DAYS=7", "EMPTY="), reason="now",
    )  # fmt: skip

    assert (made.name, made.schedules, made.tz) == ("other", ("@weekly",), "UTC")
    assert (made.max_attempts, made.reason) == (1, "now")
    assert made.variables == {"DAYS": "7", "PLACE": "here", "EMPTY": ""}


def test_an_option_of_another_kind_wins_too():
    assert planned('schedule = "@daily"', daemon=True).kind == "daemon"
    assert planned("daemon = true\n# replicas = 2", schedule=("@daily",)).kind == "scheduled"
    manual = planned("daemon = true\n# replicas = 2", daemon=False)
    assert (manual.kind, manual.replicas) == ("manual", 1)
    assert planned("daemon = true\n# replicas = 2").replicas == 2
    assert planned("daemon = true", replicas=3).replicas == 3


def test_replicas_of_none_stop_a_daemon_without_forgetting_it(deploy):
    deploy(KINDS["daemon"])

    assert deploy(replace(KINDS["daemon"], replicas=0)).version == 2


def test_a_reason_that_is_a_book_is_refused(deploy):
    with pytest.raises(Invalid, match="the reason is 1,001 characters: at most 1,000"):
        deploy(replace(NIGHTLY, reason="x" * 1001))


# What runs already

WAITING = """
import pathlib, time
print("at work", flush=True)
while not pathlib.Path({path!r}).exists():
    time.sleep(0.02)
print("version {version}")
"""


@pytest.fixture
def under_way(deploy, supervise, ask, tmp_path):
    """Version 1 is at work; version 2 is deployed by ``asked``. The supervisor, and the file that
    lets a run end."""
    path = tmp_path / "go on"

    def begin(**asked):
        deploy(NIGHTLY, WAITING.format(path=str(path), version=1))
        supervisor = supervise()
        trigger(ask)
        drive(supervisor, lambda: ask("select from kirby.log_line where text = 'at work'"))
        deploy(NIGHTLY, WAITING.format(path=str(path), version=2), **asked)
        return supervisor, path

    return begin


def trigger(ask):
    ask("select kirby.queue_run(d.id, 'manual', 'test') from kirby.deployment d")
    ask("select pg_notify('kirby_run', '')")


def ended(ask):
    return ask("select from kirby.run having bool_and(ended_at is not null)")


def test_a_run_goes_on_at_its_version_and_the_next_one_takes_the_new(under_way, ask):
    supervisor, path = under_way()
    trigger(ask)
    path.touch()
    drive(supervisor, lambda: ended(ask))

    assert ask("select version, status from kirby.run order by id") == [
        {"version": 1, "status": "succeeded"},
        {"version": 2, "status": "succeeded"},
    ]
    said = ask("select run_id, text from kirby.log_line where text like 'version%%' order by 1")
    assert [row["text"] for row in said] == ["version 1", "version 2"]


def test_a_run_of_an_older_version_is_stopped_when_that_is_asked(under_way, ask):
    supervisor, _ = under_way(replace=True)
    drive(supervisor, lambda: ended(ask))

    [run] = ask("select version, status, reason from kirby.run")
    assert run == {"version": 1, "status": "cancelled", "reason": "replaced by version 2"}
