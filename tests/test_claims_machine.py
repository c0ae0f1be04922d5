"""Anything that workers and people may do to a subscription, in any order, against a ledger.

Hypothesis draws the steps. A worker's transaction may stay open while others go on; who has to wait
for it gives up at once, so everything that two transactions can do to each other is tried without
threads. The clock moves only when a step says so. After each step the rows must agree with the
ledger (tests/fix_machine.py); at the end all is drained, and nothing may be lost or left behind.

KIRBY_TEST_EXAMPLES=20000 runs longer, with other examples each time.
"""

import json
import os
from dataclasses import replace

import hypothesis.strategies as st
import psycopg
import pytest
from fix_machine import LEASE, Ledger, Rows
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kirby.core import db, subscriptions, topics
from kirby.core.errors import Fenced
from kirby.core.subscriptions import Failure
from kirby.sdk import work

WORKERS = 3
CLOCK = """
    create table kirby.test_clock (shift interval not null);
    insert into kirby.test_clock values ('0');
    create or replace function kirby.now() returns timestamptz language sql volatile
      as $$ select '2030-01-01 12:00+00'::timestamptz + shift from kirby.test_clock $$;
    grant select on kirby.test_clock to public;
"""
NEAR = "select replace(pg_get_functiondef('kirby.change_lanes'::regproc), '1000000', '3')"
EVEN = """
    select nextval('kirby.position')
      from generate_series((select last_value % 60 from kirby.position), 59)
"""  # so that an example finds the same lanes when it is tried again
KEYS = st.sampled_from(["a", "a", "b", None])
SECONDS = st.sampled_from([0.1, 1.0, 5.0, 16.0, 60.0])


class Busy(Exception):
    """Somebody else's transaction is in the way."""


class Actor:
    """A connection, and what its open transaction means once it commits."""

    def __init__(self, dsn):
        self.conn = db.connect(dsn)
        self.conn.autocommit = False
        self.conn.execute("set lock_timeout = '15ms'; set synchronous_commit = off")
        self.conn.commit()
        self.pending = None

    def ask(self, act):
        try:
            return act(self.conn)
        except psycopg.errors.LockNotAvailable:
            self.conn.rollback()
            raise Busy from None
        except BaseException:
            self.conn.rollback()
            raise


class House:
    """A database that all examples share: each has a topic of its own."""

    def __init__(self, dsn):
        self.admin = psycopg.connect(dsn, autocommit=True)
        self.admin.execute(CLOCK)
        self.admin.execute(self.admin.execute(NEAR).fetchone()[0])
        self.actors = [Actor(dsn) for _ in range(WORKERS + 2)]
        self.examples = 0

    def close(self):
        for conn in [self.admin, *[actor.conn for actor in self.actors]]:
            conn.close()


