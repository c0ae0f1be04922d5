"""The wheel: without extras psycopg is all that comes along; with them the server works."""

import email
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from kirby.server import schema, uv
from kirby.server.paths import CHECKOUT

PARTS = ("kirby", "ui", "migrations", "pyproject.toml", "README.md", "LICENSE")
# psycopg needs typing_extensions itself; psycopg_binary is its driver, compiled.
ALLOWED = {"kirby", "psycopg", "psycopg-binary", "typing-extensions"}


def run(*command, **how):
    """Run a program outside the checkout, with no settings of Kirby."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KIRBY_")}
    environ |= {"UV_PYTHON_DOWNLOADS": "never", **how.pop("env", {})}
    return subprocess.run(command, capture_output=True, text=True, env=environ, **how)


def succeed(*command, **how):
    done = run(*command, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what is in the checkout."""
    folder = tmp_path_factory.mktemp("build")
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for part in PARTS:
        if (CHECKOUT / part).is_dir():
            shutil.copytree(CHECKOUT / part, folder / part, ignore=ignored)
        else:
            shutil.copy(CHECKOUT / part, folder / part)
    succeed(uv.binary(), "build", "--wheel", "--out-dir", folder / "dist", cwd=folder)
    [built] = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def script_python(wheel, tmp_path_factory):
    """The Python of a fresh virtualenv with the wheel and what it needs without extras."""
    folder = tmp_path_factory.mktemp("script") / "venv"
    succeed(uv.binary(), "venv", "--python", sys.executable, folder)
    succeed(uv.binary(), "pip", "install", "--python", folder / "bin" / "python", wheel)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def server_python(wheel, tmp_path_factory):
    """The Python of a fresh virtualenv with the wheel, that sees the packages of this one.

    They are what the extras name: this virtualenv was made by them.
    """
    folder = tmp_path_factory.mktemp("server") / "venv"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    succeed(uv.binary(), "pip", "install", "--no-deps", "--python", python, wheel)
    [site] = (folder / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(str(Path(pytest.__file__).parent.parent))
    return python


def test_the_wheel_holds_the_package_and_its_folders(names):
    for name in (
        "kirby/__init__.py",
        "kirby/py.typed",
        "kirby/server/ui/static/kirby.css",
        "kirby/server/ui/templates/base.html",
        "kirby/server/migrations/env.py",
        "kirby/server/migrations/rights.sql",
        "kirby/server/migrations/versions/0001/logs.sql",
    ):
        assert name in names


@pytest.mark.parametrize("folder", ["ui", "migrations"])
def test_no_file_of_a_folder_is_missing(names, folder):
    files = [path for path in (CHECKOUT / folder).rglob("*") if path.is_file()]
    expected = {
        f"kirby/server/{path.relative_to(CHECKOUT).as_posix()}"
        for path in files
        if path.suffix != ".pyc"
    }

    assert expected <= set(names)


def test_the_wheel_holds_nothing_else(names):
    others = [name for name in names if not name.startswith(("kirby/", "kirby-"))]

    assert others == []
    assert not [name for name in names if name.endswith(".pyc") or "test" in name.lower()]


def test_the_wheel_has_a_license_and_needs_psycopg_alone(wheel, names):
    [name] = [name for name in names if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(wheel) as archive:
        said = email.message_from_bytes(archive.read(name))
    needs = [need for need in said.get_all("Requires-Dist") if "extra ==" not in need]

    assert said["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert len(needs) == 1
    assert needs[0].startswith("psycopg[binary]")
    assert {"server", "postgres"} <= set(said.get_all("Provides-Extra"))


def test_without_extras_psycopg_is_the_only_other_distribution(script_python):
    code = "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
    installed = succeed(script_python, "-c", code).split()

    names = {name.replace("_", "-").lower() for name in installed}
    assert {"kirby", "psycopg"} <= names <= ALLOWED


def test_without_extras_a_script_can_import_kirby(script_python, tmp_path):
    file = succeed(script_python, "-c", "import kirby; print(kirby.__file__)", cwd=tmp_path)

    assert Path(file.strip()).is_relative_to(script_python.parent.parent)


def test_without_extras_a_script_publishes_and_reads(script_python, dsn, tmp_path):
    code = "import kirby; kirby.topic('a').publish({'b': 1}); print(*kirby.topic('a').read())"

    said = succeed(script_python, "-c", code, cwd=tmp_path, env={"KIRBY_DSN": dsn})

    assert "value={'b': 1}" in said


@pytest.mark.parametrize("arguments", [[], ["db", "migrate"], ["--help"]])
def test_without_extras_the_command_says_what_to_install(script_python, tmp_path, arguments):
    done = run(script_python.parent / "kirby", *arguments, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("kirby: ")
    assert "pip install 'kirby[server]'" in line


def test_with_the_server_the_command_migrates_from_the_wheel(server_python, empty_dsn, tmp_path):
    command = server_python.parent / "kirby"
    code = "from kirby.server import paths; print(paths.MIGRATIONS, paths.UI)"
    for folder in succeed(server_python, "-c", code, cwd=tmp_path).split():
        assert Path(folder).is_relative_to(server_python.parent.parent)

    said = succeed(command, "db", "migrate", cwd=tmp_path, env={"KIRBY_DSN": empty_dsn})
    well = succeed(command, "db", "check", cwd=tmp_path, env={"KIRBY_DSN": empty_dsn})

    assert f"is at schema {schema.head()} (was empty before)" in said
    assert f"is well: schema {schema.head()}" in well


def test_with_the_server_the_command_lists_what_there_is(server_python, tmp_path):
    said = succeed(server_python.parent / "kirby", "--help", cwd=tmp_path)

    assert "Run Python scripts, and keep everything they did" in said
