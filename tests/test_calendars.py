"""Calendars as people keep them: by command and API; what names them, and what a change does."""

import json

import pytest
from fix_web import connected

from kirby.server import calendars, database, environments

SCRIPT = (
    '# /// script\n# [tool.kirby]\n# schedule = "30 2 * * *"\n# exclude = ["holidays"]\n# ///\n'
)


@pytest.fixture
def house(cli, dsn, tmp_path):
    """The command line beside a script that names the calendar `holidays`."""
    (tmp_path / "nightly.py").write_text(SCRIPT)
    with connected(dsn) as cli.conn:
        yield cli


def ok(done):
    assert (done.code, done.err) == (0, ""), done.err
    return done.out


def shown(house, name, *options):
    return json.loads(ok(house("calendar", "show", name, "--json", *options)))


def replanned(house):
    """The jobs that are to be planned anew; from then on they are not."""
    rows = house.conn.execute(
        """
        update kirby.deployment d set plan_at = 'infinity' from kirby.job j
         where j.id = d.job_id and d.plan_at = 'epoch' returning j.name
        """
    ).fetchall()
    return [name for (name,) in rows]


def test_days_and_windows_are_added_shown_and_taken_out(house):
    said = ok(house("calendar", "add", "holidays", "--day", "12-25", "--day", "2026-07-21"))
    ok(house("calendar", "add", "holidays", "--window", "0 1 * * sun for 4h", "--day", "12-25",
             "--tz", "Europe/Brussels"))  # fmt: skip

    assert said == "the calendar holidays in dev has 2 days and 0 windows\n"
    found = shown(house, "holidays")
    assert (found["days"], found["tz"], found["version"]) == (
        ["12-25", "2026-07-21"], "Europe/Brussels", 2,
    )  # fmt: skip
    assert found["windows"] == [{"cron": "0 1 * * sun", "minutes": 240}]
    text = ok(house("calendar", "show", "holidays"))
    assert "0 1 * * sun for 4h" in text
    assert "12-25, 2026-07-21" in text
    ok(house("calendar", "remove", "holidays", "--day", "12-25", "--window", "0 1 * * sun for 4h"))
    assert shown(house, "holidays")["days"] == ["2026-07-21"]
    gone = house("calendar", "remove", "holidays", "--day", "12-25")
    assert (gone.code, gone.err) == (1, "kirby: the calendar holidays does not say 12-25\n")


def test_every_change_is_audited_once_and_nothing_when_there_is_none(house):
    ok(house("calendar", "add", "holidays", "--day", "12-25", "--reason", "Christmas"))
    ok(house("calendar", "add", "holidays", "--day", "12-25"))
    ok(house("calendar", "add", "holidays", "--day", "12-26"))
    ok(house("calendar", "remove", "holidays"))

    rows = house.conn.execute(
        "select verb, object, after -> 'days', reason from kirby.audit_event"
        " where object like 'calendar/%' order by position"
    ).fetchall()
    assert rows == [
        ("calendar_added", "calendar/dev/holidays", ["12-25"], "Christmas"),
        ("calendar_changed", "calendar/dev/holidays", ["12-25", "12-26"], ""),
        ("calendar_removed", "calendar/dev/holidays", None, ""),
    ]


def test_a_job_names_calendars_that_are_there(house):
    missing = house("deploy", "nightly.py")
    ok(house("calendar", "add", "hollidays", "--day", "12-25"))
    close = house("deploy", "nightly.py")

    assert missing.err == "kirby: there is no calendar in dev called holidays\n"
    assert close.err.endswith("called holidays; did you mean hollidays?\n")
    assert not house.conn.execute("select from kirby.deployment").fetchall()


def test_a_calendar_in_use_is_not_removed_and_a_change_plans_anew(house):
    ok(house("calendar", "add", "holidays", "--day", "12-25"))
    ok(house("deploy", "nightly.py"))
    assert replanned(house) == ["nightly"]

    changed = ok(house("calendar", "add", "holidays", "--day", "12-26"))
    assert changed.endswith("2 days and 0 windows; 1 deployed jobs name it\n")
    assert replanned(house) == ["nightly"]
    ok(house("calendar", "add", "others", "--day", "12-26"))
    assert replanned(house) == []
    used = house("calendar", "remove", "holidays")
    assert used.err == (
        "kirby: the calendar holidays is in use by dev/nightly: deploy them without it first\n"
    )
    assert shown(house, "holidays")["used_by"] == ["dev/nightly"]


