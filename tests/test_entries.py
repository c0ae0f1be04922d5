"""What a run is: a file, a module, a function, a command line, in any language; what it gets."""

import os

import pytest
from fix_runs import ENDED, VIRTUALENV, drive, runs_fixture, supervise_fixture  # noqa: F401

from kirby.core.errors import KirbyError
from kirby.server.supervisor import entry, values


def outcome(runs, supervise, source="", **options):
    """Run it to its end: the run and what it printed."""
    run_id = runs.start(source, **options)
    drive(supervise(), lambda: runs.get(run_id)["status"] in ENDED)
    return runs.get(run_id), runs.texts(run_id, "stdout", "stderr")


@pytest.fixture
def module(tmp_path):
    """`module(source)`: the variables with which a module `mine` can be imported."""
    folder = tmp_path / "modules"
    folder.mkdir()

    def module(source):
        (folder / "mine.py").write_text(source)
        return {"PYTHONPATH": str(folder)}

    return module


def test_a_module_is_run_as_python_does_with_m(runs, supervise, module):
    variables = module("import sys\nprint(__name__, sys.argv[1:])\nraise SystemExit(5)")

    run, said = outcome(runs, supervise, entry="mine", variables=variables)

    assert said == ["__main__ []"]
    assert (run["status"], run["exit_code"]) == ("failed", 5)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("def main(): print('hello')", 0, ["hello"]),
        ("def main(): return 0", 0, []),
        ("def main(): return 7", 7, []),
        ("def main(): return 'no flights today'", 1, ["no flights today"]),
        ("def main():\n    import sys\n    sys.exit(4)", 4, []),
        ("async def main(): return 3", 3, []),
        ("class A:\n    @staticmethod\n    def b(): return 6\nmain = A", None, []),
    ],
)
def test_a_function_is_called_and_its_result_is_the_exit_code(
    runs, supervise, module, body, code, said
):
    name = "main.b" if code is None else "main"

    run, found = outcome(runs, supervise, entry=f"mine:{name}", variables=module(body))

    assert run["exit_code"] == (6 if code is None else code)
    assert found == said


def test_a_function_that_is_not_there_is_one_line(runs, supervise, module):
    run, said = outcome(runs, supervise, entry="mine:other", variables=module(""))

    assert said == ["the module mine has no other"]
    assert run["exit_code"] == 1


def test_a_function_that_raises_shows_its_traceback(runs, supervise, module):
    variables = module("def main():\n    1 / 0")

    run, said = outcome(runs, supervise, entry="mine:main", variables=variables)

    assert run["exit_code"] == 1
    assert said[-1] == "ZeroDivisionError: division by zero"
    assert any("mine.py" in line for line in said)


def test_a_command_finds_its_program_in_the_virtualenv_first(runs, supervise):
    command = ["python", "-c", "import sys; print(sys.executable, sys.argv[1:])", "a b", "$HOME"]

    _, said = outcome(runs, supervise, command=command)

    assert said == [f"{VIRTUALENV}/bin/python ['a b', '$HOME']"]


def test_a_command_gets_the_file_that_was_deployed(runs, supervise):
    run, said = outcome(runs, supervise, "{ print $1 + 1; exit 3 }", filename="add.awk",
                        command=["sh", "-c", "echo 41 | awk -f {script}"])  # fmt: skip

    assert said == ["42"]
    assert run["exit_code"] == 3


def test_a_command_that_is_nowhere_fails_and_says_so(runs, supervise):
    run, said = outcome(runs, supervise, command=["no-such-program"])

    assert said == ["cannot start no-such-program: No such file or directory"]
    assert run["reason"] == "exit code 126"


def test_a_shell_script_is_run_as_it_says(runs, supervise):
    source = "#!/bin/sh\necho \"$0\" | sed 's#.*/##'\necho $KIRBY_JOB\nexit 9\n"

    run, said = outcome(runs, supervise, source, filename="nightly.sh", name="nightly")

    assert said == ["nightly.sh", "nightly"]
    assert run["exit_code"] == 9


def test_without_a_first_line_a_file_is_for_the_shell(runs, supervise):
    _, said = outcome(runs, supervise, "echo $((6 * 7))\n", filename="sum.sh")

    assert said == ["42"]


def test_a_package_without_anything_to_run_is_refused_in_words(tmp_path):
    with pytest.raises(KirbyError, match="needs an entry or a command"):
        entry.arguments(tmp_path, script=None, source=None, entry="", command=None)


# Large values


READ = "import kirby, os; print(len(kirby.config('BIG')), 'BIG' in os.environ)"


@pytest.mark.parametrize("size", [values.LONGEST - 5, values.LONGEST - 4, 3_000_000])
def test_a_value_of_any_size_reaches_the_script(runs, supervise, size):
    """One byte over what the system takes, and it goes another way."""
    large = size + 5 > values.LONGEST

    run, said = outcome(runs, supervise, READ, variables={"BIG": "x" * size, "SMALL": "1"})

    assert run["status"] == "succeeded", said
    assert said == [f"{size} {not large}"]


def test_the_log_says_which_variable_is_not_in_the_environment(runs, supervise):
    run, _ = outcome(runs, supervise, READ, variables={"BIG": "é" * 102_400})

    [notice] = runs.texts(run["id"], "kirby")
    assert notice == values.notice("BIG", "é" * 102_400)
    assert "the variable BIG (200 KB) is too large for the environment" in notice


def test_many_values_that_are_too_large_together_are_passed_on_too(runs, supervise):
    variables = {f"V{n}": str(n) * 100_000 for n in range(40)}
    source = "import kirby\nprint([len(kirby.config(f'V{n}')) for n in range(40)])"

    _, said = outcome(runs, supervise, source, variables=variables)

    assert said == [str([len(value) for value in variables.values()])]


def test_a_program_in_another_language_reads_them_from_the_descriptor(runs, supervise):
    command = ["sh", "-c", "head -c 30 <&$KIRBY_VALUES_FD"]

    run, said = outcome(runs, supervise, command=command, variables={"BIG": "y" * 200_000})

    assert said[0].startswith(f'{{"run": "{run["id"]}", "values": '[:30])


def test_a_child_without_the_descriptor_sees_no_value_of_anothers(runs, supervise):
    source = """
        import subprocess, sys
        child = "import kirby, os; print(kirby.config('BIG', 'nothing'))"
        subprocess.run([sys.executable, "-c", child], check=True)
        """

    _, said = outcome(runs, supervise, source, variables={"BIG": "x" * 200_000})

    assert said == ["nothing"]


def test_another_file_under_that_number_is_not_taken_for_values(monkeypatch, tmp_path):
    from kirby.sdk.configuration import config

    path = tmp_path / "other"
    path.write_text('{"run": "8", "values": {"BIG": "not mine"}}')
    fd = os.open(path, os.O_RDONLY)
    monkeypatch.setenv("KIRBY_VALUES_FD", str(fd))
    monkeypatch.setenv("KIRBY_RUN", "7")

    assert config("BIG", "nothing") == "nothing"
    os.close(fd)
