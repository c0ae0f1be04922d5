"""Bad deployments: one line, the right status or exit code, and nothing is stored of them."""

# ruff: noqa: E501 - a line of a table is a case

from dataclasses import replace

import pytest
from fix_deploy import acme
from fix_kirby import contents

PLAIN = "print(1)\n"
CONFIG = 'import kirby\n\nprint(kirby.config("{}"))\n'
BLOCK = "# /// script\n# {}\n# ///\nprint(1)\n"
TABLE = "# /// script\n# [tool.kirby]\n# {}\n# ///\nprint(1)\n"
NO_FUNCTION = acme(points="[kirby.jobs]\nsend = acme:sent\n")
NO_MODULE = acme(points="[kirby.jobs]\nsend = acme.sending:send\n")
NO_JOB = acme(points="")

# The file, what is asked for beside it, the status, what the line says.
BAD = {
    "a missing variable": (CONFIG.format("DAYS"), {}, 400, "needs the variable DAYS, not set in dev: kirby config set DAYS="),
    "a declared variable": (TABLE.format('needs = ["DAYS"]'), {}, 400, "needs the variable DAYS"),
    "an asked for variable": (PLAIN, {"need": "DAYS"}, 400, "needs the variable DAYS"),
    "a secret": ('import kirby\nkirby.secret("TOKEN")\n', {}, 400, "needs the secret TOKEN: there is none in dev"),
    "no environment": (PLAIN, {"env": "pord"}, 404, "there is no environment pord; did you mean prod?"),
    "a bad cron": (PLAIN, {"schedule": "61 * * * *"}, 400, "'61' is not acceptable in the minute field"),
    "a cron that never fires": (PLAIN, {"schedule": "0 0 31 2 *"}, 400, "never fires"),
    "a bad zone": (PLAIN, {"schedule": "@daily", "tz": "Mars/One"}, 400, "no time zone 'Mars/One'"),
    "another kind": (PLAIN, {"job": "watch"}, 409, "watch is a daemon job already"),
    "a dependency that is not there": (BLOCK.format('dependencies = ["no-such-thing>=1"]'), {}, 400, "no-such-thing"),
    "a bad dependency": (BLOCK.format('dependencies = ["a b c"]'), {}, 400, "job.py:2: dependency 'a b c' is not valid"),
    "another Python": (BLOCK.format('requires-python = ">=4"'), {}, 400, "needs Python >=4"),
    "an old Python": (PLAIN, {"python": "2.7"}, 400, "'2.7' is no version of Python"),
    "a function that is not there": (NO_FUNCTION, {}, 400, "module acme has no sent"),
    "a module that is not there": (NO_MODULE, {}, 400, "there is no module acme.sending"),
    "no job in it": (NO_JOB, {}, 400, "offers no job"),
    "a job that it has not": (acme(), {"job": "sned"}, 400, "there is no job 'sned': it offers count, send"),
    "one name for two jobs": (acme(), {"as": "both"}, 400, "both can be the name of one job only"),
    "a damaged wheel": (("acme-1.0-py3-none-any.whl", b"PK nothing"), {}, 400, "acme-1.0-py3-none-any.whl"),
    "a syntax error": ("def nothing(:\n", {}, 400, "job.py:1: does not parse"),
    "no text": (b"\xff\xfe\x00", {}, 400, "job.py"),
    "a bad label": (PLAIN, {"label": "G P U"}, 400, "labels is ['G P U']"),
    "a label in capitals": (PLAIN, {"label": "GPU"}, 400, "'GPU' is not a label"),
    "a bad timeout": (PLAIN, {"timeout": "soon"}, 400, "timeout is 'soon': it must be a duration"),
    "no time at all": (PLAIN, {"timeout": "0"}, 400, "it must be a duration"),
    "a bad pause": (PLAIN, {"retry-pause": "-1"}, 400, "retry-pause is '-1'"),
    "a bad concurrency": (PLAIN, {"concurrency": "often"}, 400, "one of allow, queue, skip, replace"),
    "a bad priority": (PLAIN, {"priority": "101"}, 400, "from -100 to 100"),
    "too many attempts": (PLAIN, {"max-attempts": "101"}, 400, "from 1 to 100"),
    "replicas of no daemon": (PLAIN, {"replicas": "2"}, 400, "replicas are for daemons"),
    "a variable of Kirby's own": (PLAIN, {"var": "KIRBY_DSN=x"}, 400, "KIRBY_DSN is Kirby's own"),
    "no assignment": (PLAIN, {"var": "DAYS"}, 400, "'DAYS' is not NAME=VALUE"),
    "a bad name": (PLAIN, {"job": "Nightly Job"}, 400, "job name 'Nightly Job' must be"),
    "a book": (PLAIN, {"reason": "x" * 1001}, 400, "the reason is 1,001 characters"),
    "a canary that is no daemon": (PLAIN, {"canary": "10%"}, 400, "job is manual: a canary is for daemons"),
    "a canary beside nothing": (TABLE.format("daemon = true"), {"canary": "10%"}, 400, "is not deployed in dev yet"),
    "a share of all": (TABLE.format("daemon = true"), {"canary": "100%"}, 400, "'100%' is no share of the keys"),
    "two things at once": (PLAIN, {"replace": "yes", "drain": "yes"}, 400, "not both"),
}  # fmt: skip
FLAGS = ("replace", "drain")


