"""A shop whose orders were billed: for the pages and the API of rewinds."""

import json
import types

import pytest
from fix_web import connected, publish

from kirby.core import subscriptions


def handle(conn, id, limit=100):
    """Settle what a subscription is given: an invoice and a count for each order; how many."""
    handled = 0
    while batch := subscriptions.claim(conn, id, limit):
        handled += len(batch.positions)
        subscriptions.settle(conn, batch, **outputs(batch))
        if limit == 1:
            break
    return handled


def outputs(batch):
    """What the job `biller` makes of orders."""
    invoices, counts = [], {}
    for number, position in enumerate(batch.positions):
        replay = (batch.headers[number] or {}).get("replay") if batch.headers else None
        via = [["biller", "1.0", "orders", position, "2027-01-01T00:00:00Z"]]
        headers = {"via": via} | ({"replay": replay} if replay else {})
        invoices.append({"v": {"of": position}, "p": [position], "h": headers})
        key = batch.keys[number] or "none"
        counts.setdefault(key, []).append(position)
    changes = [
        {"k": key, "o": "set", "v": {"orders": len(made)}, "p": made, "h": {"via": [["biller"]]}}
        for key, made in counts.items()
    ]
    return {
        "messages": json.dumps({"invoices": invoices}),
        "mutations": json.dumps({"totals": changes}),
    }


@pytest.fixture(name="shop")
def shop_fixture(dsn):
    """Four orders that `biller` has handled and of which `archive` was given none."""
    with connected(dsn) as conn:
        biller, _ = subscriptions.subscribe(conn, "orders", "biller")
        orders = [publish(conn, "orders", {"n": n}, "AB"[n % 2]) for n in range(4)]
        handle(conn, biller)
        subscriptions.subscribe(conn, "orders", "archive")
        yield types.SimpleNamespace(conn=conn, biller=biller, orders=orders)
