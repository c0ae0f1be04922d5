"""Pages and API about runs and supervisors: progress, figures, re-run choice, draining."""

import pytest
from fix_runs import Runs
from fix_web import SUPERVISOR, connected, record, start

from kirby.server import tokens
from kirby.server.database import unit


@pytest.fixture
def runs(house, dsn):
    """The runs of a database with something on every page."""
    with connected(dsn) as conn:
        yield Runs(conn)


@pytest.fixture
def api(client, engine, house):
    """`api("GET", "/runs", role="viewer")`: a request with a token of that role; its answer."""
    secrets = {}

    def api(method, path, *, role="operator", environment=None, **body):
        key = (role, environment)
        if key not in secrets:
            with unit(engine) as conn:
                name = f"ci-{len(secrets)}"
                given = tokens.add(conn, name, role=role, environment=environment, actor="test")
                secrets[key] = given.token
        headers = {"Authorization": f"Bearer {secrets[key]}"}
        content = {"json": body} if method == "POST" else {}
        return client().request(method, f"/api/v1{path}", headers=headers, **content)

    return api


# Pages


def test_a_run_shows_how_far_it_is_and_what_it_used(admin, runs, house):
    runs.ask(
        "update kirby.run set progress = 0.4, progress_text = 'page <40>', progress_at = now()"
        " where id = %s returning id", house.live,
    )  # fmt: skip
    page = admin.get(f"/runs/{house.live}").text
    assert "40 %" in page
    assert "page &lt;40&gt;" in page

    record(runs.conn, house.live, "run_failed", signal=9, peak_memory=5_000_000_000,
           cpu_seconds=1.5, out_of_memory=True)  # fmt: skip
    page = admin.get(f"/runs/{house.live}").text
    assert "5.0 GB" in page
    assert "no more was left" in page


def test_progress_does_not_crowd_out_what_happened(admin, runs, house):
    for _ in range(250):
        runs.ask(
            "select kirby.append_job_event(%s, %s, 'run_progress', '{}', 'x')",
            house.live, house.manual,
        )  # fmt: skip
    record(runs.conn, house.live, "run_failed", exit_code=3)

    page = admin.get(f"/runs/{house.live}").text

    assert "t-run_failed" in page
    assert "t-run_progress" not in page


def second_version(runs, deployment, **options):
    release = runs.value(
        "select release_id from kirby.deployment_version where deployment_id = %s and version = 1",
        deployment,
    )
    runs._version(deployment, release, **options)


@pytest.mark.parametrize(("rerun", "usual"), [("original", 1), ("current", 2)])
def test_who_runs_it_again_chooses_the_version(admin, runs, house, rerun, usual):
    second_version(runs, house.manual, rerun=rerun)
    page = admin.get(f"/runs/{house.failed}").text
    assert f'<option value="{usual}" selected>' in page
    assert "version 1, as it was" in page
    assert "version 2, deployed" in page

    for version in (1, 2):
        answer = admin.post(f"/runs/{house.failed}/retry", data={"version": str(version)})
        new = int(answer.headers["location"].rsplit("/", 1)[1])
        assert runs.get(new)["version"] == version


@pytest.mark.parametrize("version", ["x", "99999999999", "-1"])
def test_a_version_that_is_none_is_one_line(admin, house, version):
    answer = admin.post(f"/runs/{house.failed}/retry", data={"version": version})

    assert answer.status_code == 400
    assert "must be a whole number" in answer.text


def test_the_supervisors_page_drains_and_resumes(admin, viewer, runs):
    assert "host-1" in viewer.get("/supervisors").text
    assert "Drain" not in viewer.get("/supervisors").text
    assert viewer.post(f"/supervisors/{SUPERVISOR}/drain").status_code == 403

    admin.post(f"/supervisors/{SUPERVISOR}/drain", data={"stop": "yes"})
    page = admin.get("/supervisors").text
    assert "draining" in page
    assert "ends when it is empty" in page

    admin.post(f"/supervisors/{SUPERVISOR}/resume")
    assert "draining" not in admin.get("/supervisors").text
    verbs = runs.ask("select verb, actor from kirby.audit_event order by position desc limit 2")
    assert [(row["verb"], row["actor"]) for row in verbs] == [
        ("supervisor_resumed", "a-admin"),
        ("supervisor_drained", "a-admin"),
    ]


