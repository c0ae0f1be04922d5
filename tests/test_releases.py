import io

import psycopg
import pytest
from fix_index import a_project, a_wheel, an_sdist, lay
from fix_runs import VIRTUALENV, drive, runs_fixture, supervise_fixture  # noqa: F401
from psycopg.rows import dict_row

from kirby.core.errors import KirbyError, Unavailable
from kirby.server import database, files, packages, releases, targets
from kirby.server.sources import Sources
from kirby.server.supervisor import starter
from kirby.server.virtualenvs import Virtualenvs

POINTS = "[kirby.jobs]\ngo = acme.main:go\n"
MAIN = """
import middle
def go():
    print("acme with middle", middle.version)
"""


@pytest.fixture
def house(engine, sdk, upstream, tmp_path):
    """A database, an index upstream, and what a deploy does between a target and a release."""
    return House(engine, sdk, upstream, tmp_path)


class House:
    def __init__(self, engine, sdk, upstream, folder):
        self.engine, self.sdk, self.upstream, self.folder = engine, sdk, upstream, folder
        stored = releases.Stored(lambda: database.unit(engine))
        self.sources = Sources(sdk, stored, upstream.url)
        self.times = 0

    def read(self, target):
        self.times += 1
        self.into = self.folder / f"deploy-{self.times}"
        self.into.mkdir()
        return targets.read(str(target), self.into, self.sources)

    def release(self, target, actor="test"):
        """From a target to the id of its release, and its lock."""
        found = self.read(target)
        resolved = releases.resolve(found, self.sources)
        lock = releases.fetch(found, resolved, self.into, self.sources)
        with database.unit(self.engine) as conn:
            return releases.make(conn, found, lock, self.sdk, actor=actor), lock

    def publish(self, *named):
        for filename, content in named:
            with database.unit(self.engine) as conn:
                packages.upload(conn, io.BytesIO(content), filename, actor="test", limit=2**30)

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def row(self, release_id):
        return self.rows("select * from kirby.release where id = %s", release_id)[0]

    def files(self, release_id):
        found = self.rows(
            "select filename, sha256 from kirby.release_file where release_id = %s", release_id
        )
        return {row["filename"]: row["sha256"] for row in found}

    def rows(self, query, *params):
        with database.unit(self.engine) as conn:
            cursor = database.driver(conn).cursor(row_factory=dict_row)
            return cursor.execute(query, params).fetchall()

    def content(self, sha256):
        with database.unit(self.engine) as conn:
            return b"".join(files.read(database.driver(conn), sha256))

    def count(self, table):
        return self.rows(f"select count(*) as n from kirby.{table}")[0]["n"]

    def upstream_goes(self):
        self.upstream.files.clear()
        self.upstream.asked.clear()


def test_a_release_of_a_script_keeps_its_source_and_every_file(house):
    house.upstream.add(a_wheel("six", "1.0", "middle"), a_wheel("middle", "2.0"))
    path = house.write("report.py", "# /// script\n# dependencies = ['six']\n# ///\n")

    release_id, lock = house.release(path)

    row = house.row(release_id)
    assert (row["name"], row["kind"], row["filename"]) == ("report", "script", "report.py")
    assert (row["source"], row["origin"]) == (path.read_text(), "file report.py")
    assert (row["lock_hash"], row["requirements"]) == (lock.hash, lock.requirements)
    assert (row["version"], row["sdk_sha256"], row["created_by"]) == (None, None, "test")
    assert set(house.files(release_id)) == {
        "six-1.0-py3-none-any.whl",
        "middle-2.0-py3-none-any.whl",
    }


def test_a_release_with_the_sdk_keeps_that_too(house, sdk):
    house.upstream.add(a_wheel("psycopg", "9.0"), a_wheel("psycopg_binary", "9.0"))

    release_id, _ = house.release(
        house.write("a.py", "# /// script\n# dependencies = ['kirby']\n# ///\n")
    )

    assert house.files(release_id)[sdk.filename] == sdk.sha256
    assert house.row(release_id)["sdk_sha256"] == sdk.sha256


