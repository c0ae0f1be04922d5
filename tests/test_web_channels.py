"""The pages and the API of channels: adding, routes, a test, what was not delivered."""

import re

import pytest
from fix_web import connected, deploy, scalar

pytest_plugins = ("fix_channels",)

API = "/api/v1/channels"
MAIL = "mailtos://kirby:${SMTP}@mail.example.com?to=ops@example.com"


@pytest.fixture
def bearer(give, stranger):
    """`bearer("POST", path, {...})` with a developer's token."""
    headers = {"Authorization": f"Bearer {give('developer', 'ci')}"}

    def bearer(method, path="", body=None, **options):
        return stranger.request(method, API + path, headers=headers, json=body, **options)

    return bearer


def test_a_channel_is_added_told_more_changed_and_removed(admin, dsn):
    with connected(dsn) as conn:
        deploy(conn, "nightly")
    assert "Nobody is told anything yet" in admin.get("/channels").text
    added = admin.post("/channels", data={"name": "ops", "url": MAIL, "told": "nothing"})
    assert added.status_code == 303
    page = admin.get(added.headers["location"]).text
    assert "it has no route" in page
    assert "not used yet" in page

    route = {"do": "route", "of": "job", "named": "nightly", "events": ["opened", "updated"]}
    told = admin.post("/channels/ops", data={**route, "kinds": ["missed"]})
    page = admin.get(told.headers["location"]).text
    assert "is told job nightly: opened, updated; only missed" in page
    assert 'href="/jobs/nightly?env=dev"' in page
    assert "job nightly: opened, updated; only missed" in admin.get("/channels").text

    [route_id] = re.findall(r'name="route" value="(\d+)"', page)
    admin.post("/channels/ops", data={"do": "unroute", "route": route_id})
    assert "it has no route" in admin.get("/channels/ops").text

    admin.post("/channels/ops", data={"do": "edit", "url": "json://h/x", "description": "us"})
    page = admin.get("/channels/ops").text
    assert "json://h/x" in page
    assert admin.post("/channels/ops", data={"do": "remove"}).status_code == 303
    assert admin.get("/channels/ops").status_code == 404
    with connected(dsn) as conn:
        verbs = conn.execute(
            "select verb from kirby.audit_event where object = 'channel/ops' order by position"
        ).fetchall()
    assert [verb for (verb,) in verbs] == [
        "channel_added", "route_added", "route_removed", "channel_changed", "channel_removed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"name": "Ops", "url": MAIL}, 400, "no name of a channel"),
        ({"name": "ops", "url": "mailtos://me:secret1@h.test"}, 400, "There is a secret in this"),
        ({"name": "ops", "url": "nonsense"}, 400, "An address looks like"),
        ({"name": "taken", "url": MAIL}, 409, "There is a channel taken already"),
    ],
)
def test_what_cannot_be_added_comes_back_in_one_line(given, status, said, admin):
    admin.post("/channels", data={"name": "taken", "url": "json://h"})
    answer = admin.post("/channels", data=given)
    assert answer.status_code == status
    assert said in answer.text
    assert given["name"] in answer.text  # what was typed is still there


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        ({"do": "dance"}, 400, "Say what is to be done"),
        ({"do": "route", "of": "job", "events": "opened"}, 400, "Say which job"),
        ({"do": "route", "of": "job", "named": "nobody", "events": "opened"}, 404, "no job nobody"),
        ({"do": "route", "of": "everything"}, 400, "Say which events"),
        ({"do": "route", "of": "everything", "events": "lost"}, 400, "no event"),
        ({"do": "unroute", "route": "x"}, 400, "Route must be a number"),
        ({"do": "unroute", "route": "99"}, 404, "has no route 99"),
        ({"do": "edit", "url": "ftp://x"}, 400, "no service ftp://"),
    ],
)
def test_what_cannot_be_done_is_one_line(data, status, said, admin):
    admin.post("/channels", data={"name": "ops", "url": "json://h"})
    answer = admin.post("/channels/ops", data=data)
    assert answer.status_code == status
    assert said in answer.text


def test_a_viewer_looks_and_another_site_does_nothing(admin, viewer):
    admin.post("/channels", data={"name": "ops", "url": "json://h"})
    page = viewer.get("/channels/ops").text
    assert 'value="test"' not in page
    assert "Change it" not in page
    assert "Add a channel" not in viewer.get("/channels").text
    for data in ({"do": "test"}, {"do": "remove"}):
        assert viewer.post("/channels/ops", data=data).status_code == 403
    assert viewer.post("/channels", data={"name": "x", "url": "json://h"}).status_code == 403
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert admin.post("/channels/ops", data={"do": "test"}, headers=cross).status_code == 403


def test_a_test_is_followed_until_there_is_an_answer(admin, told, hook):
    admin.post("/channels", data={"name": "hook", "url": hook.url})
    sent = admin.post("/channels/hook", data={"do": "test"})
    where = sent.headers["location"]
    assert "The test is on its way" in admin.get(where).text
    told.send()
    assert "The test was taken in" in admin.get(where).text
    assert hook.of("hook")[0].body["kirby"]["by"] == "a-admin"
    assert "works" in admin.get("/channels").text

    hook.broken = {"/hook"}
    where = admin.post("/channels/hook", data={"do": "test"}).headers["location"]
    told.send()
    page = admin.get(where, headers={"HX-Request": "true"}).text
    assert "The test was not taken: Failed to send JSON POST notification" in page
    assert "<html" not in page


