"""The frame of /api/v1: tokens, roles and environments; every error is one line of JSON."""

import httpx2
import pytest
from fix_packages import NAME, upload, wheel
from fix_web import connected
from starlette.routing import Route

from kirby.core.errors import Busy, Conflict, Fenced, Invalid, NotFound, Taken, Unavailable
from kirby.server.web import api


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def call(app, client, give):
    """`call(endpoint, …)`: what an endpoint of that body answers, asked by a developer's token."""

    def ask(endpoint, method="POST", role="developer", **options):
        app.router.routes.insert(0, Route("/api/v1/try", endpoint, methods=[method]))
        token = give(role, name=f"try-{len(app.router.routes)}")
        return client().request(method, "/api/v1/try", headers=bearer(token), **options)

    return ask


def test_a_token_says_who_it_is(give, stranger):
    token = give("operator", name="ci", environment="prod")

    for auth in ({"headers": bearer(token)}, {"auth": ("__token__", token)}):
        answer = stranger.get("/api/v1/me", **auth)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == {"name": "token ci", "role": "operator", "environment": "prod"}


def test_a_browsers_session_does_as_well(admin):
    assert admin.get("/api/v1/me").json() == {
        "name": "a-admin",
        "role": "admin",
        "environment": None,
    }


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer kirby_wrong",
        "Bearer \udce9",
        "Basic",
        "Basic !!",
        "Basic X190b2tlbl9f",
        "Basic YWRtaW46c2VjcmV0",
        "Digest x",
    ],
)
def test_whoever_has_no_token_is_asked_for_one(header, stranger):
    headers = {} if header is None else {"Authorization": header.encode("utf-8", "surrogateescape")}
    answer = stranger.get("/api/v1/me", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="Kirby"'
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]


def test_a_token_opens_no_page(give, stranger):
    answer = stranger.get("/packages", headers=bearer(give("admin")))

    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/packages")


@pytest.mark.parametrize(
    ("role", "status"), [("viewer", 403), ("operator", 403), ("developer", 200), ("admin", 200)]
)
def test_a_role_has_what_the_roles_below_it_have(call, role, status):
    def endpoint(request):
        return api.respond({"by": api.needs(request, "developer").name})

    answer = call(endpoint, role=role)

    assert answer.status_code == status
    if status == 403:
        assert role in answer.json()["error"]


def test_a_viewers_token_changes_nothing_whatever_the_endpoint_forgot(call):
    answer = call(lambda request: api.respond({"changed": True}), role="viewer")

    assert (answer.status_code, list(answer.json())) == (403, ["error"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Invalid, 400),
        (NotFound, 404),
        (Conflict, 409),
        (Fenced, 409),
        (Taken, 409),
        (Busy, 503),
        (Unavailable, 503),
        (ValueError, 500),
    ],
)
def test_an_error_is_one_line_of_json_with_its_status(call, error, status):
    def endpoint(request):
        raise error("the thing\nis wrong")

    answer = call(endpoint)

    assert answer.status_code == status
    said = answer.json()["error"]
    assert said == ("the thing is wrong" if status != 500 else said)
    if status == 500:
        assert "thing" not in said  # nobody's business


def test_what_is_not_there_and_what_is_not_possible(give, stranger):
    headers = bearer(give("admin"))

    for answer, status in (
        (stranger.get("/api/v1/nothing", headers=headers), 404),
        (stranger.post("/api/v1/me", headers=headers), 405),
        (stranger.get("/api/v1/me?x=%00", headers=headers), 400),
        (stranger.post("/api/v1/me", headers=headers | {"Content-Length": "9" * 12}), 413),
        (stranger.post("/api/v1/me", headers=headers | {"Origin": "https://evil.test"}), 403),
    ):
        assert (answer.status_code, list(answer.json())) == (status, ["error"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"[1]", "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"a": "\\u0000"}', "holds a NUL"),
    ],
)
def test_a_body_that_is_no_object_is_refused(call, body, message):
    answer = call(lambda request: api.respond(api.document(request)), content=body)

    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_body_comes_back_as_it_was_and_none_is_an_empty_one(call):
    given = {"what": "Ærø", "n": [1, {"deep": None}]}

    assert call(lambda request: api.respond(api.document(request)), json=given).json() == given
    assert call(lambda request: api.respond(api.document(request))).json() == {}


def test_a_token_of_one_environment_touches_no_other(app, give, stranger):
    def endpoint(request):
        name = api.document(request).get("environment")
        return api.respond({"in": api.environment(request, name).name})

    app.router.routes.insert(0, Route("/api/v1/where", endpoint, methods=["POST"]))
    only, any_ = bearer(give(environment="preprod")), bearer(give("admin"))

    def ask(headers, body=None, query=""):
        return stranger.post(f"/api/v1/where{query}", headers=headers, json=body or {})

    assert ask(only).json() == {"in": "preprod"}
    assert ask(any_).json() == {"in": "dev"}
    assert ask(any_, query="?env=prod").json() == {"in": "prod"}
    assert ask(any_, {"environment": "prod"}).json() == {"in": "prod"}
    assert ask(only, {"environment": "preprod"}).json() == {"in": "preprod"}
    for refused in (ask(only, query="?env=prod"), ask(only, {"environment": "prod"})):
        assert refused.status_code == 403
        assert "is for the environment preprod, not for prod" in refused.json()["error"]
    assert ask(any_, query="?env=moon").status_code == 404
    assert ask(any_, {"environment": "moon"}).status_code == 404


def test_the_packages_by_api(served, give, dsn):
    token = give()
    assert upload(served.url, token).status_code == 200
    url, headers = f"{served.url}/api/v1/packages", bearer(token)

    assert httpx2.get(url, headers=headers).json() == [
        {"name": "acme", "latest": "1.0", "versions": ["1.0"]}
    ]
    shown = httpx2.get(f"{url}/Acme", headers=headers).json()
    assert shown["name"] == "acme"
    [file] = shown["releases"][0]["files"]
    assert (file["filename"], file["size"]) == (NAME, len(wheel()))
    assert file["entry_points"]["kirby.jobs"] == {"hello": "acme:main", "report": "acme:report"}
    missing = httpx2.get(f"{url}/acne", headers=headers)
    assert (missing.status_code, missing.json()) == (
        404, {"error": "there is no package acne; did you mean acme?"},
    )  # fmt: skip

    yanked = httpx2.post(f"{url}/acme/1.0.0/yank", headers=headers, json={"reason": "broken"})
    assert yanked.json()["files"][0]["yanked_reason"] == "broken"
    again = httpx2.post(f"{url}/acme/1.0/unyank", headers=headers)
    assert again.json()["files"][0]["yanked_at"] is None
    for body in ({}, {"reason": 1}, {"reason": " "}, {"reason": "a\nb"}):
        refused = httpx2.post(f"{url}/acme/1.0/yank", headers=headers, json=body)
        assert refused.status_code == 400
    assert httpx2.post(f"{url}/acme/2.0/unyank", headers=headers).status_code == 404
    with connected(dsn) as conn:
        said = conn.execute(
            "select actor, verb, object, reason from kirby.audit_event"
            " where object like 'package/%' order by position"
        ).fetchall()
    assert said == [
        ("token a-developer", "package_uploaded", "package/acme/1.0", None),
        ("token a-developer", "package_yanked", "package/acme/1.0", "broken"),
        ("token a-developer", "package_unyanked", "package/acme/1.0", None),
    ]
