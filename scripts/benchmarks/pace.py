"""Sending at a rate, to somebody who is there."""

import random
import time

from benchmarks.watch import Tally

PATIENCE = 30  # seconds for a receiver to start


def knock(tally, send):
    """Send until the receiver has counted one, then wait for the rest of them to be gone."""
    tally, deadline = Tally(tally), time.monotonic() + PATIENCE
    while not tally.count:
        if time.monotonic() > deadline:
            raise TimeoutError("nobody received anything")
        send()
        time.sleep(0.1)
    time.sleep(0.3)


def paced(count, pause, send):
    """Send ``count`` times, ``pause`` seconds apart on average and never in step with anything."""
    due = time.monotonic()
    for _ in range(count):
        due += pause * random.uniform(0.5, 1.5)
        time.sleep(max(0, due - time.monotonic()))
        send()