def test_a_release_of_a_folder_keeps_its_wheel_and_its_jobs(house, tmp_path):
    house.upstream.add(a_wheel("middle", "2.0"))
    toml = "[tool.kirby.jobs.go]\nschedule = '@daily'\ntimeout = '5m'\n"
    project = a_project("acme", "1.2", "middle", main=MAIN, points=POINTS, toml=toml)

    release_id, lock = house.release(lay(project, tmp_path / "acme"))

    row = house.row(release_id)
    assert (row["name"], row["kind"], row["version"]) == ("acme", "package", "1.2")
    assert (row["source"], row["origin"]) == (None, "folder acme")
    assert row["jobs"] == [
        {
            "name": "go",
            "entry": "acme.main:go",
            "settings": {"schedule": ["@daily"], "timeout": 300.0},
            "needs": {"variables": [], "secrets": [], "reads": [], "writes": []},
        }
    ]
    assert "acme==1.2 \\\n    --hash=sha256:" in lock.requirements
    assert set(house.files(release_id)) == {
        "acme-1.2-py3-none-any.whl",
        "middle-2.0-py3-none-any.whl",
    }


def test_the_same_again_is_the_same_release(house, tmp_path):
    folder = lay(a_project("acme", main=MAIN, points=POINTS), tmp_path / "acme")
    path = house.write("report.py", "print(1)\n")

    first = [house.release(folder)[0], house.release(path)[0]]
    again = [house.release(folder)[0], house.release(path)[0]]

    assert first == again
    assert house.count("release") == 2


def test_another_setting_of_a_job_is_another_release(house, tmp_path):
    project = a_project("acme", main=MAIN, points=POINTS)
    one, _ = house.release(lay(project, tmp_path / "acme"))
    project["pyproject.toml"] += "\n[tool.kirby.jobs.go]\ntz = 'Europe/Brussels'\n"
    other, _ = house.release(lay(project, tmp_path / "acme"))

    assert one != other
    assert house.files(one) == house.files(other)


def test_a_wheel_of_the_same_name_upstream_is_not_asked_for(house, tmp_path):
    """A private folder may have the name of a public package."""
    house.upstream.add(a_wheel("acme", "99.0"))

    _, lock = house.release(lay(a_project("acme", main=MAIN, points=POINTS), tmp_path / "acme"))

    assert "acme==1.0 " in lock.requirements
    assert not house.upstream.asked_for("acme")


def test_what_is_published_here_is_resolved_from_here(house):
    core, evil = a_wheel("acme_core", "1.0"), a_wheel("acme_core", "99.0")
    house.publish(core)
    house.publish(a_wheel("acme", "1.0", "middle", files={"acme/main.py": MAIN}, points=POINTS))
    house.upstream.add(evil, a_wheel("acme", "99.0"), a_wheel("middle", "2.0", "acme-core"))

    release_id, lock = house.release("acme==1.0")

    assert house.row(release_id)["origin"] == "acme==1.0, hosted here"
    assert "acme-core==1.0 " in lock.requirements
    assert not house.upstream.asked_for("acme-core")
    assert not house.upstream.asked_for("acme")
    assert house.upstream.asked_for("middle")


def test_a_version_that_was_yanked_is_passed_over(house):
    house.publish(a_wheel("acme_core", "1.0"), a_wheel("acme_core", "2.0"))
    with database.unit(house.engine) as conn:
        packages.yank(conn, "acme-core", "2.0", reason="wrong", actor="test")
    path = house.write("a.py", "# /// script\n# dependencies = ['acme-core']\n# ///\n")

    assert "acme-core==1.0 " in house.release(path)[1].requirements


