"""A small house with lineage: departures > delay > delays > tally > carrier_delay and alerts."""

import json
import types

import pytest
from fix_web import connected, deploy, publish, scalar, start

APPEND = "select positions from kirby.append_messages(1::smallint, %s, %s)"
CHANGE = "select kirby.append_mutations(1::smallint, %s, %s)"
AT = "2026-11-22T22:00:00+00:00"
SAYS = {
    "delay": ("departures", {"to": ["delays"], "states": [], "doc": "The delay of each flight."}),
    "tally": ("delays", {"to": [], "states": ["carrier_delay"], "doc": "Adds up.\nBy carrier."}),
    "archive": ("departures", {"to": "cold-storage"}),
}


def count(conn):
    """What the leader does every second; twice, since a mutation is final a round later."""
    for _ in range(2):
        conn.execute("select kirby.count_messages()")
        conn.execute("select kirby.count_flow()")


def hop(job, topic, position, release="carriers 1.1"):
    return [job, release, topic, position, AT]


def one(*parts):
    return {"via": [hop(*parts)]}


def declare(conn, topic, name, document):
    subscription = scalar(conn, "select (kirby.subscribe(%s, %s)).subscription_id", topic, name)
    document = json.dumps({"job": name, "release": "carriers 1.1"} | document)
    conn.execute("select kirby.declare(%s, %s)", [subscription, document])
    return subscription


def flights(conn, run, number, *, replay=False):
    """So many flights, their delays, one more version of the figure, and an alert."""
    flown = [publish(conn, "departures", {"carrier": "UA", "n": n}, "UA") for n in range(number)]
    again = {"replay": 3} if replay else {}
    made = [
        {
            "k": "UA",
            "v": {"minutes": 3},
            "p": [p],
            "h": {"via": [hop("delay", "departures", p)]} | again,
        }
        for p in flown
    ]
    delays = scalar(conn, APPEND, run, json.dumps({"delays": made}))
    via = {"via": [hop("delay", "departures", flown[0]), hop("tally", "delays", delays[0])]}
    change = {"k": "UA", "o": "set", "v": {"flights": number}, "p": delays, "h": via | again}
    conn.execute(CHANGE, [run, json.dumps({"carrier_delay": [change]})])
    alert = {"k": "UA", "v": "late", "p": delays[:1], "h": via | again}
    scalar(conn, APPEND, run, json.dumps({"alerts": [alert]}))
    return flown, delays


@pytest.fixture(name="airport")
def airport_fixture(dsn):
    """Three rounds of flights, the last one a replay; what the jobs say of themselves."""
    with connected(dsn) as conn:
        run = start(conn, deploy(conn, "carriers", "daemon"), replica=0)
        rounds = [flights(conn, run, 4, replay=number == 2) for number in range(3)]
        for name, (topic, document) in SAYS.items():
            declare(conn, topic, name, document)
        count(conn)
        figure = scalar(conn, "select position from kirby.state_entry")
        yield types.SimpleNamespace(
            conn=conn,
            run=run,
            flights=[p for flown, _ in rounds for p in flown],
            delays=[p for _, delays in rounds for p in delays],
            figure=figure,
        )