class Machine(RuleBasedStateMachine):
    """One topic, its subscriptions, three workers, a producer and a person."""

    house: House
    kind = Ledger

    def __init__(self):
        super().__init__()
        self.house.examples += 1
        self.topic = f"t{self.house.examples}"
        self.admin = self.house.admin
        *self.workers, self.producer, self.person = self.house.actors
        self.names = [f"{self.topic}-{n}" for n in range(WORKERS)]
        self.ledgers = []
        self.zombies = []  # (ledger, hand, fence) of workers who do not know that they lost it
        self.lanes = 1
        self.ids = {}

    # The beginning

    @initialize(
        lanes=st.integers(1, 3),
        kinds=st.sampled_from(["o", "o", "s", "os"]),
        on_failure=st.sampled_from(["block", "park"]),
        max_attempts=st.integers(1, 3),
    )
    def open(self, lanes, kinds, on_failure, max_attempts):
        self.lanes = lanes
        self.topic_id = topics.open(self.admin, self.topic, lanes=lanes)
        for kind in kinds:
            mode = "ordered" if kind == "o" else "shared"
            opened, _ = subscriptions.subscribe(
                self.admin, self.topic, mode, mode, on_failure=on_failure, max_attempts=max_attempts
            )
            self.ledgers.append(self.kind(opened, mode, on_failure, max_attempts))
        for worker, name in zip(self.workers, self.names, strict=True):
            worker.conn.execute("select set_config('kirby.holder', %s, false), setseed(0)", [name])
            worker.conn.commit()
        self.admin.execute(EVEN)

    # How a step is made

    @property
    def now(self):
        return db.scalar(self.admin, "select kirby.now()").timestamp()

    def rows(self, ledger):
        return Rows.read(self.admin, ledger.id, self.topic_id)

    def do(self, actor, act, gives=lambda answer: None, gets=lambda answer: None, later=False):
        """Act; what it gives away holds before the rows are looked at, what it gets after that.

        With `later`, the transaction stays open, and all that follows is done when it commits.
        """
        if actor.pending:
            return
        try:
            answer = actor.ask(act)
        except Busy:
            note("somebody is in the way")
            return

        def finish():
            gives(answer)
            self.observe()
            gets(answer)

        if later:
            actor.pending = finish
        else:
            actor.conn.commit()
            finish()

    def observe(self):
        for ledger in self.ledgers:
            ledger.observe(self.rows(ledger))

    def holding(self, worker):
        return [
            (ledger, hand)
            for ledger in self.ledgers
            for hand in ledger.hands.values()
            if hand.worker == worker and not hand.free
        ]

    def idle(self, number):
        actor = self.workers[number]
        return actor if actor.pending is None else None

    # Transactions that stay open

    @precondition(lambda self: any(actor.pending for actor in self.house.actors))
    @rule(number=st.integers(0, WORKERS + 1), well=st.booleans())
    def end_transaction(self, number, well):
        actor = self.house.actors[number]
        if actor.pending:
            self._end(actor, well)

    def _end(self, actor, well=True):
        finish, actor.pending = actor.pending, None
        if well:
            actor.conn.commit()
            finish()
        else:
            actor.conn.rollback()

    # Time

    @rule(seconds=SECONDS)
    def time_passes(self, seconds):
        self.later(seconds)

    def later(self, seconds):
        self.admin.execute(
            "update kirby.test_clock set shift = shift + make_interval(secs => %s)", [seconds]
        )

    # Producers

    @rule(
        keys=st.lists(KEYS, min_size=1, max_size=4),
        deliver=st.sampled_from([None, None, None, 3.0, 20.0]),
        expire=st.sampled_from([None, None, None, 10.0, 90.0]),
        id=st.sampled_from([None, None, "x", "y", "z"]),
        later=st.booleans(),
    )
    def publish(self, keys, deliver, expire, id, later):
        def time(seconds):
            return None if seconds is None else self.at(now + seconds)

        now = self.now
        values = [f"{self.house.examples}.{n}" for n in range(len(keys))]
        items = [
            work.message(value, key, None, (), deliver_at=time(deliver), expires_at=time(expire),
                         id=id if n == 0 else None)
            for n, (value, key) in enumerate(zip(values, keys, strict=True))
        ]  # fmt: skip
        document = work.document({self.topic: items})

        def gives(answer):
            for n, (position, key) in enumerate(zip(answer[0], keys, strict=True)):
                if n == 0 and id is not None and self.ids.setdefault(id, position) != position:
                    raise AssertionError(f"{id} was published twice")
                for ledger in self.ledgers:
                    if position not in ledger.entries:
                        ledger.add(
                            position,
                            key,
                            None if deliver is None else now + deliver,
                            None if expire is None else now + expire,
                            values[n],
                        )

        self.do(self.producer, lambda conn: topics.write(conn, document, "{}"), gives, later=later)

    def at(self, when):
        return db.scalar(self.admin, "select to_timestamp(%s)", [when])

    @precondition(lambda self: self.ids)
    @rule(number=st.integers(0, 2))
    def retract(self, number):
        id = sorted(self.ids)[number % len(self.ids)]
        position = self.ids[id]

        def gives(in_time):
            for ledger in self.ledgers:
                entry = ledger.entry(position)
                if in_time:
                    assert entry.status in ("open", "parked", "retracted"), (
                        f"{entry} was taken back"
                    )
                    assert ledger.hand_of(position) is None, f"{entry} is in hands"
                    entry.status = "retracted"

        self.do(self.person, lambda conn: topics.retract(conn, self.topic, id), gives)

    # Workers

    @rule(
        number=st.integers(0, WORKERS - 1),
        which=st.integers(0, 1),
        limit=st.sampled_from([1, 2, 10]),
        later=st.sampled_from([False, False, True]),
    )
    def claim(self, number, which, limit, later):
        if (worker := self.idle(number)) is not None:
            self.claim_by(worker, which, limit, later)

    def claim_by(self, worker, which, limit, later):
        ledger, now = self.ledgers[which % len(self.ledgers)], self.now
        self.do(
            worker,
            lambda conn: subscriptions.claim(conn, ledger.id, limit),
            gets=lambda batch: self.got(ledger, worker, batch, now, None if later else limit),
            later=later,
        )

    def got(self, ledger, worker, batch, now, limit):
        if batch is not None:
            assert limit is None or len(batch.positions) <= limit or batch.claim_id in ledger.seen
            ledger.receive(worker, batch, now)
        elif limit is not None:
            self.nothing_to_do(ledger, now)

    def nothing_to_do(self, ledger, now):
        """Where nobody has anything in hands, that has to be true."""
        if ledger.hands or ledger.limits or ledger.paused:
            return
        if any(actor.pending for actor in self.house.actors):
            return
        rows = self.rows(ledger)
        if rows.claims or any(row["reason"] == "queued" for row in rows.due.values()):
            return
        for entry in ledger.rest(now):
            kept = max(entry.deliver_at or 0, entry.not_before) > now or any(
                other.key == entry.key and entry.key is not None and ledger.mode == "ordered"
                for other in ledger.entries.values()
                if other is not entry and not other.is_over(now)
            )
            assert kept, f"{entry} is to be had"

    @precondition(lambda self: any(self.holding(worker) for worker in self.workers))
    @rule(
        number=st.integers(0, WORKERS - 1),
        which=st.integers(0, 5),
        count=st.integers(1, 4),
        outcomes=st.lists(
            st.sampled_from(["done", "done", "done", "retry", "retry", "park"]),
            min_size=4,
            max_size=4,
        ),
        pause=st.sampled_from([0.0, 2.0, 30.0]),
        next=st.sampled_from([0, 2, 10]),
        later=st.sampled_from([False, False, True]),
    )
    def settle(self, number, which, count, outcomes, pause, next, later):
        busy = [worker for worker in self.workers if not worker.pending and self.holding(worker)]
        if not busy:
            return
        mine = self.holding(worker := busy[number % len(busy)])
        ledger, hand = mine[which % len(mine)]
        now = self.now
        positions = hand.open[:count]
        whole = positions == hand.open
        failures = self._failures(ledger, hand, positions, outcomes, pause)
        must_park = [
            position
            for position, (action, _) in failures.items()
            if action == "park" or (action == "retry" and hand.attempt >= ledger.max_attempts)
        ]
        batch = self.as_batch(hand)

        def act(conn):
            return subscriptions.settle(
                conn, batch, upto=positions[-1], next=next if whole else 0,
                failures=[Failure(p, action, "boom", pause) for p, (action, pause)
                          in failures.items()],
            )  # fmt: skip

        def gives(settled):
            self.still_mine(ledger, hand)
            ledger.settle(hand, positions, failures, now)

        def gets(settled):
            due = self.rows(ledger).due
            for position in must_park:
                assert due[position]["parked"], f"{ledger.entry(position)} is not parked"
            if settled.next is not None:
                assert next > 0
                assert whole
                ledger.receive(worker, settled.next, now)

        try:
            self.do(worker, act, gives, gets, later)
        except Fenced:
            self.observe()
            assert ledger.hands.get(hand.claim_id) is not hand, f"{hand} was fenced off"

    def _failures(self, ledger, hand, positions, outcomes, pause):
        """As the SDK files them: what comes after a failed message of its key waits."""
        failures, held = {}, set(hand.held)
        for position, outcome in zip(positions, outcomes, strict=False):
            key = ledger.entry(position).key
            if key in held:
                failures[position] = ("wait", 0.0)
            elif outcome != "done":
                failures[position] = (outcome, pause)
                if ledger.mode == "ordered" and key is not None:
                    held.add(key)
        return failures

    def still_mine(self, ledger, hand):
        assert ledger.hands.get(hand.claim_id) is hand, f"{hand} was settled by a stranger"

    def as_batch(self, hand):
        return subscriptions.Batch(
            hand.claim_id, hand.fence, hand.attempt, [], [], [], None, [], [], None
        )

    @precondition(lambda self: any(ledger.hands for ledger in self.ledgers))
    @rule(
        what=st.sampled_from(
            ["die", "die", "die", "release", "release", "renew", "vanish", "resume", "bury"]
        ),
        number=st.integers(0, WORKERS - 1),
        which=st.integers(0, 7),
        yes=st.booleans(),
        later=st.booleans(),
    )
    def trouble(self, what, number, which, yes, later):
        if what == "die":
            self.die(number, which, yes)
        elif what == "release":
            self.release(number, which, yes, later)
        elif what == "renew":
            self.renew(number, which)
        elif what == "vanish":
            self.vanish(number)
        elif what == "resume":
            self.resume(number, which)
        else:
            self.bury(number, yes)

    def release(self, number, which, suspect, later):
        if (worker := self.idle(number)) is None or not (mine := self.holding(worker)):
            return
        ledger, hand = mine[which % len(mine)]
        batch = self.as_batch(hand)

        def gives(_):
            if ledger.hands.get(hand.claim_id) is hand:
                ledger.give_back(hand, blame=suspect)

        self.do(
            worker, lambda c: subscriptions.release(c, batch, suspect=suspect), gives, later=later
        )

    def renew(self, number, which):
        if (worker := self.idle(number)) is None or not (mine := self.holding(worker)):
            return
        ledger, hand = mine[which % len(mine)]
        batch, now = self.as_batch(hand), self.now

        def gives(_):
            self.still_mine(ledger, hand)
            hand.lease = now + LEASE

        try:
            self.do(worker, lambda conn: subscriptions.renew(conn, batch), gives)
        except Fenced:
            self.observe()
            assert ledger.hands.get(hand.claim_id) is not hand

    def vanish(self, number):
        """A worker is stopped for good, or for a while: another one takes its seat."""
        if (worker := self.idle(number)) is None:
            return
        for ledger, hand in self.holding(worker):
            self.zombies.append((ledger, hand, hand.fence))
            hand.worker = None

    def die(self, number, which, yes):
        """Its leases end, and somebody else takes over what it had."""
        ours = [each for each in self.workers if not each.pending]
        holders = [each for each in ours if self.holding(each)]
        if not holders:
            return
        dead = holders[number % len(holders)]
        self.vanish(self.workers.index(dead))
        self.later(16.0)
        self.claim_by(ours[number % len(ours)], which, 10 if yes else 1, False)

    @precondition(lambda self: self.zombies)
    @rule(
        number=st.integers(0, WORKERS - 1),
        which=st.integers(0, 5),
        what=st.sampled_from(["settle", "settle", "renew", "release"]),
        yes=st.booleans(),
    )
    def come_back(self, number, which, what, yes):
        """A worker was only stopped: it goes on where it was."""
        if (worker := self.idle(number)) is None:
            return
        ledger, hand, fence = self.zombies[which % len(self.zombies)]
        if not hand.open:
            return
        positions, batch, now = list(hand.open), replace(self.as_batch(hand), fence=fence), self.now

        def act(conn):
            if what == "settle":
                return subscriptions.settle(conn, batch, upto=positions[-1])
            if what == "renew":
                return subscriptions.renew(conn, batch)
            return subscriptions.release(conn, batch, suspect=yes)

        def gives(_):
            mine = ledger.hands.get(hand.claim_id) is hand and hand.fence == fence
            if what == "release":
                if mine:
                    ledger.give_back(hand, blame=yes)
                return
            assert mine, f"{hand} was settled by a stranger"
            if what == "settle":
                ledger.settle(hand, positions, {}, now)
            else:
                hand.lease = now + LEASE

        try:
            self.do(worker, act, gives)
        except Fenced:
            self.observe()
            assert ledger.hands.get(hand.claim_id) is not hand or hand.free

    def resume(self, number, keep):
        """Its connection was lost, and an answer with it."""
        if (worker := self.idle(number)) is None:
            return
        mine = self.holding(worker)
        lost = [each for n, each in enumerate(mine) if not keep & (1 << n)]
        kept = [hand.claim_id for ledger, hand in mine if (ledger, hand) not in lost]
        name = self.names[number]
        gone = [(led, hand) for led, hand, _ in self.zombies if self.holder(hand) == name]

        def gives(_):
            for ledger, hand in lost + gone:
                if ledger.hands.get(hand.claim_id) is hand and not hand.free:
                    ledger.give_back(hand, blame=False)

        self.do(worker, lambda conn: conn.execute("select kirby.resume(%s)", [kept]), gives)

    def holder(self, hand):
        found = "select holder from kirby.claim where id = %s and fence = %s"
        row = self.admin.execute(found, [hand.claim_id, hand.fence]).fetchone()
        return row[0] if row else None

    def bury(self, number, lost):
        """Whoever started it saw its end, and may know which message was the cause."""
        name = self.names[number]
        found = [(led, h) for led in self.ledgers for h in led.hands.values()
                 if not h.free and self.holder(h) == name]  # fmt: skip
        guilty = [(led, h) for led, h in found if h.open][:1] if lost else []
        causes = [
            subscriptions.Lost(hand.claim_id, hand.fence, hand.open[0], "late")
            for _, hand in guilty
            if led_key_is_free(_, hand)
        ]
        now = self.now

        def gives(_):
            for ledger, hand in found:
                cause = next((c for c in causes if c.claim_id == hand.claim_id), None)
                if cause is not None:
                    ledger.settle(hand, [cause.position], {cause.position: ("retry", 0.0)}, now)
                if ledger.hands.get(hand.claim_id) is hand:
                    ledger.give_back(hand, blame=not lost)

        self.do(
            self.person, lambda c: subscriptions.bury(c, [name], causes, suspect=not lost), gives
        )

    # People

    @precondition(
        lambda self: any(e.status == "parked" for led in self.ledgers for e in led.entries.values())
    )
    @rule(
        what=st.sampled_from(["unpark", "unpark", "drop", "edit"]),
        which=st.integers(0, 1),
        number=st.integers(0, 9),
        all=st.booleans(),
        later=st.booleans(),
    )
    def parked(self, what, which, number, all, later):
        ledger = self.ledgers[which % len(self.ledgers)]
        if what == "unpark":
            self.unpark(ledger, number, all, later)
        elif what == "drop":
            self.drop_parked(ledger, number, all)
        else:
            self.edit_parked(ledger, number)

    def unpark(self, ledger, number, all, later):
        positions, now = self._parked(ledger, number, all), self.now
        if not positions:
            return

        def gives(_):
            for position in positions:
                ledger.unpark(position, now)

        call = "select kirby.unpark(%s, %s, 'me')"
        self.do(self.person, lambda c: c.execute(call, [ledger.id, positions]), gives, later=later)

    def drop_parked(self, ledger, number, all):
        if not (positions := self._parked(ledger, number, all)):
            return

        def gives(_):
            for position in positions:
                ledger.entry(position).status = "dropped"

        call = "select kirby.drop_parked(%s, %s, 'me')"
        self.do(self.person, lambda c: c.execute(call, [ledger.id, positions]), gives)

    def edit_parked(self, ledger, number):
        for position in self._parked(ledger, number, False):

            def gives(_, position=position):
                ledger.entry(position).payload = "better"

            call = "select kirby.edit_parked(%s, %s, %s, 'me')"
            params = [ledger.id, position, json.dumps("better")]
            self.do(self.person, lambda c, call=call, params=params: c.execute(call, params), gives)

    def _parked(self, ledger, number, all):
        if self.person.pending:
            return []
        parked = [e.position for e in ledger.entries.values() if e.status == "parked"]
        return parked if all else parked[number % len(parked) :][:1] if parked else []

    @rule(
        what=st.sampled_from(["pause", "limit", "limit", "policy", "lanes", "floor"]),
        which=st.integers(0, 1),
        yes=st.booleans(),
        name=st.sampled_from(["max_in_flight", "rate", "key_in_flight", "key_rate"]),
        limit=st.sampled_from([None, None, 1, 2, 5]),
    )
    def manage(self, what, which, yes, name, limit):
        """What is changed for the next claim: with none of them under way."""
        if any(actor.pending for actor in self.house.actors):
            return
        ledger = self.ledgers[which % len(self.ledgers)]
        if what == "pause":
            self.pause(ledger, yes)
        elif what == "limit":
            self.limit(ledger, name, limit)
        elif what == "policy":
            self.change_policy(ledger, "block" if yes else "park")
        elif what == "lanes" and self.lanes < 6:
            self.more_lanes()
        else:
            self.raise_floor()

    def pause(self, ledger, paused):

        def gives(_):
            ledger.paused = paused

        call = "select kirby.pause_subscription(%s, %s, 'me')"
        self.do(self.person, lambda c: c.execute(call, [ledger.id, paused]), gives)

    def limit(self, ledger, name, limit):
        self.do(
            self.person,
            lambda conn: subscriptions.limit(conn, ledger.id, {name: limit}),
            lambda _: ledger.limit({name: limit}),
        )

    def change_policy(self, ledger, on_failure):
        def act(conn):
            mode = ledger.mode
            return subscriptions.subscribe(conn, self.topic, mode, mode, on_failure=on_failure)

        self.do(self.person, act, lambda _: ledger.change_policy(on_failure))

    def more_lanes(self):
        def act(conn):
            call = "select kirby.change_lanes(%s, %s, 'me')"
            position = db.scalar(conn, call, [self.topic_id, self.lanes + 1])
            conn.commit()
            conn.execute("select kirby.skip_positions(%s)", [position])

        def gives(_):
            self.lanes += 1

        self.do(self.person, act, gives)

    def raise_floor(self):
        for ledger in self.ledgers:
            call = "select kirby.raise_claim_floor(%s)"
            self.do(self.person, lambda c, call=call, id=ledger.id: c.execute(call, [id]))

    # The end

    def teardown(self):
        try:
            if self.ledgers:
                self._finish()
        finally:
            for actor in self.house.actors:
                actor.pending = None
                actor.conn.rollback()

    def _finish(self):
        for actor in self.house.actors:
            if actor.pending:
                self._end(actor)
        worker = self.workers[0]
        for ledger in self.ledgers:
            ledger.paused = False
            self.admin.execute("select kirby.pause_subscription(%s, false, 'me')", [ledger.id])
            none = dict.fromkeys(["max_in_flight", "rate", "key_in_flight", "key_rate"])
            subscriptions.limit(self.admin, ledger.id, none)
            ledger.limit(none)
            self._drain(ledger, worker)
            for call in ("unpark", "unpark"):  # a second time for those that were behind
                parked = [e.position for e in ledger.entries.values() if e.status == "parked"]
                if not parked:
                    break
                now = self.now
                self.admin.execute(f"select kirby.{call}(%s, null, 'me')", [ledger.id])
                for position in parked:
                    ledger.unpark(position, now)
                self._drain(ledger, worker)
            self._check_end(ledger)

    def _drain(self, ledger, worker):
        idle = 0
        while idle < 3:
            now = self.now
            batch = subscriptions.claim(worker.conn, ledger.id, 10)
            worker.conn.commit()
            ledger.observe(self.rows(ledger))
            if batch is None:
                idle += 1
                self.later(40.0 if idle == 1 else 0.1)
                continue
            idle = 0
            ledger.receive(worker, batch, now)
            subscriptions.settle(worker.conn, batch)
            worker.conn.commit()
            ledger.settle(ledger.hands[batch.claim_id], list(batch.positions), {}, now)
            ledger.observe(self.rows(ledger))

    def _check_end(self, ledger):
        rows = self.rows(ledger)
        assert ledger.rest(rows.now) == [], "these were lost"
        assert rows.claims == {}
        assert rows.due == {}, "something is left behind"
        left = self.admin.execute(
            "select m.position from kirby.message m join kirby.cursor c on c.lane = m.lane"
            " where m.topic_id = %s and c.subscription_id = %s and m.position > c.position",
            [self.topic_id, ledger.id],
        )
        assert left.fetchall() == []


def led_key_is_free(ledger, hand):
    """Whether its worker may have been at its first message, not at one that has to wait."""
    return ledger.entry(hand.open[0]).key not in hand.held


def how(examples, **more):
    return settings(
        max_examples=examples, stateful_step_count=40, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), print_blob=False, report_multiple_bugs=False,
        **more,
    )  # fmt: skip


LONG = os.environ.get("KIRBY_TEST_EXAMPLES")
HOW = how(int(LONG)) if LONG else how(100, derandomize=True)
FEW = how(300, derandomize=True, phases=[Phase.generate])  # to see that something is wrong


@pytest.fixture
def house(dsn):
    house = House(dsn)
    yield house
    house.close()


def run(house, how=HOW):
    class Ours(Machine):
        pass

    Ours.house = house
    run_state_machine_as_test(Ours, settings=how)


@pytest.mark.timeout(0 if LONG else 300)
def test_any_order_of_steps(house):
    run(house)