def test_what_was_not_delivered_is_shown_with_why_and_sent_again(admin, told, hook):
    admin.post("/channels", data={"name": "hook", "url": hook.url})
    hook.broken = {"/hook"}
    told.wrong("the pump <fails>")
    told.tell()
    for _ in range(7):
        told.later("75 minutes")
        told.send()
    page = admin.get("/channels/hook").text
    assert "given up" in page
    assert "the pump &lt;fails&gt;" in page
    assert "no such room" in page
    assert "broken" in page
    hook.broken = set()
    again = admin.post("/channels/hook", data={"do": "resend"})
    told.send()
    page = admin.get(again.headers["location"]).text
    assert "1 notice to send" in page
    assert "Not delivered" not in page
    assert "delivered" in page


def test_the_api_does_all_of_it(bearer, told, hook):
    added = bearer("POST", body={"name": "hook", "url": hook.url, "route": False})
    assert added.status_code == 201
    assert (added.json()["status"], added.json()["routes"]) == ("new", [])
    told.deploy(name="nightly")
    routed = bearer("POST", "/hook/routes", {"job": "nightly", "events": ["opened"]})
    assert routed.status_code == 201
    [route] = routed.json()["routes"]
    assert (route["scope"], route["target"], route["events"]) == ("job", "nightly", ["opened"])
    position = bearer("POST", "/hook/test", {}).json()["position"]
    told.send()
    shown = bearer("GET", "/hook").json()
    assert shown["deliveries"][0]["position"] == position
    assert shown["deliveries"][0]["outcome"] == "delivered"
    assert bearer("PATCH", "/hook", {"description": "us"}).json()["description"] == "us"
    assert bearer("GET").json()[0]["url"] == hook.url
    assert bearer("POST", "/hook/resend", {}).json() == {"count": 0}
    assert bearer("DELETE", f"/hook/routes/{route['id']}").json()["routes"] == []
    assert bearer("DELETE", "/hook").status_code == 200
    assert bearer("GET", "/hook").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("", {"name": "x", "url": "json://u:plain1@h"}, 400),
        ("", {"name": "x", "url": "json://h", "colour": "red"}, 400),
        ("", {"name": "x", "url": "json://h", "route": "yes"}, 400),
        ("/ops/routes", {"job": "a", "tag": "b"}, 400),
        ("/ops/routes", {"everything": True, "events": "opened"}, 400),
        ("/ops/routes", {"everything": True, "kinds": ["sad"]}, 400),
        ("/nobody/test", {}, 404),
    ],
)
def test_the_api_refuses_in_one_line(path, body, status, bearer):
    bearer("POST", body={"name": "ops", "url": "json://h"})
    answer = bearer("POST", path, body)
    assert answer.status_code == status
    assert "\n" not in answer.json()["error"]


def test_a_token_of_one_environment_has_no_say_in_others(stranger, give, admin, dsn):
    headers = {"Authorization": f"Bearer {give('developer', 'ci', environment='dev')}"}
    admin.post("/channels", data={"name": "all", "url": "json://h", "everywhere": "yes"})
    body = {"name": "mine", "url": "json://h", "everywhere": True}
    assert stranger.post(API, headers=headers, json=body).status_code == 403
    assert stranger.delete(f"{API}/all", headers=headers).status_code == 403
    assert stranger.post(f"{API}?env=prod", headers=headers, json=body).status_code == 403
    with connected(dsn) as conn:
        assert scalar(conn, "select count(*) from kirby.channel") == 1


def test_the_incident_of_a_channel_leads_to_it(admin, told, hook):
    admin.post("/channels", data={"name": "hook", "url": hook.url})
    hook.broken = {"/hook"}
    told.wrong()
    for wait in ("11 seconds", "12 seconds", "36 seconds"):
        told.tell(wait)
    [incident] = told.incidents()
    page = admin.get(f"/incidents/{incident['id']}").text
    assert 'href="/channels/hook?env=dev"' in page
    assert "no such room" in page


def test_the_page_of_a_job_says_who_is_told_of_it(admin, told):
    told.deploy(name="nightly", tags=("etl",))
    told.deploy(name="other")
    assert "Nobody: no channel has a route for it" in admin.get("/jobs/nightly").text
    ops = told.channel("ops", "json://h", route=False)
    told.route(ops, "job", "nightly", kinds=["missed"])
    told.route(told.channel("etl-people", "json://h", route=False), "tag", "etl")
    told.route(told.channel("elsewhere", "json://h", environment="prod", route=False))
    told.route(told.channel("all", "json://h", environment=None, route=False), environment="prod")
    page = admin.get("/jobs/nightly").text
    assert 'href="/channels/ops?env=dev"' in page
    assert "opened, resolved; only missed" in page
    assert "of jobs tagged etl" in page
    assert "elsewhere" not in page
    assert "/channels/all?" not in page
    assert "Nobody: no channel has a route for it" in admin.get("/jobs/other").text