# /api/v1


def test_runs_are_listed_and_shown(api, house):
    listed = api("GET", "/runs?status=failed").json()
    assert [each["id"] for each in listed] == [house.failed]
    assert api("GET", f"/runs?before={house.failed}&limit=1").json()[0]["id"] == house.replica

    shown = api("GET", f"/runs/{house.failed}", role="viewer").json()
    assert (shown["status"], shown["exit_code"]) == ("failed", 3)
    assert shown["events"][0]["type"] == "run_queued"


def test_a_run_is_cancelled_once(api, runs, house):
    answer = api("POST", f"/runs/{house.live}/cancel", reason="enough")
    assert (answer.status_code, answer.json()) == (202, {"run": house.live, "cancelled": True})
    assert runs.get(house.live)["reason"] == "enough"
    assert not api("POST", f"/runs/{house.live}/cancel").json()["cancelled"]

    answer = api("POST", f"/runs/{house.failed}/cancel")
    assert answer.status_code == 409
    assert answer.json()["error"] == f"run {house.failed} has ended already: it is failed"


def test_a_run_is_run_again_at_the_version_that_is_asked_for(api, runs, house):
    second_version(runs, house.manual)

    for asked, version in (({}, 1), ({"current": True}, 2), ({"version": 2}, 2)):
        answer = api("POST", f"/runs/{house.failed}/retry", **asked)
        assert answer.status_code == 201
        assert answer.json()["version"] == version
        assert answer.json()["retry_of"] == house.failed


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/runs/999/retry", {}, 404, "there is no run 999"),
        ("/runs/{failed}/retry", {"version": 9}, 404, "this job has no version 9"),
        ("/runs/{failed}/retry", {"version": "2"}, 400, "version must be a whole number"),
        ("/runs/{failed}/retry", {"version": True}, 400, "version must be a whole number"),
        ("/runs/{failed}/retry", {"current": "yes"}, 400, "current must be true or false"),
        ("/runs/{failed}/retry", {"reason": 7}, 400, "reason must be a text"),
        ("/runs/{live}/retry", {}, 409, "only an ended run can be run again"),
        ("/runs/{replica}/retry", {}, 409, "only an ended run"),
        ("/supervisors/nowhere/drain", {}, 404, "there is no supervisor nowhere"),
        ("/supervisors/host-1/drain", {"stop": 1}, 400, "stop must be true or false"),
    ],
)
def test_what_cannot_be_done_is_one_line(api, house, path, body, status, error):
    answer = api("POST", path.format(**vars(house)), **body)

    assert answer.status_code == status
    assert error in answer.json()["error"]


def test_a_viewer_changes_nothing(api, runs, house):
    for path in (f"/runs/{house.live}/cancel", f"/runs/{house.failed}/retry",
                 "/supervisors/host-1/drain"):  # fmt: skip
        assert api("POST", path, role="viewer").status_code == 403
    assert runs.get(house.live)["cancel_at"] is None


def test_a_token_of_one_environment_reaches_no_run_of_another(api, house):
    assert api("GET", f"/runs/{house.failed}", environment="dev").status_code == 200
    for method, path in (("GET", f"/runs/{house.failed}"), ("GET", "/runs?env=dev"),
                         ("POST", f"/runs/{house.failed}/retry"),
                         ("POST", f"/runs/{house.live}/cancel")):  # fmt: skip
        assert api(method, path, environment="prod").status_code == 403


def test_supervisors_are_listed_drained_and_resumed(api, runs):
    start(runs.conn, runs.deploy())
    assert [each["status"] for each in api("GET", "/supervisors").json()] == ["alive"]

    answer = api("POST", "/supervisors/host-1/drain", stop=True, reason="new disk")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["stopping"]) == ("draining", True)

    assert api("POST", f"/supervisors/{SUPERVISOR}/resume").json()["status"] == "alive"
