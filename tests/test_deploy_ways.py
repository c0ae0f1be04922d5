"""Deploying by command, API and page: what each does, what it says, and that they agree."""

import json
import re

import pytest
from fix_deploy import acme
from fix_web import connected, scalar

SCRIPT = """\
# /// script
# [tool.kirby]
# description = "Says {said}"
# variables = {{ NAME = "you", DAYS = "7" }}
# reads = ["orders"]
# ///
print("{said}")
"""
DAEMON = "# /// script\n# [tool.kirby]\n# daemon = true\n# replicas = 4\n# ///\nprint({})\n"


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return write


def document(done):
    assert (done.code, done.err) == (0, ""), done.err
    return json.loads(done.out)


def shown(cli, name, env="dev"):
    return document(cli("job", "show", name, "--env", env, "--json"))


# By command


def test_every_option_is_kept_and_shown(cli, write):
    write("nightly.py", SCRIPT.format(said="hello"))

    done = cli(
        "deploy", "nightly.py", "--as", "nights", "--schedule", "0 2 * * *", "--schedule", "@daily",
        "--tz", "Europe/Brussels", "--max-attempts", 3, "--retry-pause", "90s", "--timeout", "2h",
        "--no-progress-timeout", "5m", "--grace", 30, "--concurrency", "queue", "--priority", 7,
        "--rerun", "current", "--label", "gpu", "--label", "eu", "--var", "DAYS=31",
        "--need", "NAME", "--reason", "a try",
    )  # fmt: skip

    assert re.fullmatch(r"deployed nights version 1 in dev: next tick .*\n", done.out)
    found = shown(cli, "nights")
    for name, value in {
        "schedules": ["0 2 * * *", "@daily"], "tz": "Europe/Brussels", "max_attempts": 3,
        "retry_pause": 90, "timeout": 7200, "no_progress_timeout": 300, "grace": 30,
        "concurrency": "queue", "priority": 7, "rerun": "current", "labels": ["eu", "gpu"],
        "variables": {"NAME": "you", "DAYS": "31"}, "reason": "a try",
    }.items():  # fmt: skip
        assert found[name] == value, name
    assert found["needs"] == {
        "variables": ["NAME"], "secrets": [], "reads": ["orders"], "writes": [],
    }  # fmt: skip
    text = cli("job", "show", "nights").out
    for line in ("retry pause          1m 30s", "timeout              2h", "concurrency"):
        assert line.split()[0] in text


def test_the_same_again_changes_nothing_and_a_change_says_what(cli, write):
    write("nightly.py", SCRIPT.format(said="hello"))
    cli("deploy", "nightly.py")
    same = cli("deploy", "nightly.py")
    write("nightly.py", SCRIPT.format(said="bye"))

    changed = cli("deploy", "nightly.py", "--timeout", "90s", "--var", "DAYS=8")

    assert same.out == "nightly in dev is at version 1 already: no change\n"
    first, *rest = changed.out.splitlines()
    assert first.startswith("deployed nightly version 2 in dev: run it with")
    assert rest == [
        "  variables: DAYS 7 → 8 (deployment)",
        "  policies: timeout none → 90s",
        "  source: 2 lines added, 2 removed",
    ]


def test_a_diff_shows_everything_and_stores_nothing(cli, write, dsn):
    from fix_kirby import contents

    write("nightly.py", SCRIPT.format(said="hello"))
    cli("deploy", "nightly.py")
    cli("config", "set", "PLACE=here", "--env", "dev")
    write("nightly.py", SCRIPT.format(said="bye"))
    before = contents(dsn)

    text = cli("deploy", "nightly.py", "--schedule", "@daily", "--as", "nightly2", "--diff").out
    found = document(cli("deploy", "nightly.py", "--diff", "--json"))

    assert contents(dsn) == before
    assert "nightly2 in dev: new" in text
    assert "+ when @daily" in text
    [diff] = found["jobs"]
    assert (diff["job"], diff["before"], diff["after"]) == ("nightly", 1, None)
    assert '-print("hello")' in diff["source"]
    assert '+print("bye")' in diff["source"]
    origins = {each["name"]: each["origin"] for each in diff["effective"]}
    assert origins == {"NAME": "deployment", "DAYS": "deployment", "PLACE": "environment"}