def of(given):
    """The name and bytes of a file."""
    if isinstance(given, tuple):
        return given
    return "job.py", given if isinstance(given, bytes) else given.encode()


@pytest.fixture
def watched(cli, tmp_path):
    """There is a daemon called watch."""
    (tmp_path / "watch.py").write_text(TABLE.format("daemon = true"))
    done = cli("deploy", "watch.py")
    assert (done.code, done.err) == (0, "")
    return cli


@pytest.mark.parametrize("case", BAD)
def test_on_the_command_line(case, watched, dsn, tmp_path):
    given, asked, _, text = BAD[case]
    name, content = of(given)
    (tmp_path / name).write_bytes(content)
    options = [
        part
        for key, value in asked.items()
        for part in ([f"--{key}"] if key in FLAGS else [f"--{key}", value])
    ]
    before = contents(dsn)

    refused = watched("deploy", name, *options)

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("kirby: ")
    assert refused.err.count("\n") == 1
    assert text in refused.err
    assert contents(dsn) == before


@pytest.mark.parametrize("case", BAD)
def test_over_the_api(case, watched, api, dsn):
    given, asked, status, text = BAD[case]
    before = contents(dsn)

    refused = api("POST", "/deploy", data=asked, files={"file": of(given)})

    assert refused.status_code == status, refused.text
    assert list(refused.json()) == ["error"]
    assert text in refused.json()["error"]
    assert "\n" not in refused.json()["error"]
    assert contents(dsn) == before


JSON = {
    "a version that is not there": ({"requirement": "acme==9.9"}, 400, "acme"),
    "no version": ({"requirement": "acme"}, 400, "'acme' is no version of a package: NAME==VERSION"),
    "a path": ({"requirement": "../../etc/passwd"}, 400, "NAME==VERSION"),
    "nothing": ({}, 400, "send a file, or name a package version"),
    "no text": ({"requirement": 7}, 400, "send a file, or name"),
    "an unknown option": ({"requirement": "acme==1.0", "scheduel": "@daily"}, 400, "did you mean schedule?"),
    "a list of settings": ({"requirement": "acme==1.0", "settings": ["x"]}, 400, "settings must be an object"),
    "a number as reason": ({"requirement": "acme==1.0", "reason": 7}, 400, "reason must be a text"),
    "neither yes nor no": ({"requirement": "acme==1.0", "diff": "perhaps"}, 400, "diff must be true or false"),
    "labels of numbers": ({"requirement": "acme==1.0", "labels": [1]}, 400, "labels is [1]"),
    "variables of numbers": ({"requirement": "acme==1.0", "variables": {"A": 1}}, 400, "variables is"),
    "a bad share": ({"requirement": "acme==1.0", "canary": "a lot"}, 400, "no share of the keys"),
}  # fmt: skip


