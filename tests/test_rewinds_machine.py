"""The machine of claims (tests/test_claims_machine.py), with rewinds and aborts among its steps.

The ledger says what has to come again, and that it comes marked, and that what was never settled
comes unmarked; whoever had something in hands is told so when he comes back.
"""

import hypothesis.strategies as st
import psycopg
import pytest
from fix_machine import Ledger
from fix_rewind import flag
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from test_claims_machine import HOW, LONG, House, Machine

BEGIN = """
    select kirby.begin_rewind(kirby.propose_rewind(
             kirby.plan_rewind(%(topic)s, %(after)s, p_only => array[%(name)s]), 'me'), 'me')
"""
RUNNING = """
    select distinct w.id from kirby.rewind w
      join kirby.rewind_lane l on l.rewind_id = w.id and l.subscription_id = %s
     where w.status = 'running' order by w.id
"""
COMING = """
    select m.position from kirby.claim c
      join kirby.message m on m.topic_id = %(topic)s and m.lane = c.lane
                          and m.position between c.first and c.last
     where c.subscription_id = %(id)s and c.rewind_id is not null
       and (c.kind = 'due' or not exists (
             select from kirby.due d where d.subscription_id = c.subscription_id
                                       and d.position = m.position))
"""
REFUSED = ("KB001", "KB004")  # nothing of it was ever handed out


class RewoundLedger(Ledger):
    """A ledger that knows which messages come again."""

    def __init__(self, *given):
        super().__init__(*given)
        self.again = set()

    def receive(self, worker, batch, now):
        for number, position in enumerate(batch.positions):
            marked = flag(batch, number) is not None
            assert marked == (position in self.again), f"{self.entries[position]} marked: {marked}"
        super().receive(worker, batch, now)

    def settle(self, hand, positions, failures, now):
        super().settle(hand, positions, failures, now)
        self.again -= {p for p in positions if self.entries[p].status == "done"}

    def rewind(self, after, claims, kept):
        """What lies above comes again; returns what was in hands of it."""
        fenced = []
        for claim_id, hand in list(self.hands.items()):
            if claims[claim_id]["last"] > after:
                del self.hands[claim_id]
                fenced.append(hand)
        for entry in self.entries.values():
            entry.waited = True  # attempts are counted anew
            if entry.position <= after or entry.position in kept:
                continue
            if entry.status in ("done", "dropped"):
                self.again.add(entry.position)
            if entry.status != "retracted":
                entry.status, entry.told, entry.not_before = "open", False, 0.0
        return fenced

    def abort(self, coming):
        """What is not in hands comes no more."""
        for position in self.again - coming:
            self.entries[position].status = "done"
        self.again &= coming


class Rewinding(Machine):
    """What may be done to a subscription, and rewinds of it."""

    kind = RewoundLedger

    @precondition(lambda self: any(ledger.entries for ledger in self.ledgers))
    @rule(
        what=st.sampled_from(["rewind", "rewind", "abort", "end"]),
        which=st.integers(0, 1),
        number=st.integers(0, 30),
    )
    def go_back(self, what, which, number):
        if any(actor.pending for actor in self.house.actors):
            return
        ledger = self.ledgers[which % len(self.ledgers)]
        if what == "rewind":
            self.rewind(ledger, number)
        elif what == "abort":
            self.abort(ledger)
        else:
            self.do(self.person, lambda conn: conn.execute("select kirby.end_rewinds()"))

    def rewind(self, ledger, number):
        positions = sorted(ledger.entries)
        if not positions:
            return
        after = positions[number % len(positions)] - 1
        before = self.rows(ledger)
        edited = self.admin.execute(
            "select position from kirby.due where subscription_id = %s"
            " and (payload is not null or reason = 'delayed')", [ledger.id],
        )  # fmt: skip
        kept = {position for (position,) in edited}
        given = {"topic": self.topic_id, "after": after, "name": ledger.mode}

        def gives(_):
            for hand in ledger.rewind(after, before.claims, kept):
                self.zombies.append((ledger, hand, hand.fence))

        try:
            self.do(self.person, lambda conn: conn.execute(BEGIN, given), gives)
        except psycopg.Error as error:
            if error.sqlstate not in REFUSED:
                raise

    def abort(self, ledger):
        running = [id for (id,) in self.admin.execute(RUNNING, [ledger.id])]
        if not running:
            return

        def act(conn):
            for id in running:
                conn.execute("select kirby.abort_rewind(%s, 'me')", [id])

        def gives(_):
            given = {"topic": self.topic_id, "id": ledger.id}
            ledger.abort({position for (position,) in self.admin.execute(COMING, given)})

        self.do(self.person, act, gives)

    def teardown(self):
        super().teardown()
        if self.ledgers:
            self.admin.execute("select kirby.end_rewinds()")
            left = "select count(*) from kirby.rewind where topic_id = %s and status = 'running'"
            assert self.admin.execute(left, [self.topic_id]).fetchone() == (0,)


@pytest.fixture
def house(dsn):
    house = House(dsn)
    yield house
    house.close()


@pytest.mark.timeout(0 if LONG else 300)
def test_any_order_of_steps_and_rewinds(house):
    class Ours(Rewinding):
        pass

    Ours.house = house
    run_state_machine_as_test(Ours, settings=HOW)