def test_of_what_is_published_only_what_is_asked_about_is_read(house, monkeypatch):
    house.publish(a_wheel("acme_core", "1.0"), a_wheel("acme_core", "2.0"))
    read = []
    monkeypatch.setattr(
        type(house.sources.hosted), "read", lambda self, sha256: read.append(sha256) or [b""]
    )
    path = house.write("a.py", "# /// script\n# dependencies = ['acme-core']\n# ///\n")

    releases.resolve(house.read(path), house.sources)

    assert read == []  # their metadata said it all


def test_files_that_are_stored_are_not_fetched_again(house):
    house.upstream.add(a_wheel("six", "1.0"))
    house.release(house.write("a.py", "# /// script\n# dependencies = ['six']\n# ///\n"))
    path = house.write("b.py", "# /// script\n# dependencies = ['six']\n# ///\nprint()\n")
    found = house.read(path)
    lock = releases.resolve(found, house.sources)
    house.upstream_goes()

    releases.fetch(found, lock, house.into, house.sources)

    assert house.upstream.asked == []


def test_nothing_is_stored_when_the_last_step_fails(house, monkeypatch):
    house.upstream.add(a_wheel("six", "1.0"))
    monkeypatch.setattr(releases, "ADD_FILE", "select 1 / 0 -- %(release_id)s")

    with pytest.raises(psycopg.Error):
        house.release(house.write("a.py", "# /// script\n# dependencies = ['six']\n# ///\n"))

    assert (house.count("release"), house.count("file")) == (0, 0)


def test_a_lock_whose_files_were_not_fetched_makes_no_release(house):
    house.upstream.add(a_wheel("six", "1.0"))
    found = house.read(house.write("a.py", "# /// script\n# dependencies = ['six']\n# ///\n"))
    lock = releases.resolve(found, house.sources)

    with database.unit(house.engine) as conn, pytest.raises(KirbyError, match="were not fetched"):
        releases.make(conn, found, lock, house.sdk, actor="test")


# From the release to a host


@pytest.fixture
def host(house, server_dsn, tmp_path, monkeypatch):
    """Build the virtualenv of a release as a supervisor does."""
    virtualenvs = Virtualenvs(tmp_path / "host", index_url=house.upstream.url)

    def build(release_id):
        monkeypatch.delenv("UV_CACHE_DIR", raising=False)
        row = house.row(release_id)
        lock = releases.Lock(row["requirements"], row["sdk_sha256"], row["python"])
        fetch = releases.fetcher(server_dsn, house.files(release_id), row["sdk_sha256"])
        return virtualenvs.ensure(lock, fetch)

    return build


def test_a_host_builds_what_was_stored_while_no_index_is_there(house, host, tmp_path):
    house.upstream.add(a_wheel("middle", "2.0"), an_sdist("source", "3.0"))
    project = a_project("acme", "1.0", "middle", "source", main=MAIN, points=POINTS)
    release_id, _ = house.release(lay(project, tmp_path / "acme"))
    house.upstream_goes()

    folder = host(release_id)

    assert {path.name for path in folder.glob("lib/*/site-packages/*.dist-info")} == {
        "acme-1.0.dist-info",
        "middle-2.0.dist-info",
        "source-3.0.dist-info",
    }
    assert house.upstream.asked == []


def test_a_release_of_before_has_its_sdk_from_its_own_column(house, host, sdk):
    house.upstream.add(a_wheel("psycopg", "9.0"), a_wheel("psycopg_binary", "9.0"))
    path = house.write("a.py", "# /// script\n# dependencies = ['kirby']\n# ///\n")
    release_id, _ = house.release(path)
    house.rows("delete from kirby.release_file where release_id = %s returning 1", release_id)

    folder = host(release_id)

    assert list(folder.glob("lib/*/site-packages/kirby/sdk"))


def test_a_damaged_file_is_refused_by_a_host(house, host):
    house.upstream.add(a_wheel("six", "1.0"))
    path = house.write("a.py", "# /// script\n# dependencies = ['six']\n# ///\n")
    release_id, _ = house.release(path)
    house.rows("update kirby.file_chunk set content = 'x' returning 1")

    with pytest.raises(KirbyError, match="is damaged, or not there"):
        host(release_id)


