"""Consume and acknowledge in batches, beside PgQ, both on the same PostgreSQL 15."""

import functools
from pathlib import Path

from benchmarks.house import BESIDE_PGQ, Missing
from benchmarks.rows import Row
from benchmarks.subjects.redis_streams import GROUP, drain

EXTENSION = Path("/usr/share/postgresql/15/extension/pgq.control")


def measure(bench):
    env = bench.kirby(bench.house.kirby("pgq_kirby", BESIDE_PGQ))
    dsn = bench.house.database("pgq", BESIDE_PGQ)
    for batch, count in ((100, 40_000), (500, 60_000)):
        count = bench.count(count, 500)
        figures = bench.rounds({
            "kirby": functools.partial(drain, bench, env, count, batch),
            "pgq": functools.partial(take, bench, dsn, count, batch),
        })  # fmt: skip
        yield Row(
            GROUP, f"consume and acknowledge in batches of {batch}", figures["kirby"],
            figures["pgq"], peer="PgQ", target=1,
        )  # fmt: skip


def take(bench, dsn, count, batch):
    if not EXTENSION.exists():
        raise Missing("postgresql-15-pgq3 is not installed")
    queue = bench.house.fresh("queue")
    version = bench.call("pgq", "fill", dsn=dsn, queue=queue, count=count, batch=batch)
    bench.house.versions["PgQ"] = version
    return bench.call("pgq", "consume", dsn=dsn, queue=queue, count=count)
