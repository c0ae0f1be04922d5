"""What a subscription may do and what not, written down once more in Python, beside the SQL.

`Ledger` is what is known of the messages of one subscription. It does not guess what a claim hands
out; it says whether that was right, and notes it. `Rows` is what the database says of itself.
"""

import itertools
import math
from dataclasses import dataclass, field

LEASE = 15.0
EPS = 1e-3
LOOK = """
    select kirby.now(),
           (select coalesce(json_agg(c), '[]') from (
              select id, lane, first, last, upto, fence, kind, suspect, attempt,
                     extract(epoch from lease_until)::float8 as lease
                from kirby.claim where subscription_id = %(id)s) c),
           (select coalesce(json_agg(d), '[]') from (
              select position, lane, key, attempt, reason, parked_at is not null as parked,
                     due_at = 'infinity' as endless
                from kirby.due where subscription_id = %(id)s order by position) d),
           (select coalesce(json_agg(c), '[]') from (
              select c.lane, c.position, c.delivered,
                     (select count(*) from kirby.message m
                       where m.topic_id = %(topic)s and m.lane = c.lane
                         and m.position <= c.position) as counted
                from kirby.cursor c where c.subscription_id = %(id)s) c)
"""


@dataclass
class Rows:
    """The rows of a subscription, as they are committed."""

    now: float
    claims: dict
    due: dict
    cursors: list

    @classmethod
    def read(cls, conn, subscription_id, topic_id):
        params = {"id": subscription_id, "topic": topic_id}
        now, claims, due, cursors = conn.execute(LOOK, params).fetchone()
        return cls(
            now.timestamp(), {c["id"]: c for c in claims}, {d["position"]: d for d in due}, cursors
        )

    def faults(self, mode, on_failure):
        """What contradicts itself in them, whatever happened before."""
        ranges = [c for c in self.claims.values() if c["kind"] == "range"]
        singles = [c for c in self.claims.values() if c["kind"] == "due"]
        for one, other in itertools.combinations(ranges, 2):
            if one["lane"] == other["lane"]:
                if mode == "ordered":
                    yield f"two claims of lane {one['lane']}"
                elif one["first"] <= other["last"] and other["first"] <= one["last"]:
                    yield f"claims overlap: {one}, {other}"
        held = [c["first"] for c in singles]
        if len(held) != len(set(held)):
            yield f"one message in two claims: {held}"
        for position in held:
            row = self.due.get(position)
            if not row or row["parked"] or not row["endless"] or row["reason"] == "waiting":
                yield f"message {position} is in hands by itself, and its row is {row}"
        for position, row in self.due.items():
            settled_with = [c for c in ranges if c["lane"] == row["lane"] and position <= c["last"]]
            if row["reason"] == "done" and not settled_with and not self._to_come(row):
                yield f"message {position} is noted as done for nothing"
            idle = row["endless"] and not row["parked"] and row["reason"] not in ("waiting", "done")
            if idle and position not in held:
                yield f"message {position} is due by itself, in nobody's hands, and never comes"
        yield from self._waiting_for_nothing(mode, on_failure, held)
        for cursor in self.cursors:
            if cursor["delivered"] != cursor["counted"]:
                yield f"the cursor counts wrong: {cursor}"

    def _to_come(self, row):
        """Whether its lane was moved back behind it."""
        return any(
            cursor["lane"] == row["lane"] and cursor["position"] < row["position"]
            for cursor in self.cursors
        )

    def _waiting_for_nothing(self, mode, on_failure, held):
        holding = {
            row["key"]
            for row in self.due.values()
            if row["reason"] not in ("done", "waiting", "delayed")
            and not (row["parked"] and (on_failure == "park" or mode == "shared"))
        }
        for position, row in self.due.items():
            if row["reason"] != "waiting" or row["key"] in holding:
                continue
            if mode == "ordered" or not any(c["kind"] == "range" for c in self.claims.values()):
                yield f"message {position} waits for nobody"