def test_a_file_on_the_host_that_a_power_cut_spoilt_is_fetched_again(house, host, tmp_path):
    house.upstream.add(a_wheel("six", "1.0"), a_wheel("good", "1.0"))
    path = house.write("a.py", "# /// script\n# dependencies = ['six', 'good']\n# ///\n")
    release_id, _ = house.release(path)
    wheels = tmp_path / "host" / "wheels"
    for filename, sha256 in house.files(release_id).items():
        (wheels / sha256).mkdir(parents=True)
        (wheels / sha256 / filename).write_bytes(house.content(sha256))
    spoilt = next(wheels.glob("*/six*"))
    spoilt.write_bytes(b"")

    with pytest.raises(KirbyError):
        host(release_id)
    assert [file.name for file in wheels.glob("*/*")] == ["good-1.0-py3-none-any.whl"]

    assert list(host(release_id).glob("lib/*/site-packages/six"))


# The whole way, with a supervisor

DEPLOY = """
with j as (
  insert into kirby.job (name, kind) values (%(name)s, 'manual') returning id
), d as (
  insert into kirby.deployment (job_id, environment_id, version)
  select j.id, e.id, 1 from j, kirby.environment e where e.name = 'dev' returning id
)
insert into kirby.deployment_version
       (deployment_id, version, release_id, entry, command, actor)
select id, 1, %(release_id)s, %(entry)s, %(command)s, 'test' from d returning deployment_id
"""


@pytest.fixture
def run(house, runs, supervise, tmp_path, until, monkeypatch):
    """Deploy a target and run its jobs by a supervisor that has no index; what they print."""

    def run(target):
        found = house.read(target)
        resolved = releases.resolve(found, house.sources)
        lock = releases.fetch(found, resolved, house.into, house.sources)
        with database.unit(house.engine) as conn:
            release_id = releases.make(conn, found, lock, house.sdk, actor="test")
        house.upstream_goes()
        monkeypatch.delenv("UV_CACHE_DIR", raising=False)
        virtualenvs = Virtualenvs(tmp_path / "host", index_url=house.upstream.url)
        supervisor = supervise(ensure=virtualenvs.ensure, hold=virtualenvs.hold)
        return [_run(job, release_id, runs, supervisor) for job in found.jobs]

    def _run(job, release_id, runs, supervisor):
        deployment = runs.conn.execute(DEPLOY, {
            "name": job.name, "release_id": release_id, "entry": job.entry,
            "command": job.settings.get("command"),
        }).fetchone()[0]  # fmt: skip
        run_id = runs.trigger(deployment)
        ended = ("succeeded", "failed")
        status = drive(
            supervisor, lambda: (s := runs.get(run_id)["status"]) in ended and s, timeout=60
        )
        return status, runs.texts(run_id, "stdout", "stderr", "kirby")

    return run


def test_a_package_is_run_by_a_host_without_any_index(house, run, tmp_path):
    house.upstream.add(a_wheel("middle", "2.0"))
    toml = (
        "[tool.kirby.jobs.module]\nentry = 'acme.main'\n"
        "[tool.kirby.jobs.command]\n"
        "command = ['python', '-c', 'import acme; print(acme.__name__)']\n"
    )
    project = a_project("acme", "1.0", "middle", main=MAIN, points=POINTS, toml=toml)

    assert run(lay(project, tmp_path / "acme")) == [
        ("succeeded", ["acme"]),
        ("succeeded", ["acme with middle 2.0"]),
        ("succeeded", []),
    ]
    assert house.upstream.asked == []


def test_a_shell_script_is_run_with_its_virtualenv(house, run):
    house.upstream.add(a_wheel("middle", "2.0"))
    path = house.write(
        "backup.sh",
        "#!/bin/sh\n# /// script\n# dependencies = ['middle']\n# ///\n"
        "python -c 'import middle; print(middle.version)'\n",
    )

    assert run(path) == [("succeeded", ["2.0"])]


