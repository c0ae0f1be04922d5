"""PgQueuer, over psycopg or asyncpg. Every function runs in a process of its own."""

import asyncio
import contextlib
import json
import time
from datetime import timedelta

import asyncpg
import psycopg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, PsycopgDriver
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from benchmarks import payloads
from benchmarks.watch import Tally

BATCH = 100


@contextlib.asynccontextmanager
async def connect(dsn, driver):
    if driver == "asyncpg":
        conn = await asyncpg.connect(dsn)
        yield AsyncpgDriver(conn)
        await conn.close()
    else:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            yield PsycopgDriver(conn)


def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def prepare(dsn):
    """Its tables, with the durability and the autovacuum settings that it advises."""

    async def install():
        async with connect(dsn, "asyncpg") as driver:
            await Queries(driver).install()
            await Queries(driver).optimize_autovacuum()

    run(install())


def enqueue(dsn, driver, queue, count, batch):
    """Put jobs into the queue, ``batch`` at a time: one INSERT each."""
    items = [payloads.dumps(value).encode() for value in payloads.values(count)]

    async def send():
        async with connect(dsn, driver) as db:
            queries = Queries(db)
            started = time.monotonic()
            for page in payloads.pages(items, batch):
                if batch == 1:
                    await queries.enqueue(queue, page[0])
                else:
                    await queries.enqueue([queue] * len(page), page, [0] * len(page))
            return count / (time.monotonic() - started)

    return run(send())


def work(dsn, driver, queue, tally):
    """A worker that takes batches of 100 until there are no jobs; its log keeps what was done."""
    done = Tally(tally)

    async def serve():
        async with connect(dsn, driver) as db:
            queuer = PgQueuer(db)

            @queuer.entrypoint(queue)
            async def noop(job):
                json.loads(job.payload)
                done.add()

            await queuer.run(
                dequeue_timeout=timedelta(seconds=1),
                batch_size=BATCH,
                mode=QueueExecutionMode.drain,
            )

    run(serve())
