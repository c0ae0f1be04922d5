"""Kirby's tasks: ``kirby worker`` imports this module; tasks are sent by a process of its own.

The name of the task and the tally of a measurement come by environment variables.
"""

import os
import time

import kirby
from benchmarks import payloads
from benchmarks.watch import Tally

tally = Tally(os.environ.get("BENCH_TALLY", ""))


@kirby.task(
    name=os.environ.get("BENCH_TASK", "noop"), result=os.environ.get("BENCH_RESULTS") == "yes"
)
def noop(value):
    tally.add()


def enqueue_each(count):
    """``delay`` in a loop: one commit each."""
    items = payloads.values(count)
    for item in items[:3]:
        noop.delay(item)
    started = time.monotonic()
    for item in items:
        noop.delay(item)
    return count / (time.monotonic() - started)


def enqueue(count):
    """``map``: a thousand a commit."""
    pages = payloads.pages(payloads.values(count), 1000)
    noop.map(pages[0][:3])
    started = time.monotonic()
    noop.map(pages[0][3:])
    for page in pages[1:]:
        noop.map(page)
    return (count - 3) / (time.monotonic() - started)
