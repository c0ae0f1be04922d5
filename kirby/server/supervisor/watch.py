"""See to the processes of runs: how they end, what they may take and use, what they leave."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Collection, Iterable

from kirby.server.supervisor.process import Process
from kirby.server.supervisor.pump import Pump
from kirby.server.supervisor.run import Run
from kirby.server.supervisor.strays import Strays

NO_PIDFD = 0.05  # seconds between two looks at a process whose end nothing tells


class Watch:
    """``look`` at the runs under way in every pass. `grace`: seconds instead of each run's own.

    `clear` is called for a run that was disowned and has ended, `say` with a line for a run's log.
    """

    def __init__(
        self,
        pump: Pump,
        strays: Strays,
        *,
        say: Callable[[Run, str], None],
        clear: Callable[[int], None],
        grace: float | None,
    ) -> None:
        self._pump = pump
        self._strays = strays
        self._say, self._clear = say, clear
        self._grace = grace
        self._dying: list[Run] = []  # not ours any more, and killed

    def look(self, runs: Iterable[Run]) -> None:
        """See which processes ended; end those whose time is over, kill those that did not."""
        self._strays.alive()
        now = time.monotonic()
        under_way = [(each, each.process) for each in runs if each.process and not each.end]
        for each, process in under_way:
            self._look_at(each, process, now)
        for each in [each for each in self._dying if each.process and each.process.ended()]:
            self._dying.remove(each)
            self._over(each)
            self._clear(each.id)
        for each, process in under_way:
            if not each.end and process.meter.sample_at <= now:
                process.meter.sample()

    def _look_at(self, run: Run, process: Process, now: float) -> None:
        if exit := process.ended():
            run.end, run.kill_at = run.end_of(exit), 0.0
            self._over(run)
        elif run.kill_at and run.kill_at <= now:
            run.kill()
        elif why := run.overdue(now, self._pump.heard_at(run.id)):
            run.timed_out = why
            self._say(run, f"{why}: it is asked to end")
            self.end(run)

    def _over(self, run: Run) -> None:
        self._pump.finish(run.id)
        self._strays.ended(run.id)

    def end(self, run: Run) -> None:
        """Ask it to end, and kill it if it has not within its grace."""
        run.ask_to_end(run.spec.grace if self._grace is None else self._grace)

    def disown(self, run: Run) -> None:
        """It is not ours any more: its process is killed, and what it had written is not read."""
        if run.process and not run.end:
            run.process.signal(signal.SIGKILL)
            self._dying.append(run)

    def processes(self, runs: Iterable[Run]) -> list[Process]:
        """Those that have not ended, of these runs and of those that were disowned."""
        found = [each for each in runs if not each.end]
        return [each.process for each in [*found, *self._dying] if each.process]

    def due_at(self, runs: Collection[Run]) -> float:
        """When to look again, on the monotonic clock."""
        under_way = [each for each in runs if each.process and not each.end]
        dues = [each.due_at(self._pump.heard_at(each.id)) for each in under_way]
        dues += [each.process.meter.sample_at for each in under_way if each.process]
        if any(child.fileno() < 0 for child in self.processes(runs)):
            dues.append(time.monotonic() + NO_PIDFD)
        return min(dues, default=math.inf)
