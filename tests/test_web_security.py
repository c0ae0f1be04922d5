"""Who may do what, from where: headers, sessions, roles, the same-site rule, guesses."""

import pytest
from fix_web import PASSWORD, connected, count, scalar

POSTS = {
    "/jobs/hello/trigger": {},
    "/runs/{live}/cancel": {},
    "/runs/{failed}/retry": {},
    "/topics/orders": {"payload": "1"},
}


def audits(dsn):
    with connected(dsn) as conn:
        return conn.execute(
            "select actor, verb, object from kirby.audit_event"
            " where actor like 'a-%' order by position"
        ).fetchall()


@pytest.mark.parametrize("page", ["/login", "/", "/static/kirby.css", "/nothing", "/healthz"])
def test_every_answer_carries_the_policy(page, admin):
    headers = admin.get(page).headers

    assert headers["content-security-policy"].startswith("default-src 'self'; base-uri 'none'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"


def test_pages_behind_the_login_are_not_kept(admin):
    assert admin.get("/").headers["cache-control"] == "no-store"
    assert admin.get("/static/kirby.css").headers["cache-control"] == "no-cache"


def test_pages_need_no_inline_script_or_style(house, admin):
    for page in (
        "/",
        "/jobs",
        "/jobs/nightly",
        f"/runs/{house.failed}",
        "/topics/orders",
        "/login",
    ):
        text = admin.get(page).text
        assert "style=" not in text
        assert "<style" not in text
        assert "<script>" not in text
        assert " onclick" not in text


def test_htmx_comes_from_its_package(stranger):
    response = stranger.get("/static/htmx/htmx.min.js")

    assert response.status_code == 200
    assert "htmx" in response.text


@pytest.mark.parametrize("page", POSTS)
def test_a_viewer_may_not_change_anything(page, house, viewer, dsn):
    before = [count(dsn, table) for table in ("run", "message", "audit_event")]

    response = viewer.post(page.format(**vars(house)), data=POSTS[page])

    assert response.status_code == 403
    assert "viewer" in response.text
    assert [count(dsn, table) for table in ("run", "message", "audit_event")] == before


@pytest.mark.parametrize("page", POSTS)
def test_a_stranger_may_not_change_anything(page, house, stranger, dsn):
    before = [count(dsn, table) for table in ("run", "message", "audit_event")]

    response = stranger.post(page.format(**vars(house)), data=POSTS[page])

    assert response.status_code == 303
    assert response.headers["location"] == "/login"
    assert [count(dsn, table) for table in ("run", "message", "audit_event")] == before


@pytest.mark.parametrize("page", [*POSTS, "/logout", "/theme", "/login"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
    ],
)
def test_another_site_may_not_change_anything(page, headers, house, admin, dsn):
    before = [count(dsn, table) for table in ("run", "message", "audit_event", "session")]

    response = admin.post(page.format(**vars(house)), data=POSTS.get(page), headers=headers)

    assert response.status_code == 403
    assert [count(dsn, table) for table in ("run", "message", "audit_event", "session")] == before


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://testserver"}]
)
def test_our_own_pages_may(headers, house, admin):
    assert admin.post("/jobs/hello/trigger", headers=headers).status_code == 303


@pytest.mark.parametrize("page", [page for page in POSTS if page != "/topics/orders"])
def test_looking_at_an_action_does_not_do_it(page, house, admin, dsn):
    assert admin.get(page.format(**vars(house))).status_code == 405
    assert audits(dsn) == []


def test_logging_in_and_out(people, stranger, dsn):
    people("operator")
    stranger.cookies.clear()

    inside = stranger.post(
        "/login?next=/jobs", data={"login": "a-operator", "password": PASSWORD, "next": "/jobs"}
    )
    assert (inside.status_code, inside.headers["location"]) == (303, "/jobs")
    cookie = inside.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert stranger.get("/jobs").status_code == 200

    stranger.post("/logout")

    assert stranger.get("/jobs").status_code == 303
    assert audits(dsn) == [
        ("a-operator", "logged_in", "account/a-operator"),
        ("a-operator", "logged_out", "account/a-operator"),
    ]


def test_a_stolen_cookie_is_worth_nothing_after_the_logout(people, client):
    secret = people("admin")
    client(secret).post("/logout")

    assert client(secret).get("/").status_code == 303


def test_a_wrong_password_is_told_and_the_name_stays(people, stranger):
    people("admin")

    response = stranger.post("/login", data={"login": "a-admin", "password": "wrong"})

    assert response.status_code == 401
    assert "Wrong name or password." in response.text
    assert 'value="a-admin"' in response.text
    assert "set-cookie" not in response.headers


def test_guessing_becomes_slow_and_says_how_long_to_wait(people, stranger):
    people("admin")
    for _ in range(5):
        stranger.post("/login", data={"login": "a-admin", "password": "wrong"})

    response = stranger.post("/login", data={"login": "a-admin", "password": PASSWORD})

    assert response.status_code == 429
    assert "Too many failed logins: try again in" in response.text


