"""Tasks that do nothing: sent one by one and in bulk, drained by one and two processes."""

import signal
import sys
import time

from benchmarks import children
from benchmarks.rows import Row

DRAIN, ENQUEUE = "Tasks: drain", "Tasks: enqueue"
PATIENCE = 60  # seconds for a worker to do its share
PROCESSES = (1, 2)
ON_REDIS, ON_RABBITMQ = "Celery on Redis", "Celery on RabbitMQ"
CONCURRENCY = 5  # of a Procrastinate worker: the fastest here
BULK = 1000


def measure(bench):
    drain = {}
    for processes in PROCESSES:
        for results in (False, True):
            drain |= {
                f"kirby {processes} {results}": Kirby(bench, processes, results),
                f"{ON_REDIS} {processes} {results}": Celery(bench, processes, results),
            }
        drain |= {
            f"{ON_RABBITMQ} {processes}": Celery(bench, processes, broker="rabbitmq"),
            f"Procrastinate {processes}": Procrastinate(bench, processes),
            f"PgQueuer, asyncpg {processes}": PgQueuer(bench, processes, "asyncpg"),
        }
    drain["PgQueuer, psycopg 1"] = PgQueuer(bench, 1, "psycopg")
    figures = bench.rounds(drain)
    yield from drains(figures)
    yield from enqueues(bench, figures, drain)


def drains(figures):
    for processes in PROCESSES:
        name = "drain, 1 process" if processes == 1 else f"drain, {processes} processes"

        def row(peer, target, results=False, key=None, name=name, processes=processes):
            kept = ", results kept" if results else ""
            return Row(
                DRAIN, name + kept, figures[f"kirby {processes} {results} drain"],
                figures[f"{key or peer} {processes}{f' {results}' * (peer == ON_REDIS)} drain"],
                peer=peer, target=target,
            )  # fmt: skip

        yield row(ON_REDIS, 30)
        yield row(ON_REDIS, 30, results=True)
        yield row(ON_RABBITMQ, 8)
        yield row("Procrastinate", 50)
        yield row("PgQueuer, asyncpg", 3)
        if processes == 1:
            yield row("PgQueuer, psycopg", 3)


def enqueues(bench, figures, drain):
    """Celery has no bulk, so its one figure stands in both; the others' are of filling queues."""

    def each(queue, count, *more):
        return lambda: queue.enqueue(bench.house.fresh("each"), bench.count(count), *more)

    one = bench.rounds({
        "kirby": each(drain["kirby 1 False"], 1500),
        ON_REDIS: each(drain[f"{ON_REDIS} 1 False"], 1500),
        ON_RABBITMQ: each(drain[f"{ON_RABBITMQ} 1"], 800),
        "Procrastinate": each(drain["Procrastinate 1"], 700, 1),
        "PgQueuer, asyncpg": each(drain["PgQueuer, asyncpg 1"], 1500, 1),
    })  # fmt: skip
    bulk = {peer: figures[f"{peer} 1 enqueue"] for peer in ("Procrastinate", "PgQueuer, asyncpg")}
    for peer in (ON_REDIS, ON_RABBITMQ, "Procrastinate", "PgQueuer, asyncpg"):
        yield Row(ENQUEUE, "enqueue one by one", one["kirby"], one[peer], peer=peer)
    for peer in (ON_REDIS, ON_RABBITMQ, "Procrastinate", "PgQueuer, asyncpg"):
        yield Row(
            ENQUEUE, f"enqueue in bulk of {BULK:,}", figures["kirby 1 False enqueue"],
            bulk.get(peer, one[peer]), peer=peer,
            note="" if peer in bulk else "Celery sends one by one in any case",
        )  # fmt: skip


class Queue:
    """One way to run tasks: calling it fills a queue of its own and drains it."""

    tasks = 1000

    def __init__(self, bench, processes):
        self.bench, self.processes = bench, processes
        self.count = bench.count(self.tasks * processes)

    def __call__(self):
        queue, tally = self.bench.house.fresh("queue"), self.bench.tally()
        sent = self.fill(queue, tally)
        workers = self.start(queue, tally)
        try:
            await_count(tally, self.count, workers)
        finally:
            for worker in workers:  # nothing of this queue is needed any more
                children.stop(worker, signal.SIGKILL)
        return {"enqueue": sent, "drain": tally.rate}


def await_count(tally, count, workers):
    """Return when all was done. Raises Failed when all workers gave up, or after a minute."""
    deadline = time.monotonic() + PATIENCE
    while (done := tally.count) < count:
        dead = all(worker.poll() is not None for worker in workers)
        if (dead and tally.count < count) or time.monotonic() > deadline:
            said = children.last_words(workers[0])
            raise children.Failed(f"only {done} of {count} were done: {said}")
        time.sleep(0.02)


