"""scripts/bench: measure, and show what came out."""

import argparse
import dataclasses
import importlib
import json
import os
import signal
import sys
import time
import traceback

from benchmarks import machine, page, rows, table
from benchmarks.bench import FULL, QUICK, Bench
from benchmarks.house import House
from kirby.core import db

SUBJECTS = (
    "publish", "redis_streams", "pgq", "pipeline", "latency", "tasks", "pinned",
    "memory", "growth", "recovery", "time_travel", "runs", "schedules",
)  # fmt: skip


def main():
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
    load = os.getloadavg()[0]
    house = House()
    try:
        started = time.monotonic()
        bench = Bench(house, options.size)
        found = [row for name in options.only or SUBJECTS for row in measure(bench, name)]
        seconds = round(time.monotonic() - started)
        facts = machine.facts(house, options.size, options.mode, seconds, load)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        house.close()
    if options.json:
        print(json.dumps(rows.document(found, **facts), indent=1, ensure_ascii=False))
    else:
        table.show(found, facts)
    if options.write:
        page.write(found, facts)
    sys.exit(any(row.kirby.median is None for row in found))


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Kirby beside its peers and beside the limits."
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few minutes: smaller counts, 3 rounds"
    )
    parser.add_argument(
        "--only", nargs="+", choices=SUBJECTS, metavar="NAME", help=" ".join(SUBJECTS)
    )
    parser.add_argument("--runs", action="store_true", help="only what runs cost")
    parser.add_argument(
        "--memory-runs", type=int, metavar="N", help="watch a supervisor's memory over N runs"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--write", action="store_true", help="refresh docs/benchmarks.md and .svg")
    parser.add_argument("--rounds", type=int, help="instead of 5, or 3 with --quick")
    parser.add_argument("--scale", type=float, help="multiply all counts, to try a change")
    options = parser.parse_args(arguments)
    options.mode = "quick" if options.quick else "full"
    if options.runs:
        options.only = [*(options.only or []), "runs"]
    given = {"rounds": options.rounds, "scale": options.scale, "runs": options.memory_runs}
    changed = {name: value for name, value in given.items() if value is not None}
    options.size = dataclasses.replace(QUICK if options.quick else FULL, **changed)
    return options


def measure(bench, name):
    """The rows of one subject; if it cannot be measured, the last one says why."""
    bench.say(f"{name} …")
    subject = importlib.import_module(f"benchmarks.subjects.{name}")
    found = []
    try:
        for row in subject.measure(bench):
            bench.say(f"  {table.line(row)}")
            found.append(row)
    except Exception as error:  # the other subjects can still be measured
        traceback.print_exc()
        found.append(rows.Row(subject.GROUP, name, rows.Figure(missing=db.one_line(error))))
    return found


if __name__ == "__main__":
    main()