@pytest.mark.parametrize("case", JSON)
def test_a_document_that_is_wrong(case, api, dsn):
    document, status, text = JSON[case]
    before = contents(dsn)

    refused = api("POST", "/deploy", json=document)

    assert refused.status_code == status, refused.text
    assert text in refused.json()["error"]
    assert contents(dsn) == before


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("operator", 403)])
def test_a_token_that_may_not(role, status, api, dsn):
    api("GET", "/jobs", role=role)
    before = contents(dsn)

    refused = api("POST", "/deploy", role=role, files={"file": of(PLAIN)})

    assert (refused.status_code, list(refused.json())) == (status, ["error"])
    assert contents(dsn) == before


def test_a_token_of_another_environment(site, give, dsn):
    from starlette.testclient import TestClient

    client = TestClient(site, headers={"Authorization": f"Bearer {give(environment='dev')}"})
    before = contents(dsn)

    refused = client.post("/api/v1/deploy", data={"env": "prod"}, files={"file": of(PLAIN)})
    allowed = client.post("/api/v1/deploy", files={"file": of(PLAIN)})

    assert (refused.status_code, allowed.status_code) == (403, 201)
    assert "is for the environment dev, not for prod" in refused.json()["error"]
    assert contents(dsn)["deployment"] == before["deployment"] + 1


def test_an_index_that_is_down_is_not_the_callers_fault(
    cli, api, upstream, monkeypatch, write_job, dsn
):
    monkeypatch.setenv("KIRBY_INDEX_URL", "http://127.0.0.1:1/simple")
    api.site.state.settings = replace(
        api.site.state.settings, index_url="http://127.0.0.1:1/simple"
    )
    source = BLOCK.format('dependencies = ["some-thing"]')
    write_job(source)
    before = contents(dsn)

    on_line = cli("deploy", "job.py")
    over_api = api("POST", "/deploy", files={"file": of(source)})

    assert (on_line.code, on_line.out, on_line.err.count("\n")) == (1, "", 1)
    assert (over_api.status_code, list(over_api.json())) == (503, ["error"])
    assert contents(dsn) == before


@pytest.fixture
def write_job(tmp_path):
    return lambda source: (tmp_path / "job.py").write_text(source)


MOVES = {
    "rollback of nothing": (["rollback", "nothing"], "/jobs/nothing/rollback", {}, 404, "there is no job nothing in dev"),
    "no version before": (["rollback", "watch"], "/jobs/watch/rollback", {}, 400, "has no version before 1 in dev"),
    "a version that is not there": (["rollback", "watch", "--to", "9"], "/jobs/watch/rollback", {"to": 9}, 404, "watch has no version 9 in dev"),
    "promoted to where it is": (["promote", "watch", "--from", "dev", "--to", "dev"], "/jobs/watch/promote", {"from": "dev", "to": "dev"}, 400, "from dev to another"),
    "promoted to nowhere": (["promote", "watch", "--from", "dev", "--to", "pord"], "/jobs/watch/promote", {"from": "dev", "to": "pord"}, 404, "there is no environment pord"),
    "promoted from where it is not": (["promote", "watch", "--from", "prod", "--to", "dev"], "/jobs/watch/promote", {"from": "prod", "to": "dev"}, 404, "there is no job watch in prod"),
    "no canary": (["canary", "watch", "--abort"], "/jobs/watch/canary", {"abort": True}, 409, "watch has no canary in dev"),
    "no canary to change": (["canary", "watch", "--share", "20%"], "/jobs/watch/canary", {"share": "20%"}, 400, "watch has no canary in dev"),
    "no choice": (["canary", "watch"], "/jobs/watch/canary", {}, 400, "say one of"),
    "a daemon is run": (["trigger", "watch"], "/jobs/watch/trigger", {}, 400, "watch is a daemon"),
}  # fmt: skip


@pytest.mark.parametrize("case", MOVES)
def test_a_move_that_is_wrong(case, watched, api, dsn):
    arguments, path, document, status, text = MOVES[case]
    api("GET", "/jobs")
    before = contents(dsn)

    on_line = watched("job", *arguments)
    over_api = api("POST", path, json=document)

    assert (on_line.code, on_line.out, on_line.err.count("\n")) == (1, "", 1)
    assert (over_api.status_code, list(over_api.json())) == (status, ["error"])
    assert text in on_line.err
    assert text in over_api.json()["error"]
    assert contents(dsn) == before