def test_a_package_has_all_its_jobs_deployed_or_the_one_that_is_chosen(cli, write):
    name, content = acme()
    write(name, content)

    all_of_it = document(cli("deploy", name, "--json"))
    one = document(
        cli("deploy", name, "--job", "send", "--env", "prod", "--as", "sender", "--json")
    )

    assert [(job["job"], job["version"]) for job in all_of_it["jobs"]] == [
        ("count", 1),
        ("send", 1),
    ]
    assert (one["job"], one["environment"], one["version"]) == ("sender", "prod", 1)
    found = shown(cli, "sender", "prod")
    assert (found["entry"], found["package"], found["package_version"]) == (
        "acme:send",
        "acme",
        "1.0",
    )
    assert [job["name"] for job in document(cli("job", "list", "--env", "prod", "--json"))] == [
        "sender"
    ]


def test_two_versions_side_by_side_promoted_and_rolled_back(cli, write):
    for version in ("1.0", "2.0"):
        write(*acme(version))
    cli("deploy", acme("1.0")[0], "--job", "send")
    cli("job", "promote", "send", "--from", "dev", "--to", "prod", "--reason", "first")
    second = cli("deploy", acme("2.0")[0], "--job", "send")

    assert "  release: version 1.0 → 2.0" in second.out
    assert [(p["environment"], p["package_version"]) for p in shown(cli, "send")["places"]] == [
        ("dev", "2.0"), ("prod", "1.0"),
    ]  # fmt: skip

    promoted = cli("job", "promote", "send", "--from", "dev", "--to", "prod")
    back = cli("job", "rollback", "send", "--env", "prod", "--reason", "worse")
    again = cli("job", "rollback", "send", "--env", "prod")

    assert promoted.out.startswith("deployed send version 2 in prod")
    assert back.out.startswith("deployed send version 3 in prod")
    assert again.err == "kirby: send has no version before 3 in prod\n"
    found = shown(cli, "send", "prod")
    assert (found["version"], found["package_version"], found["reason"]) == (3, "1.0", "worse")
    assert [each["rolled_back_to"] for each in found["versions"]] == [1, None, None]
    assert [each["promoted_from"] for each in found["versions"]] == [None, 2, 1]
    assert "version 2 of dev" in cli("job", "show", "send", "--env", "prod").out
    assert "  version 1.0 → 2.0" in cli("job", "diff", "send", "--env", "prod", "--to", 2).out


def test_rolling_back_again_goes_further_back(cli, write):
    for number in (1, 2, 3):
        write("nightly.py", SCRIPT.format(said=number))
        cli("deploy", "nightly.py")

    said = [document(cli("job", "rollback", "nightly", "--json"))["version"] for _ in range(2)]

    assert said == [4, 5]
    assert [each["rolled_back_to"] for each in shown(cli, "nightly")["versions"]] == [
        1, 2, None, None, None,
    ]  # fmt: skip
    same = cli("job", "rollback", "nightly", "--to", 1)
    assert same.out == "nightly in dev is at version 5 already: no change\n"


def test_a_promotion_leaves_each_environment_its_own_variables(cli, write):
    write("nightly.py", SCRIPT.format(said="hello"))
    cli("deploy", "nightly.py", "--env", "prod", "--var", "DAYS=30")
    write("nightly.py", SCRIPT.format(said="bye").replace('"you"', '"all"'))
    cli("deploy", "nightly.py", "--env", "dev", "--var", "DAYS=1", "--var", "ONLY=dev")

    cli("job", "promote", "nightly", "--from", "dev", "--to", "prod")

    assert shown(cli, "nightly", "prod")["variables"] == {"NAME": "all", "DAYS": "30"}
    assert shown(cli, "nightly", "dev")["variables"] == {
        "NAME": "you",
        "DAYS": "1",
        "ONLY": "dev",
    } | {"NAME": "all"}


def test_a_promotion_fails_for_what_is_missing_there(cli, write):
    write("needy.py", 'import kirby\n\nprint(kirby.config("PLACE"))\n')
    cli("config", "set", "PLACE=here", "--env", "dev")
    assert cli("deploy", "needy.py").code == 0

    refused = cli("job", "promote", "needy", "--from", "dev", "--to", "prod")
    cli("config", "set", "PLACE=there", "--env", "prod")
    allowed = cli("job", "promote", "needy", "--from", "dev", "--to", "prod")

    assert refused.err.startswith("kirby: needy needs the variable PLACE, not set in prod")
    assert allowed.code == 0


