"""/api/v1/rewinds: plan, propose, begin, look, pause, resume, abort."""

import pytest
from fix_rewind_pages import handle, shop_fixture  # noqa: F401
from fix_web import connected, scalar

API = "/api/v1/rewinds"
BODY = {"topic": "orders", "to": "1h", "only": ["biller"], "reason": "a bug"}


@pytest.fixture
def ask(give, stranger):
    """`ask("pause", id)`: what an operator's token is answered; without a verb, a new one."""
    headers = {"Authorization": f"Bearer {give('operator', 'ci')}"}

    def ask(verb=None, id=None, **body):
        path = API if verb is None else f"{API}/{id}/{verb}"
        return stranger.post(path, headers=headers, json=body)

    return ask


def test_a_plan_moves_nothing_and_counts_exactly(shop, ask):
    answer = ask(**BODY, do="plan", states=True)

    assert answer.status_code == 200
    plan = answer.json()
    assert plan["messages"] == 4
    assert [(each["name"], each["messages"]) for each in plan["topics"]] == [("invoices", 4)]
    assert [(each["name"], each["keys"]) for each in plan["states"]] == [("totals", 2)]
    assert plan["only"] == ["biller"]
    assert scalar(shop.conn, "select count(*) from kirby.rewind") == 0


def test_exact_and_inexact(shop, ask):
    middle = {**BODY, "to": shop.orders[2], "states": True}
    refused = ask(**middle)
    assert refused.status_code == 400
    assert "add --exact to start there" in refused.json()["error"]
    note = ask(**middle, do="plan").json()["inexact"]
    assert (note["versions"], note["after"], note["messages"]) == (2, shop.orders[0] - 1, 2)

    assert ask(**middle, do="plan", exact=True).json()["messages"] == 4
    begun = ask(**middle, inexact=True)
    assert (begun.status_code, begun.json()["total"]) == (201, 2)
    assert ask(**middle, exact="yes").status_code == 400


def test_a_rewind_from_start_to_end(shop, ask, admin):
    begun = ask(**BODY)
    assert begun.status_code == 201
    id = begun.json()["id"]
    assert (begun.json()["status"], begun.json()["total"]) == ("running", 4)
    assert begun.json()["actor"] == "token ci"

    assert ask("pause", id).json()["status"] == "paused"
    assert handle(shop.conn, shop.biller) == 0
    assert ask("resume", id, reason="go on").json()["status"] == "running"
    assert handle(shop.conn, shop.biller) == 4
    scalar(shop.conn, "select kirby.end_rewinds()")

    ended = admin.get(f"{API}/{id}").json()
    assert (ended["status"], ended["done"]) == ("done", 4)
    assert ended["subscriptions"][0]["name"] == "biller"
    assert [each["id"] for each in admin.get(API).json()] == [id]
    assert ask("abort", id).status_code == 409


def test_a_rewind_is_proposed_and_approved(shop, ask):
    proposed = ask(**BODY, do="propose").json()
    assert proposed["status"] == "planned"
    assert handle(shop.conn, shop.biller) == 0

    assert ask("approve", proposed["id"]).json()["status"] == "running"
    assert ask("abort", proposed["id"]).json()["status"] == "aborted"


def test_from_a_position_of_some_keys_at_a_rate(shop, ask):
    body = BODY | {"to": shop.orders[1], "until": shop.orders[2], "keys": ["A"], "rate": 0.5}
    plan = ask(**body, do="plan").json()

    assert (plan["messages"], plan["keys"], plan["rate"]) == (1, ["A"], 0.5)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"topic": None}, "say which topic"),
        ({"to": None}, "say which topic, and to where"),
        ({"to": 1.5}, "to must be a time"),
        ({"to": "tea"}, "is no time and no position"),
        ({"topic": "order"}, "did you mean orders?"),
        ({"only": "biller"}, "only must be a list"),
        ({"keys": [1]}, "keys must be a list"),
        ({"only": ["bilbo"]}, "no subscription bilbo"),
        ({"states": "yes"}, "states must be true or false"),
        ({"rate": 0}, "is no rate"),
        ({"rate": True}, "is no rate"),
        ({"do": "dream"}, "do must be plan"),
        ({"when": "1h"}, "'when' is no field"),
        ({"env": "prd"}, "did you mean prod?"),
        ({"reason": 5}, "reason must be a text"),
    ],
)
def test_what_is_no_rewind_is_refused_in_one_line(body, why, shop, ask):
    answer = ask(**BODY | body)

    assert answer.status_code in (400, 404)
    assert why in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert scalar(shop.conn, "select count(*) from kirby.rewind") == 0


def test_who_may_and_where(shop, ask, give, stranger, dsn):
    id = ask(**BODY).json()["id"]
    viewer = {"Authorization": f"Bearer {give('viewer')}"}
    prod = {"Authorization": f"Bearer {give('operator', 'p', environment='prod')}"}

    assert stranger.get(f"{API}/{id}", headers=viewer).status_code == 200
    assert stranger.post(f"{API}/{id}/abort", headers=viewer).status_code == 403
    assert stranger.post(API, headers=viewer, json=BODY).status_code == 403
    assert stranger.post(f"{API}/{id}/abort", headers=prod).status_code == 404
    assert stranger.post(API, headers=prod, json=BODY | {"env": "dev"}).status_code == 403
    assert ask("dance", id).status_code == 400
    assert ask("pause", 999).status_code == 404
    assert ask("pause", 10**20).status_code == 404
    with connected(dsn) as conn:
        assert scalar(conn, "select status from kirby.rewind") == "running"
