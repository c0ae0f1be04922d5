"""/api/v1/states: any moment of a state, differences, versions, blame, setting back."""

import pytest
from fix_web import connected, scalar, set_keys

API = "/api/v1/states"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def first(house, dsn):
    """The position at which totals had its first two keys; EV was changed after it."""
    with connected(dsn) as conn:
        return scalar(conn, "select min(position) from kirby.state_mutation where key = 'UA'")


def test_states_and_their_entries(house, admin):
    assert [each["name"] for each in admin.get(API).json()] == ["rates", "totals"]
    found = admin.get(f"{API}/totals").json()

    assert found["at"] is None
    assert [(each["key"], each["version"]) for each in found["entries"]] == [("EV", 2), ("UA", 1)]
    assert admin.get(f"{API}/totals?prefix=U").json()["entries"][0]["value"] == {"flights": 2}
    assert len(admin.get(f"{API}/totals?limit=1").json()["entries"]) == 1
    assert admin.get(f"{API}/totals?after=EV").json()["entries"][0]["key"] == "UA"


def test_entries_as_they_were(first, admin, dsn):
    then = admin.get(f"{API}/totals?at={first}&key=EV").json()

    assert then["at"] == first
    assert then["entries"][0]["value"]["flights"] == 1
    long_ago = admin.get(f"{API}/totals?at=2h").json()
    assert long_ago["entries"] == []
    assert long_ago["at"].endswith("Z")


def test_the_differences_of_two_moments(first, admin, dsn):
    with connected(dsn) as conn:
        set_keys(conn, "totals", AA={"flights": 7})
    found = admin.get(f"{API}/totals/diff?from={first}").json()["differences"]

    assert [(each["key"], each["change"]) for each in found] == [("AA", "added"), ("EV", "changed")]
    assert (found[1]["before"]["flights"], found[1]["after"]["flights"]) == (1, 9)
    assert (found[1]["before_version"], found[1]["after_version"]) == (1, 2)


def test_the_versions_of_a_key_and_who_is_to_blame(first, admin):
    versions = admin.get(f"{API}/totals/history?key=EV").json()
    blamed = admin.get(f"{API}/totals/blame?key=EV").json()

    assert [each["version"] for each in versions] == [2, 1]
    assert {each["path"]: each["version"] for each in blamed} == {
        "$.flights": 2, "$.worst.minutes": 1,
    }  # fmt: skip


def test_a_state_is_set_back_by_a_token(first, stranger, give, dsn):
    headers = bearer(give("operator", "ci"))
    body = {"to": first, "key": "EV", "reason": "counted twice"}

    answer = stranger.post(f"{API}/totals/restore", headers=headers, json=body)

    assert answer.json() == {"restored": 1, "to": first}
    with connected(dsn) as conn:
        query = "select value -> 'flights', version from kirby.state_entry where key = 'EV'"
        assert conn.execute(query).fetchone() == (1, 3)
        query = "select actor, reason from kirby.audit_event order by position desc limit 1"
        assert conn.execute(query).fetchone() == ("token ci", "counted twice")
    assert (
        stranger.post(f"{API}/totals/restore", headers=headers, json=body).json()["restored"] == 0
    )


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("nothing", 404, "there is no state"),
        ("total", 404, "did you mean totals?"),
        ("totals?at=tea", 400, "is no time and no position"),
        ("totals?at=99999999999999999999", 400, "beyond every position"),
        ("totals?at=9999999d", 400, "before the calendar begins"),
        ("totals?limit=5000", 400, "at most 1000"),
        ("totals/diff", 400, "say from which moment"),
        ("totals/history", 400, "say which key"),
        ("totals/history?key=XX", 404, "has no key XX"),
        ("totals/blame?key=XX", 404, ""),
    ],
)
def test_what_cannot_be_answered_is_one_line(path, status, why, house, admin):
    answer = admin.get(f"{API}/{path}")

    assert answer.status_code == status
    assert why in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "say to which moment"),
        ({"to": True}, "to must be a time"),
        ({"to": "tea", "reason": "x"}, "is no time"),
        ({"to": "2h", "reason": ["x"]}, "reason must be a text"),
        ({"to": "2h"}, "say why"),
        ({"to": "2h", "reason": "x", "env": "prd"}, "did you mean prod?"),
    ],
)
def test_setting_back_is_refused_in_one_line(body, why, house, admin):
    assert why in admin.post(f"{API}/totals/restore", json=body).json()["error"]


def test_setting_back_needs_an_operator_of_that_environment(house, stranger, give):
    body = {"to": "2h", "reason": "x"}
    viewer, prod = bearer(give("viewer")), bearer(give("operator", environment="prod"))

    assert stranger.post(f"{API}/totals/restore", headers=viewer, json=body).status_code == 403
    other = stranger.post(f"{API}/totals/restore", headers=prod, json=body | {"env": "dev"})
    assert other.status_code == 403
    assert stranger.get(f"{API}/totals?at=2h", headers=viewer).status_code == 200
