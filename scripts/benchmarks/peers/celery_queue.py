"""Celery on Redis or RabbitMQ. The worker is its own command; another process sends tasks.

The broker, the results and the tally of a measurement come by environment variables, since Celery's
command imports this module by itself.
"""

import os
import time

import celery

from benchmarks import payloads
from benchmarks.watch import Tally

BROKER, RESULTS, TALLY = "BENCH_BROKER", "BENCH_RESULTS", "BENCH_TALLY"

app = celery.Celery("bench", broker=os.environ.get(BROKER), backend=os.environ.get(RESULTS))
app.conf.update(
    task_ignore_result=RESULTS not in os.environ,
    worker_prefetch_multiplier=128,  # what its guide advises for many short tasks
    broker_transport_options={"confirm_publish": "BENCH_CONFIRM" in os.environ},  # RabbitMQ's
    broker_connection_retry_on_startup=True,
    task_default_queue=os.environ.get("BENCH_QUEUE", "bench"),
)
tally = Tally(os.environ.get(TALLY, ""))


@app.task
def noop(value):
    tally.add()


def enqueue(count):
    """``delay`` in a loop: Celery has nothing that sends many at once."""
    items = payloads.values(count)
    noop.delay(items[0])
    started = time.monotonic()
    for item in items[1:]:
        noop.delay(item)
    return (count - 1) / (time.monotonic() - started)
