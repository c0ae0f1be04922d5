"""kirby rewind and kirby rewinds, as an operator meets them."""

import json

import psycopg
import pytest
from fix_rewind import flag

from kirby.core import db, subscriptions


@pytest.fixture
def read(dsn):
    """A topic of three messages that `bills` has settled; a function that settles what comes."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for n in range(3):
            db.scalar(conn, "select kirby.publish('orders', to_jsonb(%s::int), key => 'a')", [n])
        found, _ = subscriptions.subscribe(conn, "orders", "bills")

        def drain():
            came = []
            while batch := subscriptions.claim(conn, found, 2):
                came += [flag(batch, n) for n in range(len(batch.positions))]
                subscriptions.settle(conn, batch)
            db.scalar(conn, "select kirby.end_rewinds()")
            return came

        drain()
        yield drain


def shown(kirby, id=1):
    return json.loads(kirby("rewinds", "show", str(id), "--json").out)


def test_the_plan_and_nothing_else(kirby, read):
    said = kirby("rewind", "orders", "--to", "1", "--plan")
    assert (said.code, "3 messages from position 1" in said.out) == (0, True)
    plan = json.loads(kirby("rewind", "orders", "--to", "1", "--plan", "--json").out)
    assert (plan["messages"], plan["subscriptions"][0]["name"]) == (3, "bills")
    assert kirby("rewinds", "list").out == "no rewinds in dev\n"
    assert read() == []


def test_rewind_and_wait_until_it_is_over(kirby, read):
    said = kirby("rewind", "orders", "--to", "1h", "--yes", "--reason", "a bug")
    assert said.out.endswith("rewind 1 of orders is running, 0 of 3 messages done\n")
    assert read() == [1, 1, 1]
    said = kirby("rewinds", "wait", "1")
    assert said.out == "rewind 1 of orders is done, 3 of 3 messages done\n"
    found = shown(kirby)
    assert (found["status"], found["reason"], found["done"]) == ("done", "a bug", 3)
    [listed] = json.loads(kirby("rewinds", "list", "--json").out)
    assert listed["id"] == 1


def test_it_asks_first(kirby, read):
    assert kirby("rewind", "orders", "--to", "1", stdin="n\n").code != 0
    assert read() == []
    assert kirby("rewind", "orders", "--to", "1", stdin="y\n").code == 0
    assert len(read()) == 3


def test_proposed_approved_paused_resumed_aborted(kirby, read):
    assert "is planned" in kirby("rewind", "orders", "--to", "1", "--propose").out
    assert read() == []
    assert "is running" in kirby("rewinds", "approve", "1").out
    assert "is paused" in kirby("rewinds", "pause", "1").out
    assert read() == []
    assert "is running" in kirby("rewinds", "resume", "1", "--reason", "quiet again").out
    assert "is aborted" in kirby("rewinds", "abort", "1").out
    assert read() == []
    again = kirby("rewinds", "abort", "1")
    assert (again.code, again.err) == (1, "kirby: rewind 1 is aborted already\n")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["orders", "--to", "yesterday"], 1, "is no time and no position"),
        (["orders", "--to", "now"], 1, "--to names no point in the past"),
        (["nothing", "--to", "1", "--yes"], 1, "called nothing"),
        (["orders", "--to", "1", "--only", "bill", "--yes"], 1, "has no subscription bill"),
        (["orders", "--to", "999999", "--yes"], 1, "nothing to rewind"),
        (["orders", "--to", "1", "--json"], 2, "--json goes with"),
        (["orders"], 2, "Missing option '--to'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(kirby, read, arguments, code, error):
    said = kirby("rewind", *arguments)
    assert (said.code, error in said.err) == (code, True)
    assert "Traceback" not in said.err


def test_one_that_is_not_there(kirby, read):
    for verb in ("show", "approve", "pause", "resume", "abort", "wait"):
        said = kirby("rewinds", verb, "7")
        assert (said.code, said.err) == (1, "kirby: there is no rewind 7 in dev\n")


def test_what_would_not_be_exact_is_refused_unless_it_is_said_from_where(kirby, read, dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        found, _ = subscriptions.subscribe(conn, "orders", "adder")
        batch = subscriptions.claim(conn, found, 9)
        change = {"k": "all", "o": "set", "v": 3, "p": batch.positions, "h": {"via": [["adder"]]}}
        subscriptions.settle(conn, batch, mutations=json.dumps({"sums": [change]}))
    first, middle = batch.positions[0], str(batch.positions[1])
    given = ("rewind", "orders", "--to", middle, "--only", "adder", "--states")

    for more in (("--yes",), ("--propose",), ()):
        said = kirby(*given, *more)
        assert said.code == 1
        assert "1 version was made from messages of both sides; exact from" in said.err
        assert "add --exact to start there" in said.err
    assert kirby("rewinds", "list").out == "no rewinds in dev\n"
    assert kirby(*given, "--exact", "--inexact", "--yes").code == 1
    assert kirby("rewind", "orders", "--to", "1", "--exact", "--yes").code == 2
    plan = json.loads(kirby(*given, "--exact", "--plan", "--json").out)
    assert (plan["after"], plan["messages"]) == (first - 1, 3)
    assert kirby(*given, "--exact", "--propose").code == 0
    assert kirby(*given, "--inexact", "--yes").code == 0
