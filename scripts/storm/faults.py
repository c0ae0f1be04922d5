"""What is not exactly once at the end, and wrong functions that have to be found out by it."""

import collections

from kirby.server.paths import MIGRATIONS
from storm.house import KEYS

# What comes out of what, and whether it keeps the order of each key.
STAGES = (("inputs", "orders", True), ("orders", "invoices", False), ("invoices", "receipts", True))
STATES = ("first", "second", "third")

BROKEN = {
    "fence": (
        "settle",
        {"c.fence = p_fence for update": "true for update", "c.fence = p_fence;": "true;",
         "p_upto < v_claim.first": "false"},
    ),
    "takeover": (
        "take_expired",
        {"begin\n": "begin\n  delete from kirby.claim e where e.lease_until <= kirby.now();\n"},
    ),
    "part": ("finish", {"set first = p_upto + 1, upto": "set upto"}),
    "note": ("close_due", {"if found or exists": "if false and exists"}),
    "order": ("hold_back", {"p_subscription.mode <> 'ordered'": "true"}),
}  # fmt: skip


def broken(name):
    """A function of the protocol with one mistake."""
    function, changes = BROKEN[name]
    text = (MIGRATIONS / "functions" / f"{function}.sql").read_text()
    for old, new in changes.items():
        if old not in text:
            raise LookupError(f"{old!r} is not in {function}.sql any more")
        text = text.replace(old, new)
    return text


def faults(house, published):
    """Everything that is wrong in topics and states; empty if each input had its effect once."""
    values = {topic: house.values(topic) for topic in ("inputs", "orders", "invoices", "receipts")}
    found = []
    for topic, rows in values.items():
        counts = collections.Counter(value for value, _ in rows)
        found += [f"{topic}: {value} is there {n} times" for value, n in counts.items() if n > 1]
        missing = [value for value in range(published) if value not in counts]
        found += [f"{topic}: {value} is missing" for value in missing]
    for before, after, ordered in STAGES:
        if ordered:
            found += [
                f"{after}: key {key} is out of order"
                for key in map(str, range(KEYS))
                if of_key(values[before], key) != of_key(values[after], key)
            ]
    for state in STATES:
        found += _faults_of_state(house, state, values["inputs"])
    return found


def of_key(rows, key):
    return [value for value, mine in rows if mine == key]


def _faults_of_state(house, state, inputs):
    entries = dict(house.ask(f"select key, value from state_dev.{state}"))
    for key in map(str, range(KEYS)):
        mine = {value for value, each in inputs if each == key}
        if mine and entries.get(key) != {"count": len(mine), "sum": sum(mine)}:
            yield f"state {state}: {key} is {entries.get(key)}, not {len(mine)} of {sum(mine)}"


def doubled(house):
    """Whether something is there twice already; a look that is cheap enough to take often."""
    twice = """
        select exists (select from kirby.message m join kirby.topic t on t.id = m.topic_id
                        where t.name in ('orders', 'invoices', 'receipts')
                        group by t.id, m.payload having count(*) > 1)
    """
    return house.ask(twice) == [(True,)]