def test_the_environments_own_goes_before_the_one_for_all(house, engine):
    ok(house("calendar", "add", "holidays", "--day", "01-01", "--everywhere"))
    ok(house("calendar", "add", "holidays", "--day", "12-25", "--env", "prod"))

    assert (shown(house, "holidays")["environment"], shown(house, "holidays")["days"]) == (
        None, ["01-01"],
    )  # fmt: skip
    assert shown(house, "holidays", "--env", "prod")["days"] == ["12-25"]
    own = house("calendar", "remove", "holidays", "--env", "dev")
    assert own.err == (
        "kirby: the calendar holidays is one for all environments: say --everywhere\n"
    )
    ok(house("deploy", "nightly.py", "--env", "preprod"))
    used = house("calendar", "remove", "holidays", "--everywhere")
    assert "in use by preprod/nightly" in used.err
    with database.unit(engine) as conn:
        prod, dev = environments.get(conn, "prod").id, environments.get(conn, "dev").id
        assert [each.days for each in calendars.load(conn, prod, ["holidays"]).all] == [("12-25",)]
        assert [each.days for each in calendars.load(conn, dev, ["holidays"]).all] == [("01-01",)]
        assert calendars.load(conn, dev, ["gone"]).all == ()
    ok(house("calendar", "remove", "holidays", "--env", "prod"))
    assert shown(house, "holidays", "--env", "prod")["days"] == ["01-01"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "Holidays", "--day", "12-25"], "calendar name 'Holidays' must be lower-case"),
        (["add", "holidays", "--day", "xmas"], "'xmas' is not a day"),
        (["add", "holidays", "--window", "sun"], "'sun' is not a window"),
        (["add", "holidays", "--tz", "Mars"], "there is no time zone 'Mars'"),
        (["show", "holidays"], "there is no calendar in dev called holidays"),
        (["remove", "holidays"], "there is no calendar in dev called holidays"),
    ],
)
def test_what_is_wrong_is_one_line_and_changes_nothing(house, arguments, message):
    done = house("calendar", *arguments)

    assert done.code == 1
    assert done.err.startswith(f"kirby: {message}")
    assert len(done.err.splitlines()) == 1
    assert not house.conn.execute("select from kirby.calendar").fetchall()


def test_programs_keep_calendars_by_the_api(api):
    body = {"days": ["12-25"], "windows": ["0 1 * * sun for 4h"], "reason": "feasts"}
    assert api("PUT", "/calendars/holidays", json=body, role="viewer").status_code == 403
    made = api("PUT", "/calendars/holidays", json=body, role="operator")
    again = api("PUT", "/calendars/holidays", json={"days": ["01-01"]}, role="operator")

    assert made.status_code == 200
    assert made.json()["windows"] == [{"cron": "0 1 * * sun", "minutes": 240}]
    assert (again.json()["days"], again.json()["windows"]) == (["01-01"], [])
    assert api("GET", "/calendars/holidays").json()["days"] == ["01-01"]
    assert [each["name"] for each in api("GET", "/calendars").json()] == ["holidays"]
    wrong = api("PUT", "/calendars/holidays", json={"days": "12-25"}, role="operator")
    assert (wrong.status_code, wrong.json()["error"]) == (400, "days must be a list of texts")
    everywhere = api("PUT", "/calendars/all?everywhere=1", json=body, role="operator")
    assert everywhere.json()["environment"] is None
    assert api("DELETE", "/calendars/holidays", role="operator").json() == {"removed": "holidays"}
    assert api("GET", "/calendars/holidays").status_code == 404


def test_a_preview_marks_what_a_calendar_excludes(house):
    ok(house("calendar", "add", "holidays", "--day", "2026-12-25"))

    done = house("schedule", "preview", "0 12 * * *", "--from", "2026-12-24T13:00", "-n", "2",
                 "--exclude", "holidays", "--json")  # fmt: skip
    text = house("schedule", "preview", "0 12 * * *", "--from", "2026-12-24T13:00", "-n", "2",
                 "--exclude", "holidays")  # fmt: skip

    assert [each["excluded"] for each in json.loads(ok(done))["ticks"]] == [
        "holidays: 2026-12-25", "",
    ]  # fmt: skip
    assert "2026-12-25 12:00 UTC  excluded by holidays: 2026-12-25" in ok(text)
    unknown = house("schedule", "preview", "@daily", "--exclude", "hollidays")
    assert unknown.err.endswith("called hollidays; did you mean holidays?\n")