@pytest.mark.parametrize(
    "target", ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:alert(1)", "/\n/x"]
)
def test_the_login_leads_only_to_pages_of_ours(target, people, stranger):
    people("admin")

    response = stranger.post(
        "/login", data={"login": "a-admin", "password": PASSWORD, "next": target}
    )

    assert response.headers["location"] == "/"


def test_a_session_that_ended_sends_htmx_to_the_login_and_ends_a_stream(house, stranger):
    refreshed = stranger.get(
        "/jobs", headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/jobs?env=dev"}
    )
    streamed = stranger.get(f"/runs/{house.live}/live")

    assert refreshed.headers["hx-redirect"] == "/login?next=/jobs%3Fenv%3Ddev"
    assert streamed.status_code == 204


def test_a_body_that_is_too_large_is_refused_before_it_is_read(stranger, admin):
    assert stranger.post("/login", content=b"x" * 70_000).status_code == 413
    assert admin.post("/theme", headers={"Content-Length": "99999999"}).status_code == 413


def test_the_theme_is_a_cookie_that_the_server_reads(viewer):
    response = viewer.post("/theme", data={"theme": "dark", "next": "/jobs"})

    assert (response.status_code, response.headers["location"]) == (303, "/jobs")
    assert 'data-theme="dark"' in viewer.get("/jobs").text


def test_running_a_job_is_audited(house, admin, dsn):
    response = admin.post("/jobs/hello/trigger")

    run = int(response.headers["location"].rpartition("/")[2])
    assert audits(dsn) == [("a-admin", "job_triggered", f"deployment/{house.manual}")]
    with connected(dsn) as conn:
        actor = scalar(conn, "select actor from kirby.run where id = %s", run)
    assert actor == "a-admin"


def test_a_daemon_is_not_run_by_hand(house, admin):
    response = admin.post("/jobs/mailer/trigger")

    assert response.status_code == 400
    assert "Kirby keeps it alive by itself" in response.text


def test_cancelling_a_run_is_audited_once(house, admin, dsn):
    admin.post(f"/runs/{house.live}/cancel")
    again = admin.post(f"/runs/{house.live}/cancel")

    assert again.status_code == 303
    assert audits(dsn) == [("a-admin", "run_cancelled", f"run/{house.live}")]
    assert "being cancelled" in admin.get(f"/runs/{house.live}").text


def test_a_run_that_ended_cannot_be_cancelled(house, admin):
    response = admin.post(f"/runs/{house.failed}/cancel")

    assert response.status_code == 409
    assert "Not possible now" in response.text


def test_running_again_makes_a_new_run(house, admin, dsn):
    response = admin.post(f"/runs/{house.failed}/retry")

    new = int(response.headers["location"].rpartition("/")[2])
    assert new > house.live
    assert audits(dsn) == [("a-admin", "run_retried", f"run/{house.failed}")]
    assert f"#{house.failed}" in admin.get(f"/runs/{new}").text


def test_publishing_a_message_is_audited_and_shows_its_position(house, admin, dsn):
    response = admin.post(
        "/topics/orders?env=dev",
        data={"payload": '{"n": 1.10}', "key": "K", "headers": '{"why": "test"}'},
    )

    assert response.status_code == 303
    position = int(response.headers["location"].rpartition("=")[2])
    assert audits(dsn) == [("a-admin", "message_published", "topic/dev/orders")]
    assert f"/messages/{position}" in admin.get(response.headers["location"]).text
    with connected(dsn) as conn:
        row = conn.execute(
            "select key, payload::text, headers from kirby.message where position = %s", [position]
        ).fetchone()
    assert row == ("K", '{"n": 1.10}', {"why": "test"})


@pytest.mark.parametrize(
    ("payload", "headers", "message"),
    [
        ("", "", "The payload is empty"),
        (
            "{",
            "",
            "not JSON: Expecting property name enclosed in double quotes at line 1, column 2",
        ),
        ("NaN", "", "NaN is not JSON"),
        ('"\\u0000"', "", "NUL"),
        ('"\\ud800"', "", "surrogate"),
        ("[" * 100_000, "", "nested too deeply"),
        ("1", "[1]", "headers must be a JSON object"),
        ("1", "{", "headers is not JSON"),
    ],
)
def test_a_message_that_cannot_be_kept_comes_back_with_what_is_wrong(
    payload, headers, message, house, admin, dsn
):
    before = count(dsn, "message")

    response = admin.post("/topics/orders", data={"payload": payload, "headers": headers})

    assert response.status_code == 400
    assert message in response.text
    assert count(dsn, "message") == before


def test_what_was_typed_is_still_there_after_a_refusal(house, admin):
    response = admin.post("/topics/orders", data={"payload": '{"half": ', "key": "<k>"})

    assert "{&#34;half&#34;: " in response.text
    assert 'value="&lt;k&gt;"' in response.text
