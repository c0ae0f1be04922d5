import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from fix_index import a_project, a_wheel, lay

from kirby.core.errors import Invalid, KirbyError
from kirby.server import projects, pythons
from kirby.server.projects import Project

GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


@pytest.fixture
def folder(tmp_path):
    return lay(a_project("acme"), tmp_path / "my-acme")


@pytest.fixture
def build(tmp_path, sources):
    """Build a folder; its wheel, opened."""

    def build(folder):
        wheel = projects.build_folder(folder, tmp_path / "into", sources, pythons.own())
        return zipfile.ZipFile(wheel)

    return build


def git(folder, *arguments):
    command = ["git", "-C", folder, "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **GIT}
    ).stdout.strip()


@pytest.fixture
def checkout(folder):
    (folder / ".gitignore").write_text("*.secret\nbuild/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def state(folder):
    """Every file below a folder, git's own too: content and time of change."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# What a pyproject.toml says


def test_settings_and_jobs_are_read():
    toml = """
[project]
name = "acme"
requires-python = ">=3.11"

[tool.kirby]
tz = "Europe/Brussels"
timeout = "5m"

[tool.kirby.jobs.report]
entry = "acme.report:main"
schedule = "@daily"

[tool.kirby.jobs.sync]
command = ["acme-sync", "--all"]
"""
    assert projects.parse(toml.encode(), "pyproject.toml") == Project(
        settings={"tz": "Europe/Brussels", "timeout": "5m"},
        jobs={
            "report": {"entry": "acme.report:main", "schedule": "@daily"},
            "sync": {"command": ["acme-sync", "--all"]},
        },
        python=">=3.11",
    )


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("x = = 1", "pyproject.toml: not valid TOML"),
        ("[tool]\nkirby = 1", "[tool.kirby] must be a table"),
        ("[tool.kirby]\nshedule = '@daily'", "2: unknown key [tool.kirby] 'shedule'; did you mean"),
        ("[tool.kirby]\njobs = 1", "2: [tool.kirby.jobs] must hold one table for each job"),
        ("[tool.kirby.jobs]\nx = 1", "[tool.kirby.jobs] must hold one table for each job"),
        ("[tool.kirby.jobs.'My Job']\n", "1: job name 'My Job' must be lower-case letters"),
        (
            "[tool.kirby.jobs.a]\nname = 'b'",
            "2: unknown key [tool.kirby.jobs.a] 'name'; known are",
        ),
        (
            "[tool.kirby.jobs.a]\nreplicas = 0",
            "2: [tool.kirby.jobs.a] replicas must be a whole number from 1 to 1000",
        ),
    ],
)
def test_a_wrong_project_is_refused_with_its_line(toml, message):
    with pytest.raises(Invalid) as refused:
        projects.parse(toml.encode(), "pyproject.toml")

    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_project_that_is_not_utf8_is_refused():
    with pytest.raises(Invalid, match=r"pyproject\.toml: not UTF-8"):
        projects.parse(b"x = '\xe9'", "pyproject.toml")


def test_a_folder_without_a_project_is_refused(tmp_path):
    with pytest.raises(Invalid, match=r"there is no pyproject\.toml, so it is no project"):
        projects.read_folder(tmp_path)


# The wheel


def test_a_folder_is_built_and_left_as_it_is(folder, build):
    before = state(folder)

    with build(folder) as wheel:
        assert "acme/main.py" in wheel.namelist()

    assert state(folder) == before


def test_a_build_sees_none_of_the_servers_secrets(tmp_path, build, monkeypatch):
    folder = lay(a_project("acme", dump=True), tmp_path / "acme")
    for name in ("KIRBY_DSN", "KIRBY_WORKER_DSN", "PGPASSWORD", "DATABASE_URL", "AWS_SECRET_KEY"):
        monkeypatch.setenv(name, "a-secret-of-the-server")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")

    with build(folder) as wheel:
        seen = wheel.read("acme/__init__.py").decode()

    assert "proxy.example" in seen
    assert "a-secret" not in seen
    assert "KIRBY_" not in seen


def test_the_same_folder_makes_the_same_wheel(folder, tmp_path, sources):
    one, other = (
        projects.build_folder(folder, tmp_path / name, sources, pythons.own()).read_bytes()
        for name in ("one", "other")
    )

    assert one == other


def test_what_a_build_needs_comes_from_the_index(folder, build, upstream):
    toml = folder / "pyproject.toml"
    toml.write_text(toml.read_text().replace("requires = []", 'requires = ["acme-build"]'))
    upstream.add(a_wheel("acme_build"))

    build(folder)

    assert upstream.asked_for("acme-build")


def test_a_build_that_fails_is_one_line(tmp_path, build):
    folder = lay(a_project("acme", fail="no compiler on this machine"), tmp_path / "acme")

    with pytest.raises(Invalid) as refused:
        build(folder)

    assert str(refused.value).startswith("the project cannot be built: ")
    assert "no compiler on this machine" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert str(tmp_path) not in str(refused.value)


def test_a_project_without_a_backend_is_refused_in_one_line(tmp_path, build):
    folder = lay({"pyproject.toml": "[build-system]\nrequires = []\n"}, tmp_path / "acme")
    (folder / "pyproject.toml").write_text('[build-system]\nrequires=[]\nbuild-backend="nothing"\n')

    with pytest.raises(Invalid) as refused:
        build(folder)

    assert str(refused.value).startswith("the project cannot be built: ")
    assert str(tmp_path) not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_results_of_earlier_builds_are_not_copied(folder, tmp_path):
    lay({"build/old.py": "", "src/acme.py": "", ".venv/x": "", "dist/y.whl": ""}, folder)

    home = projects._copy(folder, tmp_path / "copy")

    assert (home / "src" / "acme.py").exists()
    assert not any((home / name).exists() for name in ("build", ".venv", "dist"))


# Checkouts


def test_of_a_checkout_what_git_knows_or_does_not_ignore_is_copied(checkout, tmp_path):
    lay({"new.py": "", "key.secret": "x", "build/old.py": ""}, checkout)
    (checkout / "backend.py").unlink()

    home = projects._copy(checkout, tmp_path / "copy")

    assert (home / "new.py").exists()
    assert not any((home / name).exists() for name in ("key.secret", "build", "backend.py"))


def test_a_build_can_ask_git_for_the_version(checkout, tmp_path):
    git(checkout, "tag", "v7")

    home = projects._copy(checkout, tmp_path / "copy")

    assert git(home, "describe", "--tags", "--dirty") == "v7"
    (checkout / "backend.py").write_text("")
    home = projects._copy(checkout, tmp_path / "changed")
    assert git(home, "describe", "--tags", "--dirty") == "v7-dirty"


@pytest.mark.parametrize("kind", ["shallow", "worktree", "no commit"])
def test_any_kind_of_checkout_is_built(checkout, tmp_path, build, kind):
    other = tmp_path / "other"
    if kind == "shallow":
        git(checkout, "clone", "--quiet", "--depth", "1", checkout.as_uri(), other)
    elif kind == "worktree":
        git(checkout, "worktree", "add", "--quiet", other)
    else:
        lay(a_project("acme"), other)
        git(other, "init", "--quiet")
    before = state(other)

    with build(other) as wheel:
        assert "acme/main.py" in wheel.namelist()

    assert projects.origin(other).startswith("folder other")
    assert state(other) == before


def test_a_checkout_is_left_as_it_is_with_all_that_git_keeps(checkout, build):
    (checkout / "backend.py").touch()  # git would like to note that it is the same
    before = state(checkout)

    build(checkout)
    projects.origin(checkout)

    assert state(checkout) == before


def test_a_project_in_a_part_of_a_checkout_is_built(checkout, build):
    part = lay(a_project("inner"), checkout / "parts" / "inner")

    with build(part) as wheel:
        assert "inner/main.py" in wheel.namelist()


def test_the_origin_of_a_checkout_says_the_commit_and_whether_it_is_changed(checkout):
    commit = git(checkout, "rev-parse", "HEAD")

    assert projects.origin(checkout) == f"folder my-acme, git {commit}"
    (checkout / "new.py").touch()
    assert projects.origin(checkout) == f"folder my-acme, git {commit} with changes"


def test_the_origin_of_a_folder_is_its_name(folder, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    assert projects.origin(folder) == "folder my-acme"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_that_cannot_be_read_is_one_line(folder, build):
    (folder / "hidden").mkdir(mode=0)

    with pytest.raises(KirbyError, match="cannot be copied: Permission denied"):
        build(folder)


def test_a_link_that_leads_nowhere_is_copied_as_a_link(folder, build):
    (folder / "nowhere").symlink_to(Path("gone"))

    build(folder)
