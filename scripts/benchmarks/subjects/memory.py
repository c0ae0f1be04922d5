"""The memory of a worker that does tasks, and whether it stays what it was."""

import statistics
import time
from pathlib import Path

from benchmarks import children
from benchmarks.rows import Row
from benchmarks.subjects.tasks import ON_REDIS, Celery, Kirby, Queue

GROUP = "Memory"
LOOK = 0.05  # seconds between looks
MEGABYTE = 2**20


def measure(bench):
    kirby = Watched(Kirby(bench, 1, results=True), bench.count(100_000))
    celery = Watched(Celery(bench, 1, results=True), bench.count(5000))
    figures = bench.rounds({"kirby": kirby, "celery": celery}, most=1)
    yield Row(
        GROUP, f"worker after {kirby.count:,} tasks, all its processes", figures["kirby last"],
        figures["celery last"], peer=f"{ON_REDIS}, after {celery.count:,}", unit="MB",
        better="lower",
    )  # fmt: skip
    yield Row(
        GROUP, "worker, last quarter of them", figures["kirby last"], figures["kirby first"],
        peer="itself, first quarter", unit="MB", target=1.1, better="lower",
    )  # fmt: skip


class Watched:
    """Drains a queue of so many tasks, and looks at the memory meanwhile."""

    def __init__(self, queue: Queue, count):
        self.queue, self.count = queue, count
        queue.count = count

    def __call__(self):
        name, tally = self.queue.bench.house.fresh("queue"), self.queue.bench.tally()
        self.queue.fill(name, tally)
        [worker] = self.queue.start(name, tally)
        quarters = [[], [], [], []]
        try:
            while (done := tally.count) < self.count and worker.poll() is None:
                if done:
                    quarters[min(3, 4 * done // self.count)].append(resident(worker.pid))
                time.sleep(LOOK)
            quarters[3].append(resident(worker.pid))
        finally:
            children.stop(worker)
        if tally.count < self.count:
            raise children.Failed(children.last_words(worker))
        first, *_, last = [statistics.mean(seen) if seen else 0 for seen in quarters]
        return {"first": first / MEGABYTE, "last": last / MEGABYTE}


def resident(pid):
    """Bytes that a process and all below it hold."""
    return sum(own(each) for each in family(pid))


def family(pid):
    found = [pid]
    for each in found:
        for tasks in Path(f"/proc/{each}/task").glob("*/children"):
            found += [int(child) for child in tasks.read_text().split()]
    return found


def own(pid):
    """Bytes that a process holds."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has just ended
    return 0
