import warnings

import pytest

from kirby.core.errors import Invalid
from kirby.server import scripts

FULL = '''"""Publishes departures."""
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "kirby",
#     "six>=1.16; python_version > '3'",
# ]
#
# [tool.kirby]
# schedule = ["0 6 * * *", "@hourly"]
# tz = "Europe/Brussels"
# replicas = 2
# max_attempts = 3
# description = "Departures of the day"
#
# [tool.kirby.variables]
# DAYS = "31"
#
# [tool.other]
# anything = 1
# ///
import six
'''


def block(*lines):
    return "\n".join(["# /// script", *(f"# {line}" for line in lines), "# ///", ""]).encode()


def refused(source, name="job.py"):
    with pytest.raises(Invalid) as error:
        scripts.parse(source, name)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_script_is_read_with_all_that_it_asks_for(tmp_path):
    path = tmp_path / "departures.py"
    path.write_text(FULL)

    script = scripts.read(path)

    assert script == scripts.Script(
        name="departures",
        source=FULL,
        dependencies=("kirby", "six>=1.16; python_version > '3'"),
        requires_python=">=3.11",
        kirby={
            "schedule": ["0 6 * * *", "@hourly"],
            "tz": "Europe/Brussels",
            "replicas": 2,
            "max_attempts": 3,
            "description": "Departures of the day",
            "variables": {"DAYS": "31"},
        },
    )


def test_a_script_without_a_block_needs_nothing():
    assert scripts.parse(b"print('hello')\n", "hello.py") == scripts.Script(
        "hello", "print('hello')\n"
    )


def test_nothing_of_the_script_is_run(tmp_path):
    flag = tmp_path / "ran"

    scripts.parse(f"open({str(flag)!r}, 'w')\n".encode(), "job.py")

    assert not flag.exists()


def test_a_script_that_python_warns_about_is_accepted():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scripts.parse(b"x = '\\d'\nassert (x, 'never')\n", "job.py")


def test_the_name_comes_from_the_table_before_the_file():
    script = scripts.parse(block("[tool.kirby]", 'name = "the-job.1"'), "My File.py")

    assert script.name == "the-job.1"


def test_windows_line_ends_and_a_byte_order_mark_are_accepted():
    source = b"\xef\xbb\xbf" + block('dependencies = ["six"]').replace(b"\n", b"\r\n")

    assert scripts.parse(source, "job.py").dependencies == ("six",)


def test_a_block_without_a_last_line_end_is_read():
    assert scripts.parse(block('dependencies = ["six"]').rstrip(), "job.py").dependencies


def test_blocks_of_another_type_are_left_alone():
    source = b"# /// other\n# not toml at all\n# ///\n\n" + block('dependencies = ["six"]')

    assert scripts.parse(source, "job.py").dependencies == ("six",)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(Invalid, match=r"gone\.py: there is no such file"):
        scripts.read(tmp_path / "gone.py")


def test_a_folder_is_not_a_script(tmp_path):
    with pytest.raises(Invalid, match="this is not a file"):
        scripts.read(tmp_path)


@pytest.mark.parametrize("name", ["job.txt", "job", "job.pyc"])
def test_only_py_files_are_scripts(name):
    assert refused(b"", name) == f"{name}: a script must be a .py file"