def test_a_canary_from_its_beginning_to_its_end(cli, write, dsn):
    write("watch.py", DAEMON.format(1))
    cli("deploy", "watch.py")
    write("watch.py", DAEMON.format(2))

    begun = cli("deploy", "watch.py", "--canary", "25%", "--reason", "a try")
    found = shown(cli, "watch")
    assert begun.out.splitlines()[0] == (
        "deployed watch version 2 in dev: a canary that serves 25% of the keys"
    )
    assert (found["version"], found["canary_version"], found["canary_share"]) == (1, 2, 0.25)
    assert found["canary_replicas"] == 1

    write("watch.py", DAEMON.format(3))
    refused = cli("deploy", "watch.py")
    assert "version 2 is the canary of watch in dev" in refused.err

    more = cli("job", "canary", "watch", "--share", "0.5")
    assert more.out == "version 2 of watch in dev serves 50% of the keys\n"
    assert shown(cli, "watch")["canary_replicas"] == 2
    gone = cli("job", "canary", "watch", "--abort", "--reason", "worse")
    assert gone.out == "the canary of watch in dev is gone: version 1 serves all\n"
    assert cli("job", "rollback", "watch").err == "kirby: watch has no version before 1 in dev\n"

    again = cli("deploy", "watch.py", "--canary", "10%")
    assert "version 3" in again.out
    promoted = cli("job", "canary", "watch", "--promote")
    assert promoted.out.startswith("version 3 of watch is deployed in dev; its replicas")
    assert [each["deployed"] for each in shown(cli, "watch")["versions"]] == [True, False, True]
    assert document(cli("job", "rollback", "watch", "--json"))["version"] == 4
    assert shown(cli, "watch")["versions"][0]["rolled_back_to"] == 1


# Over the API


def test_what_ci_does_needs_no_browser(api, cli):
    name, content = acme()
    upload = {"file": (name, content)}

    diff = api("POST", "/deploy", params={"diff": "1"}, data={"job": "send"}, files=upload)
    done = api("POST", "/deploy", data={"job": "send", "reason": "ci", "timeout": "5m",
                                        "var": ["A=1", "B=2"]}, files=upload)  # fmt: skip
    same = api("POST", "/deploy", data={"job": "send", "timeout": "5m", "var": ["A=1", "B=2"]},
               files=upload)  # fmt: skip

    assert diff.status_code == 200
    assert [each["job"] for each in diff.json()["jobs"]] == ["send"]
    assert (done.status_code, same.status_code) == (201, 200)
    [job] = done.json()["jobs"]
    assert (job["job"], job["environment"], job["version"], job["changed"]) == (
        "send",
        "dev",
        1,
        True,
    )
    found = api("GET", "/jobs/send").json()
    assert (found["variables"], found["timeout"]) == ({"A": "1", "B": "2"}, 300)
    assert found["deployed_by"] == "token a-developer"
    assert [each["name"] for each in api("GET", "/jobs").json()] == ["send"]
    run = api("POST", "/jobs/send/trigger", json={"reason": "ci"})
    assert (run.status_code, list(run.json())) == (201, ["run"])


def test_a_published_package_is_deployed_by_its_version(api, upstream):
    upstream.add(acme("1.0"), acme("2.0"))

    nested = {"settings": {"schedule": ["@daily"], "priority": 3}}
    first = api("POST", "/deploy", json={"requirement": "acme==1.0", "job": "send", **nested})
    moved = api("POST", "/jobs/send/promote", json={"from": "dev", "to": "prod"})
    second = api("POST", "/deploy", json={"requirement": "acme==2.0", "job": "send",
                                          "schedule": "@daily", "priority": "3"})  # fmt: skip
    changed = api("GET", "/jobs/send/diff").json()
    back = api("POST", "/jobs/send/rollback", role="operator", json={"reason": "worse"})

    assert [each.status_code for each in (first, moved, second, back)] == [201] * 4
    assert {"name": "version", "before": "1.0", "after": "2.0", "note": ""} in changed["release"]
    assert changed["policies"] == []
    assert any(line.startswith('+    print("hello 2.0")') for line in changed["source"])
    versions = api("GET", "/jobs/send").json()["versions"]
    assert [each["package_version"] for each in versions] == ["1.0", "2.0", "1.0"]
    assert api("GET", "/jobs/send", params={"env": "prod"}).json()["version"] == 1


