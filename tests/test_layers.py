"""A script needs psycopg and nothing else; the parts import each other in one direction only."""

import subprocess
import sys

import pytest

from kirby.server.paths import CHECKOUT as ROOT

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r} or name == "kirby.server":
            raise ModuleNotFoundError("blocked", name=name)

sys.meta_path.insert(0, Blocked())
{then}
"""
SERVER = {
    "alembic", "argon2", "click", "croniter", "django", "jinja2", "packaging", "rich",
    "sqlalchemy", "starlette", "tzdata", "uv", "uvicorn",
}  # fmt: skip


def run(then, *options):
    code = BLOCK.format(names=SERVER, then=then)
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True)


def test_a_script_works_without_the_packages_of_the_server():
    done = run("import kirby; kirby.topic('a'), kirby.state('a'), kirby.stream('a')")

    assert (done.returncode, done.stderr) == (0, "")


def test_a_script_loads_nothing_but_psycopg_and_the_standard_library():
    done = run(
        "before = set(sys.modules)\nimport kirby\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - sys.stdlib_module_names))"
    )

    loaded = [name for name in done.stdout.split() if not name.startswith("_")]
    assert loaded == ["cython_runtime", "kirby", "psycopg", "psycopg_binary", "typing_extensions"]


def test_every_public_name_is_there():
    done = run("import kirby; assert all(hasattr(kirby, name) for name in kirby.__all__)")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "how",
    [
        "from kirby.__main__ import main; main()",
        "import runpy; runpy.run_module('kirby', run_name='__main__')",
    ],
)
def test_without_the_server_the_command_says_what_to_install(how):
    done = run(how)

    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line == ("kirby: the command line needs kirby.server: pip install 'kirby[server]'")


def test_a_mistake_of_our_own_is_not_taken_for_a_missing_package():
    done = run(
        "Blocked.find_spec = lambda self, name, *_: 1 / 0 if name == 'kirby.server' else None\n"
        "from kirby.__main__ import main; main()"
    )

    assert "ZeroDivisionError" in done.stderr


def test_the_contracts_between_the_packages_hold():
    code = "from importlinter.cli import lint_imports_command as lint; lint()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 0, done.stdout
