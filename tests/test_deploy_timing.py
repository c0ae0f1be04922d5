"""Options of when a job runs and when it is missed: each way to deploy keeps them as they are."""

import json

import pytest
from fix_web import connected

OPTIONS = {
    "schedules": ["30 2 * * *", "every 45m"],
    "tz": "Europe/Brussels",
    "exclude": ["holidays"],
    "catch_up": "all",
    "catch_up_most": 5,
    "jitter": 300,
    "start_by": 120,
    "finish_by": 5400,
    "expects": {"invoices": 3600, "orders": 900},
    "alert_after": 3,
    "recover_after": 2,
    "pause_after": 10,
    "tags": ["finance", "nightly"],
}
TOML = """\
# /// script
# [tool.kirby]
# schedule = ["30 2 * * *", "every 45m"]
# tz = "Europe/Brussels"
# exclude = ["holidays"]
# catch_up = "all(5)"
# jitter = "5m"
# start_by = 120
# finish_by = "90m"
# expects = { orders = "15m", invoices = 3600 }
# alert_after = 3
# recover_after = 2
# pause_after = 10
# tags = ["nightly", "finance"]
# ///
"""


@pytest.fixture
def house(cli, tmp_path):
    """The command line beside a script of each kind, and the calendar that they name."""
    (tmp_path / "plain.py").write_text("print(1)\n")
    (tmp_path / "said.py").write_text(TOML)
    assert cli("calendar", "add", "holidays", "--day", "12-25", "--everywhere").code == 0
    return cli