def test_a_script_with_the_sdk_is_run(house, run, sdk):
    house.upstream.add(a_wheel("psycopg", "9.0"), a_wheel("psycopg_binary", "9.0"))
    source = (
        "# /// script\n# dependencies = ['kirby']\n# ///\n"
        "import importlib.metadata as m\nprint(m.version('kirby'))\n"
    )

    assert run(house.write("a.py", source)) == [("succeeded", [sdk.version])]


def test_a_virtualenv_is_held_while_a_run_uses_it(house, runs, supervise, tmp_path, monkeypatch):
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    path = house.write("wait.py", "import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    release_id, lock = house.release(path)
    virtualenvs = Virtualenvs(tmp_path / "host")
    supervisor = supervise(ensure=virtualenvs.ensure, hold=virtualenvs.hold, grace=1.0)
    parameters = {"name": "wait", "release_id": release_id, "entry": "", "command": None}
    deployment = runs.conn.execute(DEPLOY, parameters).fetchone()[0]
    run_id = runs.trigger(deployment)
    drive(supervisor, lambda: runs.texts(run_id, "stdout"), timeout=60)

    assert virtualenvs.prune(0) == []

    runs.value("select kirby.cancel_run(%s, 'enough', 'test')", run_id)
    drive(supervisor, lambda: runs.get(run_id)["status"] == "cancelled")
    assert virtualenvs.prune(0) == [lock.hash]


def test_a_database_that_goes_away_while_files_are_fetched_fails_no_run(
    runs, supervise, monkeypatch
):
    monkeypatch.setattr(starter, "PAUSE", 0.01)
    answers = [Unavailable("gone"), Unavailable("gone"), VIRTUALENV]

    def ensure(lock, fetch):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    run_id = runs.start("print('hello')")
    drive(supervise(ensure=ensure), lambda: runs.get(run_id)["ended_at"])

    assert runs.get(run_id)["status"] == "succeeded"
    assert answers == []


def test_the_files_of_the_last_versions_are_kept_and_warmed(house, runs):
    ids = []
    for number in range(releases.VERSIONS_KEPT + 1):
        path = house.write("a.py", f"# /// script\n# dependencies = []\n# ///\nprint({number})\n")
        ids.append(house.release(path)[0])
        runs.ask("update kirby.release set lock_hash = %s where id = %s returning 1",
                 f"{number}" * 64, ids[-1])  # fmt: skip
    deployment = runs.deploy("print(1)", name="a")
    for release_id in ids:
        runs._version(deployment, release_id)

    with database.unit(house.engine) as conn:
        found = releases.deployed(database.driver(conn))

    assert {each.id for each in found} == set(ids[1:])
    assert [each.id for each in found if each.is_current] == [ids[-1]]


def test_of_several_versions_with_one_lock_the_deployed_one_counts(house, runs):
    ids = [house.release(house.write("a.py", f"print({number})\n"))[0] for number in range(3)]
    deployment = runs.deploy("print(1)", name="a")
    for release_id in ids:
        runs._version(deployment, release_id)  # versions 2, 3 and 4

    def found(*labels):
        with database.unit(house.engine) as conn:
            rows = releases.deployed(database.driver(conn), labels)
        return [(each.id, each.is_current) for each in rows if each.id in ids]

    assert found() == [(ids[2], True)]
    runs.ask("update kirby.deployment set version = 2, canary_version = 4, canary_share = 0.1"
             " where id = %s returning 1", deployment)  # fmt: skip
    assert found() == [(ids[2], True)]
    runs.ask("update kirby.deployment set canary_version = null, canary_share = null"
             " where id = %s returning 1", deployment)  # fmt: skip
    assert found() == [(ids[0], True)]
    runs.ask("update kirby.deployment_version set labels = '{gpu}' returning 1")
    assert [is_current for _, is_current in found()] == [False]
    assert found("gpu", "eu") == [(ids[0], True)]
