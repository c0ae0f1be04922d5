"""kirby subscription edit and limit, as an operator meets them."""

import json

import psycopg
import pytest

from kirby.core import db, subscriptions
from kirby.core.subscriptions import Failure


@pytest.fixture
def parked(dsn):
    """A subscription with one parked message; its position."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        position = db.scalar(conn, "select kirby.publish('orders', '{\"qty\": \"two\"}')")
        found, _ = subscriptions.subscribe(conn, "orders", "bills")
        batch = subscriptions.claim(conn, found, 10)
        subscriptions.settle(conn, batch, failures=[Failure(position, "park", "qty is no number")])
    return position


def shown(kirby):
    return json.loads(kirby("subscription", "show", "orders", "bills", "--json").out)


def test_edit_a_parked_message_and_try_it_again(kirby, parked):
    said = kirby(
        "subscription", "edit", "orders", "bills", str(parked), '{"qty": 2}', "--reason", "typo"
    )
    assert said.out == f"message {parked} is changed for bills\n"
    [undone] = shown(kirby)["undone"]
    assert (undone["payload"], undone["edited"]) == ({"qty": 2}, True)

    kirby(
        "subscription", "edit", "orders", "bills", str(parked), "-", "--unpark", stdin='{"qty": 3}'
    )
    assert shown(kirby)["undone"][0]["parked_at"] is None


def test_edit_says_what_is_wrong(kirby, parked):
    bad = kirby("subscription", "edit", "orders", "bills", str(parked), "{")
    assert (bad.code, bad.err[:30]) == (1, "kirby: the payload is not JSON")
    none = kirby("subscription", "edit", "orders", "bills", "1", "{}")
    assert (none.code, none.err) == (1, "kirby: no message is parked at position 1\n")


def test_limits_are_set_shown_and_taken_away(kirby, parked):
    said = kirby(
        "subscription", "limit", "orders", "bills", "--rate", "2.5", "--max-in-flight", "10"
    )
    assert said.out == "bills of orders: max in flight 10, rate 2.5\n"
    assert (shown(kirby)["rate"], shown(kirby)["max_in_flight"]) == (2.5, 10)
    kirby("subscription", "limit", "orders", "bills", "--rate", "none")
    assert (shown(kirby)["rate"], shown(kirby)["max_in_flight"]) == (None, 10)


@pytest.mark.parametrize(
    "limit", [["--rate", "0"], ["--rate", "fast"], ["--max-in-flight", "1.5"], []]
)
def test_a_limit_that_makes_no_sense_is_wrong_usage(kirby, parked, limit):
    said = kirby("subscription", "limit", "orders", "bills", *limit)
    assert (said.code, said.out) == (2, "")
