"""A stream whose handler takes ten milliseconds, for ``kirby worker`` to serve."""

import os
import time

import kirby


@kirby.stream(os.environ.get("BENCH_TOPIC", "slow"), name="slow")
def handle(value):
    time.sleep(0.01)