def test_a_canary_over_the_api(api):
    for number in (1, 2):
        done = api("POST", "/deploy", data={} if number == 1 else {"canary": "25%"},
                   files={"file": ("watch.py", DAEMON.format(number))})  # fmt: skip
        assert done.status_code == 201

    assert done.json()["jobs"][0]["canary"] == 0.25
    assert api("POST", "/jobs/watch/canary", json={"share": 0.5}).json()["version"] == 2
    assert api("POST", "/jobs/watch/canary", json={"promote": True}).json()["version"] == 2
    assert api("GET", "/jobs/watch").json()["version"] == 2


def test_a_viewers_token_may_look(api):
    api("POST", "/deploy", files={"file": ("nightly.py", SCRIPT.format(said=1))})

    assert api("GET", "/jobs/nightly", role="viewer").status_code == 200
    for move in ("trigger", "rollback", "promote", "canary"):
        refused = api("POST", f"/jobs/nightly/{move}", role="viewer", json={})
        assert (refused.status_code, list(refused.json())) == (403, ["error"])


# By page


@pytest.fixture
def browser(site, people):
    """A browser of a developer, without JavaScript."""
    from starlette.testclient import TestClient

    client = TestClient(site, follow_redirects=False)
    client.cookies.set("kirby_session", people("developer"))
    return client


def upload(browser, name, content):
    """Send a file; the address of its release."""
    sent = browser.post("/deploy", files={"file": (name, content)})
    assert sent.status_code == 303, sent.text
    return sent.headers["location"]


def test_from_a_file_to_its_first_run(browser, dsn):
    address = upload(browser, "nightly.py", SCRIPT.format(said="hello"))
    page = browser.get(address).text
    with connected(dsn) as conn:
        assert scalar(conn, "select count(*) from kirby.deployment") == 0

    assert "new in dev" in page
    assert "<ins>you</ins>" in page
    path = address.partition("?")[0]
    changed = browser.post(path, data={"env": "prod", "do": "show", "schedule": "@daily"}).text
    assert "new in prod" in changed
    assert "<ins>@daily</ins>" in changed
    done = browser.post(path, data={"env": "prod", "do": "deploy", "reason": "why", "run": "yes"})

    assert done.headers["location"] == "/runs/1?env=prod"
    with connected(dsn) as conn:
        [(reason, actor)] = conn.execute("select reason, actor from kirby.deployment_version")
        assert scalar(conn, "select cause from kirby.run") == "manual"
    assert (reason, actor) == ("why", "a-developer")


def test_a_package_on_the_page_all_jobs_or_one(browser, dsn):
    address = upload(browser, *acme())
    path = address.partition("?")[0]

    everything = browser.post(path, data={"env": "dev", "do": "deploy", "job": ""})
    one = browser.post(path, data={"env": "prod", "do": "deploy", "job": "send"})

    assert everything.headers["location"] == "/jobs?env=dev&deployed=count%2C+send"
    assert one.headers["location"] == "/jobs/send?env=prod&done=deployed%3A+version+1"
    assert "Deployed: version 1." in browser.get(one.headers["location"]).text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"schedule": "61 * * * *"}, "&#39;61&#39; is not acceptable"),
        ({"timeout": "soon"}, "timeout is &#39;soon&#39;"),
        ({"variables": "DAYS"}, "is not NAME=VALUE"),
        ({"canary": "10%"}, "a canary is for daemons"),
    ],
)
def test_a_wrong_field_brings_the_form_back(data, text, browser, dsn):
    path = upload(browser, "nightly.py", SCRIPT.format(said="hello")).partition("?")[0]

    back = browser.post(path, data={"env": "dev", "do": "deploy", "reason": "kept", **data})

    assert back.status_code == 400
    assert text in back.text
    assert 'value="kept"' in back.text
    with connected(dsn) as conn:
        assert scalar(conn, "select count(*) from kirby.deployment") == 0


