"""What may happen to a house, and how long it takes to recover."""

import contextlib
import os
import random
import signal
import time

import psycopg

from storm.house import until

CLAIMED = "select id from kirby.claim"
LEFT = "select count(*) from kirby.claim where id = any (%s)"
EFFECTS = "select coalesce(max(position), 0) from kirby.state_mutation"
CUT = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
     where datname = current_database() and usename = 'kirby_worker'
"""
BACKENDS = """
    select pid from pg_stat_activity
     where datname = current_database() and usename = 'kirby_worker'
"""


class Storm:
    """Strikes at random, and waits until what was claimed at that moment is settled."""

    def __init__(self, house, workers, seed, patience):
        self.house, self.workers, self.patience = house, workers, patience
        self.chance = random.Random(seed)
        self.taken = {}  # by kind: seconds until there is an effect, and until all is settled

    def strike(self, kind):
        claimed = [id for (id,) in self.house.ask(CLAIMED)]
        started = time.monotonic()
        undo = getattr(self, kind)()
        [(before,)] = self.house.ask(EFFECTS)
        until(
            lambda: self.house.ask(EFFECTS) > [(before,)], f"an effect after {kind}", self.patience
        )
        first = time.monotonic() - started
        until(
            lambda: self.house.ask(LEFT, claimed) == [(0,)],
            f"what was claimed before {kind}",
            self.patience,
        )
        taken = first, time.monotonic() - started
        self.taken.setdefault(kind, []).append(taken)
        if undo:
            undo()
        self.workers.revive()
        return taken

    # Workers

    def kill_worker(self):
        self._signal(self._some(self.workers.hands), signal.SIGKILL)
        self.workers.revive()

    def kill_pool(self):
        """The parent; its children notice, and finish what they have."""
        self._signal(self._some(self.workers.parents), signal.SIGKILL)
        self.workers.revive()

    def stop_worker(self):
        self._signal(self._some(self.workers.parents), signal.SIGTERM)

    def freeze(self):
        """One stands still until others have what it held; then it goes on, and must not write."""
        victim = self._some(self.workers.hands)
        self._signal(victim, signal.SIGSTOP)
        return lambda: self._signal(victim, signal.SIGCONT)

    # Connections and the server

    def cut(self):
        self.house.ask(CUT)

    def kill_backend(self):
        """One of its processes dies, so PostgreSQL throws everybody out and recovers."""
        pids = [pid for (pid,) in self.house.ask(BACKENDS)]
        self._signal(self._some(pids), signal.SIGKILL)

    def crash(self):
        self._end_server(signal.SIGKILL)

    def immediate(self):
        self._end_server(signal.SIGQUIT)

    def _end_server(self, how):
        postgres = self.house.postgres
        os.kill(postgres.pid, how)
        until(lambda: not postgres.alive, "the end of the server")
        postgres.start()

    def _some(self, pids):
        return self.chance.choice(pids) if pids else None

    @staticmethod
    def _signal(pid, how):
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, psycopg.Error):
                os.kill(pid, how)


KINDS = (
    "kill_worker", "kill_worker", "kill_pool", "stop_worker", "freeze", "cut", "kill_backend",
    "crash", "immediate",
)  # fmt: skip
PROMISED = 10.0  # seconds
