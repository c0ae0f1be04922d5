"""Virtualenvs are there before a run needs them."""

import threading

import pytest
from fix_index import a_wheel
from fix_runs import drive, runs_fixture, supervise_fixture  # noqa: F401
from test_releases import DEPLOY, house  # noqa: F401

from kirby.server.locks import Lock
from kirby.server.supervisor.warmer import Warmer
from kirby.server.virtualenvs import Virtualenvs

SCRIPT = "# /// script\n# dependencies = ['six']\n# ///\nimport six\nprint(six.version)\n"
ROOM = 2**40


@pytest.fixture
def virtualenvs(tmp_path):
    return Virtualenvs(tmp_path / "host")


@pytest.fixture
def deploy(house, runs, monkeypatch):  # noqa: F811
    """Deploy a script; the id of its deployment, and its lock. The index goes away then."""

    def deploy(source=SCRIPT, name="a", labels=()):
        house.upstream.add(a_wheel("six", "1.0"))
        release_id, lock = house.release(house.write(f"{name}.py", source))
        parameters = {"name": name, "release_id": release_id, "entry": "", "command": None}
        deployment = runs.conn.execute(DEPLOY, parameters).fetchone()[0]
        runs.ask("update kirby.deployment_version set labels = %s returning 1", list(labels))
        house.upstream_goes()
        monkeypatch.delenv("UV_CACHE_DIR", raising=False)
        return deployment, lock

    return deploy


@pytest.fixture
def make(server_dsn, virtualenvs):
    """`make(room, labels)`: one that is ended with the test."""
    made = []

    def make(*options):
        made.append(Warmer(server_dsn, virtualenvs, *options))
        return made[-1]

    yield make
    for warmer in made:
        warmer.stop()


@pytest.fixture
def warmer(make):
    return make(ROOM)


def test_what_is_deployed_is_built_before_its_first_run(deploy, warmer, virtualenvs):
    _, lock = deploy()

    warmer.round()

    assert virtualenvs.is_ready(lock)


def test_a_supervisor_builds_as_soon_as_something_is_deployed(
    deploy, warmer, virtualenvs, runs, supervise, until
):
    supervisor = supervise(warmer=warmer, ensure=virtualenvs.ensure, hold=virtualenvs.hold)

    deployment, lock = deploy()
    runs.conn.execute("notify kirby_run")

    drive(supervisor, lambda: virtualenvs.is_ready(lock), timeout=20)
    run_id = runs.trigger(deployment)
    drive(supervisor, lambda: runs.get(run_id)["status"] == "succeeded")
    assert runs.texts(run_id, "stdout") == ["1.0"]


def test_what_needs_another_host_is_not_built(deploy, make, virtualenvs):
    _, lock = deploy(labels=["gpu"])

    make(ROOM).round()
    assert not virtualenvs.is_ready(lock)
    make(ROOM, ["eu", "gpu"]).round()
    assert virtualenvs.is_ready(lock)


def test_one_that_cannot_be_built_does_not_keep_the_others(
    deploy, warmer, virtualenvs, runs, caplog
):
    _, good = deploy(name="good")
    deploy(SCRIPT + "#\n", name="bad")
    runs.ask("update kirby.release set lock_hash = 'x', python = '3.2' where name = 'bad'"
             " returning 1")  # fmt: skip

    warmer.round()
    warmer.round()

    assert virtualenvs.is_ready(good)
    said = [record.message for record in caplog.records if "cannot be built" in record.message]
    assert len(said) == 1
    assert "no Python 3.2" in said[0]


def test_what_was_deployed_last_stays_and_all_else_goes_when_there_is_no_room(
    deploy, make, virtualenvs
):
    _, lock = deploy()
    stranger = Lock("", None, lock.python)
    virtualenvs.ensure(stranger)

    make(0).round()

    assert virtualenvs.is_ready(lock)
    assert not virtualenvs.is_ready(stranger)


def test_it_ends_when_it_is_told_to(warmer):
    before = threading.active_count()
    warmer.start()
    warmer.stop()

    assert threading.active_count() == before


def test_without_a_database_it_waits(virtualenvs, until, caplog):
    warmer = Warmer("host=127.0.0.1 port=1 dbname=x user=x", virtualenvs, ROOM)
    warmer.start()
    until(lambda: "cannot be used" in caplog.text)
    warmer.stop()