class Kirby(Queue):
    tasks = 25_000

    def __init__(self, bench, processes, results):
        super().__init__(bench, processes)
        self.results = results
        self.dsn = shared(bench, "kirby", bench.house.kirby)

    def env(self, queue, tally=None):
        return children.environ(
            KIRBY_DSN=self.dsn, BENCH_TASK=queue, BENCH_TALLY=str(tally.path if tally else ""),
            BENCH_RESULTS="yes" if self.results else "no",
        )  # fmt: skip

    def enqueue(self, queue, count):
        return self.bench.call("kirby_tasks", "enqueue_each", self.env(queue), count=count)

    def fill(self, queue, tally):
        env = self.env(queue, tally)
        return self.bench.call("kirby_tasks", "enqueue", env, count=self.count)

    def start(self, queue, tally):
        command = [sys.executable, "-m", "kirby", "worker", "benchmarks.peers.kirby_tasks"]
        command += ["--processes", self.processes]
        return [children.spawn(command, self.bench.log, self.env(queue, tally))]


class Celery(Queue):
    """As many workers as processes, each with the solo pool: the fastest here."""

    tasks = 1000

    def __init__(self, bench, processes, results=False, broker="redis"):
        self.tasks = 2500 if broker == "rabbitmq" else self.tasks
        super().__init__(bench, processes)
        self.results, self.broker = results, broker

    def env(self, queue, tally=None, confirm=False):
        port = getattr(self.bench.house, self.broker)()
        scheme = "redis" if self.broker == "redis" else "amqp"
        given = {"BENCH_BROKER": f"{scheme}://127.0.0.1:{port}//", "BENCH_QUEUE": queue}
        if self.results:
            given["BENCH_RESULTS"] = f"redis://127.0.0.1:{port}/1"
        if confirm:
            given["BENCH_CONFIRM"] = "yes"
        return children.environ(**given, BENCH_TALLY=str(tally.path if tally else ""))

    def enqueue(self, queue, count):
        """What the broker has confirmed, where it confirms."""
        env = self.env(queue, confirm=True)
        return self.bench.call("celery_queue", "enqueue", env, count=count)

    def fill(self, queue, tally):
        return self.bench.call("celery_queue", "enqueue", self.env(queue, tally), count=self.count)

    def start(self, queue, tally):
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery_queue", "worker"]
        command += ["--pool", "solo", "--queues", queue, "--loglevel", "ERROR"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        env = self.env(queue, tally)
        return [
            children.spawn([*command, "--hostname", f"{number}@{queue}"], self.bench.log, env)
            for number in range(self.processes)
        ]


class Procrastinate(Queue):
    tasks = 600

    def __init__(self, bench, processes):
        super().__init__(bench, processes)
        self.dsn = shared(bench, "procrastinate", lambda name: prepared(bench, name))

    def enqueue(self, queue, count, batch, tally=""):
        return self.bench.call(
            "procrastinate_queue", "enqueue", dsn=self.dsn, queue=queue, count=count, batch=batch,
            tally=tally,
        )  # fmt: skip

    def fill(self, queue, tally):
        return self.enqueue(queue, self.count, BULK, str(tally.path))

    def start(self, queue, tally):
        given = {"dsn": self.dsn, "queue": queue, "concurrency": CONCURRENCY}
        return [
            self.bench.start("procrastinate_queue", "work", **given) for _ in range(self.processes)
        ]


class PgQueuer(Queue):
    tasks = 10_000

    def __init__(self, bench, processes, driver):
        super().__init__(bench, processes)
        self.driver = driver
        self.dsn = shared(bench, "pgqueuer", lambda name: prepared(bench, name))

    def enqueue(self, queue, count, batch):
        return self.bench.call(
            "pgqueuer_queue", "enqueue", dsn=self.dsn, driver=self.driver, queue=queue,
            count=count, batch=batch,
        )  # fmt: skip

    def fill(self, queue, tally):
        return self.enqueue(queue, self.count, BULK)

    def start(self, queue, tally):
        given = {"dsn": self.dsn, "driver": self.driver, "queue": queue, "tally": str(tally.path)}
        return [self.bench.start("pgqueuer_queue", "work", **given) for _ in range(self.processes)]


def shared(bench, name, make):
    """The database of a peer; made by whoever needs it first."""
    known = bench.house.databases
    if name not in known:
        known[name] = make(f"tasks_{name}")
    return known[name]


def prepared(bench, name):
    dsn = bench.house.database(name)
    bench.call(f"{name.removeprefix('tasks_')}_queue", "prepare", dsn=dsn)
    return dsn