def shown(house, name, env="dev"):
    done = house("job", "show", name, "--env", env, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    return {key: found[key] for key in OPTIONS}


def test_by_command(house):
    done = house(
        "deploy", "plain.py", "--schedule", "30 2 * * *", "--schedule", "every 45m",
        "--tz", "Europe/Brussels", "--exclude", "holidays", "--catch-up", "all(5)",
        "--jitter", "5m", "--start-by", 120, "--finish-by", "90m", "--expect", "orders=15m",
        "--expect", "invoices=3600", "--alert-after", 3, "--recover-after", 2,
        "--pause-after", 10, "--tag", "nightly", "--tag", "finance",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert shown(house, "plain") == OPTIONS
    text = house("job", "show", "plain").out
    for line in ("exclude        holidays", "catch up       all(5)", "jitter         5m",
                 "finish by      90m", "expects        invoices=1h, orders=15m",
                 "tags           finance, nightly", "start by       2m"):  # fmt: skip
        words = line.split("  ")
        assert any(each.startswith(words[0]) and each.endswith(words[-1].strip())
                   for each in text.splitlines()), (line, text)  # fmt: skip


def test_as_a_script_says_itself_and_as_a_deploy_says_otherwise(house):
    assert house("deploy", "said.py").code == 0
    assert shown(house, "said") == OPTIONS

    other = house("deploy", "said.py", "--start-by", "none", "--finish-by", "none",
                  "--pause-after", "none", "--catch-up", "none", "--tag", "other")  # fmt: skip

    assert shown(house, "said") == {
        **OPTIONS, "start_by": None, "finish_by": None, "pause_after": None,
        "catch_up": "none", "catch_up_most": 10, "tags": ["other"],
    }  # fmt: skip
    assert "catch up all(5) → none" in other.out
    assert "finish by 90m → none" in other.out
    assert "tags finance, nightly → other" in other.out


def test_the_same_again_changes_nothing(house):
    house("deploy", "said.py")

    assert "at version 1 already: no change" in house("deploy", "said.py").out


def test_promoted_and_rolled_back_they_stay(house):
    house("deploy", "said.py")
    house("deploy", "said.py", "--jitter", "1m", "--tag", "other", "--catch-up", "last")

    assert house("job", "rollback", "said").code == 0
    assert house("job", "promote", "said", "--from", "dev", "--to", "prod").code == 0

    assert shown(house, "said") == OPTIONS
    assert shown(house, "said", "prod") == OPTIONS


def test_by_the_api(house, api):
    files = {"file": ("plain.py", b"print(1)\n")}
    form = {
        "schedule": OPTIONS["schedules"], "tz": "Europe/Brussels", "exclude": ["holidays"],
        "catch_up": "all(5)", "jitter": "5m", "start_by": "120", "finish_by": "90m",
        "expect": ["orders=15m", "invoices=1h"], "alert_after": "3", "recover_after": "2",
        "pause_after": "10", "tag": ["nightly", "finance"],
    }  # fmt: skip

    made = api("POST", "/deploy?env=prod", files=files, data=form)

    assert made.status_code == 201, made.text
    assert shown(house, "plain", "prod") == OPTIONS
    [job] = made.json()["jobs"]
    assert job["warnings"][0].endswith("02:30 does not exist in Europe/Brussels: it runs at 03:00"
                                       " instead")  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--schedule", "every 0m"], "'every 0m': write it like 'every 45m'"),
        (["--schedule", "@daily", "--schedule", "61 * * * *"], "schedule line 2 (61 * * * *)"),
        (["--schedule", "@daily", "--catch-up", "some"], "catch-up is 'some': it must be none,"),
        (["--schedule", "@daily", "--catch-up", "all(0)"], "catch-up is 'all(0)'"),
        (["--schedule", "@daily", "--jitter", "x"], "jitter is 'x': it must be a duration"),
        (["--schedule", "@daily", "--start-by", "0"], "start-by is 0.0: it must be a duration"),
        (["--schedule", "@daily", "--heartbeat", "5m"], "heartbeat is for daemons"),
        (["--schedule", "@daily", "--expect", "orders"], "'orders' is not NAME=VALUE"),
        (["--schedule", "@daily", "--expect", "orders=x"], "expects is {'orders': 'x'}"),
        (["--schedule", "@daily", "--exclude", "feasts"], "there is no calendar in dev called"),
        (["--schedule", "@daily", "--pause-after", "x"], "pause-after is 'x'"),
        (["--daemon", "--jitter", "5m"], "jitter is for schedules: plain is daemon"),
        (["--finish-by", "5m"], "finish-by is for schedules: plain is manual"),
        (["--daemon", "--exclude", "holidays"], "exclude is for schedules"),
    ],
)
def test_what_is_wrong_is_one_line_and_deploys_nothing(house, dsn, options, message):
    done = house("deploy", "plain.py", *options)

    assert done.code == 1
    assert done.err.startswith(f"kirby: {message}"), done.err
    assert len(done.err.splitlines()) == 1
    with connected(dsn) as conn:
        assert not conn.execute("select from kirby.deployment").fetchall()


def test_a_daemon_has_signs_of_life(house):
    done = house("deploy", "plain.py", "--daemon", "--heartbeat", "2m", "--expect", "orders=15m")

    assert done.code == 0, done.err
    found = json.loads(house("job", "show", "plain", "--json").out)
    assert (found["heartbeat"], found["expects"]) == (120, {"orders": 900})


def test_a_daemon_of_a_script_with_a_schedule_leaves_what_is_of_schedules(house):
    assert house("deploy", "said.py", "--as", "kept", "--daemon").code == 0
    found = shown(house, "kept")

    assert (found["exclude"], found["jitter"], found["start_by"]) == ([], 0, None)
    assert found["tags"] == OPTIONS["tags"]


def test_surprises_are_told_when_a_schedule_is_new(house):
    first = house("deploy", "plain.py", "--schedule", "0 0 13 * 5")
    again = house("deploy", "plain.py", "--schedule", "0 0 13 * 5", "--timeout", "5m")
    compared = house("deploy", "plain.py", "--schedule", "*/45 * * * *", "--diff", "--json")

    assert first.err == (
        "note: '0 0 13 * 5' runs when either of its day fields fits: at 00:00 on day 13 of the"
        " month or on Friday\n"
    )
    assert (again.code, again.err) == (0, "")
    assert "'*/45' in the minute field" in json.loads(compared.out)["jobs"][0]["warnings"][0]