def test_a_script_above_the_cap_is_refused(tmp_path):
    path = tmp_path / "job.py"
    path.write_bytes(b"#" * (scripts.LARGEST + 1))

    with pytest.raises(Invalid, match=r"job\.py: larger than 5 MB"):
        scripts.read(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"x = 1\ny = '\xe9'\n", "job.py"),
        (b"#\n#\n#\n# \xe9\n", "job.py:4: not UTF-8"),
        (b"# -*- coding: latin-1 -*-\n", "job.py: declares the encoding iso-8859-1"),
        (b"# -*- coding: klingon -*-\n", "job.py: not UTF-8, or it declares another encoding"),
        (b"x = 1\ndef f(:\n    pass\n", "job.py:2: does not parse: invalid syntax: def f(:"),
        (b"if True:\nx = 1\n", "job.py:2: does not parse: expected an indented block"),
        (b"x = '\0'\n", "does not parse"),
        (b"-" * 200_000 + b"1\n", "does not parse"),
    ],
)
def test_a_file_that_python_cannot_read_is_refused_with_its_line(source, message):
    assert message in refused(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (block() + b"\n" + block(), "job.py:4: a second `# /// script` block"),
        (
            b"\n# /// script\n# x = 1\nimport os\n",
            "job.py:2: the `# /// script` block is not closed",
        ),
        (b"# /// script\n#x = 1\n# ///\n", "job.py:1: the `# /// script` block is not closed"),
        (b"#/// script\n# ///\n", "job.py:1: write exactly `# /// script`"),
        (b"# /// script \n# ///\n", "job.py:1: write exactly `# /// script`"),
        (b"\n\n# /// Script\n# ///\n", "job.py:3: write exactly `# /// script`"),
    ],
)
def test_a_block_that_would_be_passed_over_is_refused(source, message):
    assert message in refused(source)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dependencies = ["], "job.py:2: not valid TOML"),
        (["", "x = = 1"], "job.py:3: not valid TOML"),
        (["dependencies = 'six'"], "job.py:2: dependencies must be a list of strings"),
        (["dependencies = [1]"], "job.py:2: dependencies must be a list of strings"),
        (
            ["dependencies = [", ' "six",', ' "not valid!",', "]"],
            "job.py:4: dependency 'not valid!'",
        ),
        (["dependancies = []"], "unknown key 'dependancies'; did you mean dependencies?"),
        (["", "[kirby]", "name = 'x'"], "job.py:3: unknown key 'kirby'; did you mean tool.kirby?"),
        (["requires-python = 3.11"], "job.py:2: requires-python must be a string"),
        (["requires-python = 'new'"], "'new' is not a version specifier"),
        (["tool = 1"], "[tool.kirby] must be a table"),
        (["tool.kirby = 1"], "[tool.kirby] must be a table"),
    ],
)
def test_a_wrong_block_is_refused_with_its_line(lines, message):
    assert message in refused(block(*lines))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("shedule = '@daily'", "unknown key [tool.kirby] 'shedule'; did you mean schedule?"),
        ("colour = 'red'", "unknown key [tool.kirby] 'colour'; known are name, description"),
        ("name = 1", "[tool.kirby] name must be a string"),
        ("name = 'My Job'", "job name 'My Job' must be lower-case letters"),
        ("name = ''", "job name '' must be"),
        ("schedule = 5", "[tool.kirby] schedule must be a string or a list of strings"),
        ("schedule = []", "[tool.kirby] schedule must be a string or a list of strings"),
        ("schedule = ['@daily', 1]", "[tool.kirby] schedule must be a string or a list"),
        ("tz = 1", "[tool.kirby] tz must be a string"),
        ("daemon = 'yes'", "[tool.kirby] daemon must be true or false"),
        ("replicas = 0", "[tool.kirby] replicas must be a whole number from 1 to 1000"),
        ("replicas = true", "[tool.kirby] replicas must be a whole number"),
        ("max_attempts = 1.5", "[tool.kirby] max_attempts must be a whole number"),
        ("description = ['x']", "[tool.kirby] description must be a string"),
        ("description = \"\\u0000\"", "[tool.kirby] description must be a string"),
        ("command = 'ls -l'", "[tool.kirby] command must be a list of strings"),
        ("command = []", "[tool.kirby] command must be a list of strings"),
        ("command = ['']", "[tool.kirby] command must be a list of strings"),
        ("timeout = 0", "[tool.kirby] timeout must be a duration"),
        ("timeout = '5 minutes'", "[tool.kirby] timeout must be a duration"),
        ("timeout = inf", "[tool.kirby] timeout must be a duration"),
        ("grace = -1", "[tool.kirby] grace must be a duration"),
        ("grace = true", "[tool.kirby] grace must be a duration"),
        ("retry_pause = '400d'", "[tool.kirby] retry_pause must be a duration"),
        ("no_progress_timeout = nan", "[tool.kirby] no_progress_timeout must be a duration"),
        ("priority = 101", "[tool.kirby] priority must be a whole number from -100 to 100"),
        ("priority = false", "[tool.kirby] priority must be a whole number"),
        ("labels = 'gpu'", "[tool.kirby] labels must be a list of words"),
        ("labels = ['a b']", "[tool.kirby] labels must be a list of words"),
        ("labels = ['a,b']", "[tool.kirby] labels must be a list of words"),
        ("concurrency = 'many'", "concurrency must be one of allow, queue, skip, replace"),
        ("rerun = 'never'", "[tool.kirby] rerun must be original or current"),
        ("needs = ['A-B']", "[tool.kirby] needs must be a list of names of variables"),
        ("secrets = [1]", "[tool.kirby] secrets must be a list of names of secrets"),
        ("reads = ['a b']", "[tool.kirby] reads must be a list of names of topics"),
        ("writes = 'a'", "[tool.kirby] writes must be a list of names of topics"),
        ("variables = 'x'", "[tool.kirby] variables must be a table of strings"),
        ("variables = { DAYS = 31 }", "[tool.kirby] variables must be a table of strings"),
        ("variables = { 'MY-DAYS' = '31' }", "variable 'MY-DAYS' must be letters, digits and _"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_with_its_line(line, message):
    found = refused(block("", "[tool.kirby]", line))

    assert found.startswith("job.py:4: ")
    assert message in found


def test_a_key_with_a_line_break_is_still_refused_in_one_line():
    found = refused(block("[tool.kirby]", '"a\\nb" = 1'))

    assert found.startswith("job.py:1: unknown key [tool.kirby] 'a\\nb'")


def test_a_job_is_not_both_daemon_and_scheduled():
    found = refused(block("[tool.kirby]", "daemon = true", "schedule = '@daily'"))

    assert found == "job.py:4: a job is a daemon or has a schedule, not both"


@pytest.mark.parametrize("name", ["My File.py", "_x.py", "é.py", f"{'x' * 64}.py", ".py"])
def test_a_file_name_that_is_no_job_name_says_where_to_set_one(name):
    assert "set name in [tool.kirby]" in refused(b"", name)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0.0), (90, 90.0), (1.5, 1.5), ("90s", 90.0), ("5m", 300.0), ("2 h", 7200.0),
        ("1.5h", 5400.0), ("1d", 86400.0), ("366d", 366 * 86400.0), ("367d", None), ("-1s", None),
        ("5", None), ("m", None), ("5M", None), (True, None), (None, None), (float("nan"), None),
        (float("inf"), None), ([], None),
    ],
)  # fmt: skip
def test_durations_are_numbers_of_seconds_or_have_a_unit(written, seconds):
    assert scripts.seconds(written) == seconds


def test_settings_have_one_plain_form():
    settings = {"schedule": "@daily", "timeout": "5m", "grace": 2, "labels": ["gpu"]}

    assert scripts.plain(settings) == {
        "schedule": ["@daily"],
        "timeout": 300.0,
        "grace": 2.0,
        "labels": ["gpu"],
    }
