"""What lineage, versions and rewinds cost a script. Each function has a process of its own."""

import subprocess
import sys

import kirby
from benchmarks.watch import Watch
from kirby.sdk import work

KEYS = 100


def transform(topic, to, count, lineage=True):
    """Consume, publish one for each, settle; without lineage nothing says where it comes from."""
    watch = Watch(count)
    if not lineage:
        work.Work.mark = _unmarked

    @kirby.stream(topic, to=to, name="bench")
    def handle(value):
        watch.add()
        return value

    kirby.run()
    return watch.rate


def _unmarked(unit, batch, first, last=None):
    """Work.mark as it would be if nobody asked where things come from."""
    unit._mark = len(unit._messages)
    unit._undo.clear()


def tally(topic, state, count):
    """Consume and count by key in a state; every version is kept."""
    watch, counts = Watch(count), kirby.state(state)

    @kirby.stream(topic, name="bench")
    def handle(value, message: kirby.Message):
        watch.add()
        key = str(message.position % KEYS)
        counts[key] = counts.get(key, 0) + 1

    kirby.run()
    return watch.rate


def rewind(topic):
    """Move all of its subscriptions back to the beginning, and wait for nothing."""
    command = [sys.executable, "-m", "kirby", "rewind", topic, "--to", "1", "--yes"]
    subprocess.run([*command, "--reason", "measured"], check=True, stdout=subprocess.DEVNULL)