def test_a_wrong_file_brings_the_form_back(browser, dsn):
    refused = browser.post("/deploy", files={"file": ("bad.py", b"def (:")})
    nothing = browser.post("/deploy", data={"requirement": ""}, files={"x": ("", b"")})

    assert (refused.status_code, nothing.status_code) == (400, 400)
    assert "bad.py:1: does not parse" in refused.text
    with connected(dsn) as conn:
        assert scalar(conn, "select count(*) from kirby.release") == 0


def test_the_form_keeps_what_the_last_deploy_was_asked_for(browser, cli, write):
    write("nightly.py", SCRIPT.format(said="hello"))
    cli("deploy", "nightly.py", "--schedule", "0 2 * * *", "--timeout", "90s", "--var", "DAYS=8")
    address = upload(browser, "nightly.py", SCRIPT.format(said="bye"))

    page = browser.get(address).text

    assert ">0 2 * * *</textarea>" in page
    assert 'name="timeout" value="90s"' in page
    assert ">DAYS=8</textarea>" in page
    assert "changes version 1 in dev" in page


def test_the_settings_of_a_job_with_another_name_are_changed(browser, cli, write):
    write("nightly.py", SCRIPT.format(said="hello"))
    cli("deploy", "nightly.py", "--as", "nights", "--timeout", "90s")
    page = browser.get("/jobs/nights?env=dev").text
    address = re.search(r'href="(/deploy/[^"]+)"', page)[1].replace("&amp;", "&")

    form = browser.get(address).text
    browser.post(
        address.partition("?")[0],
        data={"env": "dev", "do": "deploy", "as": "nights", "timeout": "2m"},
    )

    assert 'name="as" value="nights"' in form
    assert 'name="timeout" value="90s"' in form
    found = shown(cli, "nights")
    assert (found["version"], found["timeout"]) == (2, 120)
    assert [job["name"] for job in document(cli("job", "list", "--json"))] == ["nights"]


def test_the_job_page_promotes_and_rolls_back(browser, cli, write):
    for number in (1, 2):
        write("nightly.py", SCRIPT.format(said=number))
        cli("deploy", "nightly.py")
    page = browser.get("/jobs/nightly?env=dev").text
    assert "Roll back to it" in page
    assert "what changed" in page

    back = browser.post("/jobs/nightly/rollback?env=dev", data={"to": "1", "reason": "worse"})
    over = browser.post("/jobs/nightly/promote?env=dev", data={"to": "prod", "version": "2"})
    compared = browser.get("/jobs/nightly/diff?env=dev&from=1&to=2").text

    assert "done=rolled+back%3A+version+3" in back.headers["location"]
    assert over.headers["location"] == "/jobs/nightly?env=prod&done=deployed%3A+version+1"
    assert "back to version 1" in browser.get(back.headers["location"]).text
    assert "version 2 of dev" in browser.get(over.headers["location"]).text
    assert "+print(&#34;2&#34;)" in compared


def test_the_job_page_shows_and_ends_a_canary(browser, cli, write):
    write("watch.py", DAEMON.format(1))
    cli("deploy", "watch.py")
    address = upload(browser, "watch.py", DAEMON.format(2))
    path = address.partition("?")[0]
    browser.post(path, data={"env": "dev", "do": "deploy", "canary": "25%"})
    page = browser.get("/jobs/watch?env=dev").text
    assert "25% of the keys" in page

    more = browser.post("/jobs/watch/canary?env=dev", data={"do": "share", "share": "50%"})
    end = browser.post("/jobs/watch/canary?env=dev", data={"do": "abort", "share": "50%"})

    assert (more.status_code, end.status_code) == (303, 303)
    page = browser.get("/jobs/watch?env=dev").text
    assert "canary, not promoted" in page
    assert "Change the share" not in page


def test_who_may_not_deploy_is_shown_no_way_to_it(site, people, cli, write):
    from starlette.testclient import TestClient

    write("nightly.py", SCRIPT.format(said=1))
    cli("deploy", "nightly.py")
    for role, operates in (("viewer", False), ("operator", True)):
        client = TestClient(site, follow_redirects=False)
        client.cookies.set("kirby_session", people(role))

        page = client.get("/jobs/nightly?env=dev").text

        assert ("Run now" in page) == operates
        assert "Promote version" not in page
        assert 'href="/deploy' not in page
        assert client.get("/deploy").status_code == 403
        assert client.get("/deploy/1").status_code == 403
        assert client.post("/deploy/1", data={"do": "deploy"}).status_code == 403