@dataclass
class Entry:
    """One message, as one subscription sees it."""

    position: int
    key: str | None
    deliver_at: float | None
    expires_at: float | None
    payload: object
    status: str = "open"  # or done, parked, dropped, retracted
    tries: int = 0
    told: bool = False  # that it is to be parked
    waited: bool = False  # so that its attempts were counted from the beginning again
    out_of_turn: bool = False
    not_before: float = 0.0

    def is_over(self, now):
        if self.status in ("done", "dropped", "retracted"):
            return True
        return self.status == "open" and self.expires_at is not None and self.expires_at <= now


@dataclass
class Hand:
    """A claim, and what of it was handed out and is not settled."""

    claim_id: int
    fence: int | None
    attempt: int
    worker: object
    open: list
    lease: float
    blame: bool = True  # if it ends now, it is a failed attempt of its messages
    free: bool = False  # given back
    held: set = field(default_factory=set)  # keys of which one has failed


class Ledger:
    """What became of every message in one subscription, and who has what in hands."""

    def __init__(self, id, mode, on_failure, max_attempts):
        self.id, self.mode = id, mode
        self.on_failure, self.max_attempts = on_failure, max_attempts
        self.limits = {}
        self.entries = {}
        self.hands = {}
        self.seen = set()  # claims
        self.paused = False
        self.pace = []  # (when, key) of what was handed out for the first time in a claim

    def add(self, position, key, deliver_at, expires_at, payload):
        self.entries[position] = Entry(position, key, deliver_at, expires_at, payload)

    def entry(self, position):
        return self.entries[position]

    # What the database did by itself

    def observe(self, rows):
        """Take note of what a claim parked, and of claims of which nothing is left."""
        for claim_id, hand in list(self.hands.items()):
            row = rows.claims.get(claim_id)
            if row is not None and hand.free and hand.fence is None:
                hand.fence = row["fence"]
            elif row is None or row["fence"] != hand.fence:
                assert hand.free or hand.lease <= rows.now, f"{hand} was taken away"
                del self.hands[claim_id]
                self._end(hand)
        for position, row in rows.due.items():
            entry = self.entries[position]
            entry.waited |= row["reason"] in ("waiting", "ready")
            if row["parked"] and entry.status != "parked":
                assert entry.status == "open", f"{entry} was parked"
                assert entry.told or entry.tries >= self.max_attempts, f"{entry} was parked early"
                assert self.hand_of(position) is None
                entry.status = "parked"
        for entry in self.entries.values():
            if entry.status == "parked":
                row = rows.due.get(entry.position)
                assert row is not None, f"{entry} is gone"
                assert row["parked"], f"{entry} is not parked any more"
        faults = list(rows.faults(self.mode, self.on_failure))
        assert faults == [], faults

    def _end(self, hand):
        for position in hand.open:
            self.entries[position].tries += hand.blame

    # Handing out

    def hand_of(self, position):
        return next((hand for hand in self.hands.values() if position in hand.open), None)

    def receive(self, worker, batch, now):
        """A claim handed this out, at that moment."""
        assert not self.paused, "it is paused"
        taken_over = self._take_over(batch, now)
        self._check_limits(batch, now, taken_over)
        for index, position in enumerate(batch.positions):
            entry = self.entries[position]
            assert entry.key == batch.keys[index]
            assert batch.payloads[index] == entry.payload, f"{entry} was handed out as it was"
            self._check(entry, batch, now)
        self.hands[batch.claim_id] = Hand(
            batch.claim_id, batch.fence, batch.attempt, worker, list(batch.positions), now + LEASE
        )

    def _take_over(self, batch, now):
        """Whether it was in other hands before."""
        old = self.hands.pop(batch.claim_id, None)
        if old is not None:
            assert old.free or old.lease <= now, f"{old} was taken away"
            assert old.fence != batch.fence, "the fence is the same"
            self._end(old)
        again = batch.claim_id in self.seen
        self.seen.add(batch.claim_id)
        return again

    def _check(self, entry, batch, now):
        assert entry.status == "open", f"{entry} was handed out"
        assert not entry.is_over(now), f"{entry} has expired"
        assert self.hand_of(entry.position) is None, f"{entry} is in two hands"
        early = max(entry.deliver_at or 0, entry.not_before)
        assert early <= now + EPS, f"{entry} came early"
        assert batch.attempt <= entry.tries + 1, f"attempt {batch.attempt} of {entry}"
        if not entry.waited:
            assert batch.attempt == entry.tries + 1, f"attempt {batch.attempt} of {entry}"
        assert batch.attempt <= self.max_attempts
        if self.mode == "ordered" and entry.key is not None:
            self._check_turn(entry, batch, now)

    def _check_turn(self, entry, batch, now):
        for hand in self.hands.values():
            if entry.key not in hand.held:
                for other in hand.open:
                    assert self.entries[other].key != entry.key, (
                        f"{entry} is handled beside {other}"
                    )
        for other in self.entries.values():
            if other.key != entry.key or other.position >= entry.position or other.is_over(now):
                continue
            if other.position in batch.positions or other.out_of_turn or other.deliver_at:
                continue
            parked = other.status == "parked" and self.on_failure == "park"
            assert parked, f"{entry} comes before {other}"

    def _check_limits(self, batch, now, taken_over):
        count = len(batch.positions)
        if taken_over:
            return
        in_hands = [position for hand in self.hands.values() for position in hand.open]
        if most := self.limits.get("max_in_flight"):
            assert len(in_hands) + count <= most, f"{in_hands} and {batch.positions} in hands"
        if (most := self.limits.get("key_in_flight")) and self.mode == "shared":
            for key in {*batch.keys} - {None}:
                mine = [p for p in [*in_hands, *batch.positions] if self.entries[p].key == key]
                assert len(mine) <= most, f"{mine} of key {key} in hands"
        self.pace += [(now, key) for key in batch.keys]
        if rate := self.limits.get("rate"):
            self._check_rate([when for when, _ in self.pace], rate, max(1, rate / 4), now)
        if rate := self.limits.get("key_rate"):
            burst = 1 + rate * max(0.0, 0.25 - 1 / rate)
            for key in {*batch.keys} - {None}:
                mine = [when for when, each in self.pace if each == key]
                self._check_rate(mine, rate, burst, now)

    @staticmethod
    def _check_rate(times, rate, burst, now):
        for index, since in enumerate(times):
            count, most = len(times) - index, burst + rate * (now - since)
            assert count <= math.floor(most + EPS), f"{count} within {now - since} s at {rate}/s"

    def give_back(self, hand, *, blame):
        """Others may have it at once."""
        hand.free, hand.blame, hand.fence = True, blame, None

    # Settling

    def settle(self, hand, positions, failures, now):
        """These of a hand are done, but for those that failed: {position: (action, pause)}."""
        for position in positions:
            hand.open.remove(position)
            entry = self.entries[position]
            assert entry.status == "open"
            action, pause = failures.get(position, ("done", 0))
            if action == "done":
                entry.status = "done"
            elif action == "wait":
                entry.waited = True
            else:
                entry.tries += 1
                entry.told |= action == "park"
                entry.not_before = now + pause
                if self.mode == "ordered" and entry.key is not None:
                    hand.held.add(entry.key)
        hand.lease = now + LEASE
        if not hand.open:
            self.hands.pop(hand.claim_id, None)

    # People

    def unpark(self, position, now):
        entry = self.entries[position]
        assert entry.status == "parked"
        entry.status, entry.tries, entry.told, entry.waited = "open", 0, False, False
        entry.out_of_turn = True
        entry.not_before = now

    def change_policy(self, on_failure):
        for entry in self.entries.values():
            entry.out_of_turn |= entry.status == "parked" and on_failure != self.on_failure
        self.on_failure = on_failure

    def limit(self, limits):
        self.limits |= limits
        self.pace = []

    # At the end

    def rest(self, now):
        """What is neither done nor given up."""
        return [e for e in self.entries.values() if not e.is_over(now) and e.status != "parked"]
