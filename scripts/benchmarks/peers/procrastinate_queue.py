"""Procrastinate. Each function has a process of its own; workers end with the queue."""

import asyncio
import time

import procrastinate

from benchmarks import payloads
from benchmarks.watch import Tally


def connect(dsn):
    """An application whose one task does nothing; async, as its guide advises for speed."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))

    @app.task(name="noop")
    async def noop(value, tally):
        tallies.setdefault(tally, Tally(tally)).add()

    tallies = {}
    return app, noop


def prepare(dsn):
    app, _ = connect(dsn)

    async def apply():
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    asyncio.run(apply())


def enqueue(dsn, queue, count, batch, tally=""):
    """Defer tasks ``batch`` at a time: one INSERT each."""
    app, noop = connect(dsn)
    items = [{"value": value, "tally": tally} for value in payloads.values(count)]

    async def send():
        async with app.open_async():
            task = noop.configure(queue=queue)
            started = time.monotonic()
            for page in payloads.pages(items, batch):
                if batch == 1:
                    await task.defer_async(**page[0])
                else:
                    await task.batch_defer_async(*page)
            return count / (time.monotonic() - started)

    return asyncio.run(send())


def work(dsn, queue, concurrency):
    """A worker that takes tasks until there are none. Finished ones stay in its table."""
    app, _ = connect(dsn)

    async def serve():
        async with app.open_async():
            await app.run_worker_async(
                queues=[queue], concurrency=concurrency, wait=False, listen_notify=False
            )

    asyncio.run(serve())
