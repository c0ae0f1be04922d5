"""Every input has its effect exactly once, in topic and state, whatever is killed meanwhile."""

import collections
import random
import signal

import psycopg
import pytest
from fix_runs import Runs
from fix_sdk import house_fixture, scripts_fixture  # noqa: F401

from kirby.server.paths import MIGRATIONS

WORKERS = 3
KEYS = 10
WORKER = """
    import random, time
    loop.FIRST_LIMIT = 8
    loop.Server._adapt = lambda *_: None  # so that batches are settled in parts
    loop.POLL = 0.2
    sums = kirby.state("sums")

    @kirby.stream("inputs", to="outputs", max_attempts=100)
    def handle(value, message):
        row = sums.get(message.key, {"count": 0, "sum": 0})
        until = time.monotonic() + float(os.environ["WORK"])  # so that it can be interrupted
        while time.monotonic() < until:
            pass
        sums[message.key] = {"count": row["count"] + 1, "sum": row["sum"] + value}
        if random.random() < float(os.environ["FAILING"]):
            kirby.topic("outputs").publish(value)  # which must leave nothing
            raise ValueError("by chance")
        return value

    kirby.run()
"""
UNSETTLED = """
    select count(*)
      from kirby.message m
      join kirby.topic t on t.id = m.topic_id and t.name = 'inputs'
      left join kirby.subscription s on s.topic_id = t.id
      left join kirby.cursor c on c.subscription_id = s.id and c.lane = m.lane
     where m.position > coalesce(c.position, 0)
        or exists (select from kirby.claim l
                    where l.subscription_id = s.id and l.lane = m.lane
                      and m.position between l.first and l.last)
        or exists (select from kirby.due d
                    where d.subscription_id = s.id and d.position = m.position)
"""


class Race:
    """Workers that are struck at random while messages come in."""

    def __init__(self, house, start, until, *, seed, blows, work, failing=0.0):
        self.house, self.until = house, until
        self.start, self.work, self.failing = start, work, failing
        self.chance = random.Random(seed)
        self.blows = [getattr(self, blow) for blow in blows]
        self.runs = Runs(house.conn)
        self.published = 0
        self.workers = [self.worker() for _ in range(WORKERS)]

    def worker(self):
        run_id = self.runs.start("")
        self.house.give_token(f"of {run_id}", "dev", run_id)
        environ = {"KIRBY_TOKEN": f"of {run_id}", "LEASE": "0.6"}
        environ |= {"WORK": str(self.work), "SLICE": str(self.work)}
        environ |= {"FAILING": str(self.failing)}
        script = self.start(WORKER, **environ)
        script.run_id = run_id
        return script

    def publish(self, count):
        with psycopg.connect(self.house.dsn) as conn:
            for number in range(self.published, self.published + count):
                conn.execute("select kirby.publish('inputs', to_jsonb(%s::int), key => %s)",
                             [number, str(number % KEYS)])  # fmt: skip
        self.published += count

    def victim(self):
        """One that is in the middle of something; if none is, any."""
        holders = self.house.ask("select distinct run_id from kirby.claim")
        holding = [each for each in self.workers if (each.run_id,) in holders]
        return self.chance.choice(holding or self.workers)

    def kill(self):
        victim = self.victim()
        victim.kill()
        self.workers[self.workers.index(victim)] = self.worker()

    def freeze(self):
        """Stop one until others have taken over what it held; then it comes back."""
        victim = self.victim()
        victim.signal(signal.SIGSTOP)
        held = "select from kirby.claim where run_id = %s"
        self.until(lambda: self.rest() < 0 or not self.house.ask(held, victim.run_id))
        victim.signal(signal.SIGCONT)

    def cut(self):
        self.house.terminate()

    def rest(self):
        """How many messages are not settled; fails if a worker gave up."""
        for worker in self.workers:
            assert worker.process.poll() is None, worker.end()
        return self.house.value(UNSETTLED)

    def strike(self, times, portion, enough=lambda: False):
        """Strike that often, each time in the middle of a portion of work."""
        for _ in range(times):
            self.publish(portion)
            self.until(lambda: enough() or self.rest() <= portion // 2, timeout=60)
            if enough():
                return
            self.chance.choice(self.blows)()
        self.until(lambda: enough() or self.rest() == 0, timeout=60)

    def faults(self):
        """What is not exactly once; empty if all is well."""
        outputs = self.house.values("outputs")
        faults = [f"{n} twice" for n, count in collections.Counter(outputs).items() if count > 1]
        faults += [f"{n} missing" for n in range(self.published) if n not in outputs]
        entries = dict(self.house.ask("select key, value from state_dev.sums"))
        for key in range(KEYS):
            mine = [number for number in outputs if number % KEYS == key]
            inputs = list(range(key, self.published, KEYS))
            if mine != inputs:
                faults.append(f"key {key} is out of order: {mine}")
            if entries.get(str(key)) != {"count": len(inputs), "sum": sum(inputs)}:
                faults.append(f"state {key} is {entries.get(str(key))}")
        return faults

    def twice(self):
        outputs = self.house.values("outputs")
        return len(outputs) > len(set(outputs))


@pytest.fixture
def race(house, scripts, until):
    return lambda **how: Race(house, scripts, until, **how)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_input_has_its_effect_exactly_once(race, seed):
    contest = race(seed=seed, blows=["kill", "freeze", "cut"], work=0.003)

    contest.strike(12, portion=40)

    assert contest.published == 480
    assert contest.faults() == []


RETRY_SOON = """
    create or replace function kirby.retry_pause(p_attempt integer) returns interval
      language sql as $$ select make_interval(secs => random() * 0.05) $$
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_with_failing_handlers_too_and_the_order_of_each_key(house, race, seed):
    house.conn.execute(RETRY_SOON)
    contest = race(seed=seed, blows=["kill", "freeze", "cut"], work=0.002, failing=0.15)

    contest.strike(8, portion=60)

    assert contest.published == 480
    assert contest.faults() == []
    assert house.ask("select * from kirby.due") == []


# What the tests above are worth: wrong functions, laid into the database, and what they say.
MUTANTS = {
    "a settle that does not look whose claim it is": (
        "settle",
        {" and c.fence = p_fence": "", "elsif p_upto < v_claim.first": "elsif false"},
        "freeze",
        "twice",
    ),
    "a settled part that is delivered again": (
        "finish",
        {"set first = p_upto + 1, upto": "set upto"},
        "kill",
        "twice",
    ),
    "a cursor that does not move with the claim": (
        "take_range",
        {"set position = v_range.last": "set position = position"},
        "kill",
        "twice",
    ),
    "an expired claim that is dropped": (
        "take_expired",
        {"begin\n": "begin\n  delete from kirby.claim e where e.lease_until <= kirby.now();\n"},
        "kill",
        "missing",
    ),
}


def mutated(name, changes):
    function = (MIGRATIONS / "functions" / f"{name}.sql").read_text()
    for old, new in changes.items():
        assert old in function
        function = function.replace(old, new)
    return function


@pytest.mark.parametrize("mutant", MUTANTS)
def test_it_would_be_noticed(house, race, mutant):
    name, changes, blow, fault = MUTANTS[mutant]
    house.conn.execute(mutated(name, changes))
    contest = race(seed=1, blows=[blow], work=0.02)

    contest.strike(12, portion=40, enough=contest.twice)

    assert [found for found in contest.faults() if fault in found]
