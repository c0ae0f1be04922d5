"""Strike a pipeline for some minutes, then look whether every input had its effect exactly once."""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from functools import partial

from storm.blows import KINDS, PROMISED, Storm
from storm.faults import BROKEN, broken, doubled, faults
from storm.house import House, Producer, Stuck, Workers, until

say = partial(print, flush=True)
LEASE = 4.0  # seconds; a worker that stands still for longer loses what it has


def run(seconds, seed, *, wrong=None, pools=2, plain=1, say=say):
    """What is wrong at the end, and by kind of blow the seconds of every recovery."""
    with House() as house:
        if wrong:
            with house.admin() as conn:
                conn.execute(broken(wrong))
        workers = Workers(house, pools=pools, plain=plain, lease=LEASE, work=0.002, failing=0.03)
        producer = Producer(house, ahead=300)
        producer.start()
        patience = 8 if wrong else 60  # what is broken may never end
        storm = Storm(house, workers, seed, patience)
        try:
            until(lambda: house.values("receipts"), "the first receipt")
            with contextlib.suppress(Stuck) if wrong else contextlib.nullcontext():
                _rage(house, storm, producer, seconds, say, until_doubled=bool(wrong))
            producer.end()
            with contextlib.suppress(Stuck) if wrong else contextlib.nullcontext():
                until(lambda: house.unsettled() == 0, "the end of the work", patience)
            bad = workers.stop()
        except BaseException:
            workers.kill()
            producer.end()
            tell_log(house)
            raise
        found = faults(house, producer.published)
        if not wrong:
            found += _left(house) + bad
        say(f"{producer.published} inputs, {sum(map(len, storm.taken.values()))} blows")
        return found, storm.taken


def _rage(house, storm, producer, seconds, say, *, until_doubled):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not (until_doubled and doubled(house)):
        some = producer.published + 1
        until(lambda some=some: producer.published >= some, "another input", storm.patience)
        time.sleep(storm.chance.uniform(0, 0.5))
        kind = storm.chance.choice(KINDS)
        first, all = storm.strike(kind)
        left = max(0, ends - time.monotonic())
        say(f"{left:5.0f} s left   {kind:<12} effects after {first:5.2f} s, settled {all:5.2f} s")


def _left(house):
    """What must not be left when all is done, and what `kirby db verify` finds."""
    rows = house.ask("select position, reason from kirby.due")
    found = [f"due: {position} is {reason}" for position, reason in rows]
    verify = subprocess.run(
        [sys.executable, "-m", "kirby", "db", "verify"],
        env={**os.environ, "KIRBY_DSN": house.dsn}, capture_output=True, text=True,
    )  # fmt: skip
    if verify.returncode:
        found += [
            f"kirby db verify: {line}" for line in (verify.stdout + verify.stderr).splitlines()
        ]
    return found


def tell_log(house):
    log = (house.folder / "workers.log").read_text(errors="replace").splitlines()
    print("\n".join(log[-40:]), file=sys.stderr)


def main(arguments=None):
    parser = argparse.ArgumentParser("scripts/chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--broken", choices=[*BROKEN, "list"], help="a wrong function")
    given = parser.parse_args(arguments)
    if given.broken == "list":
        print("\n".join(BROKEN))
        return 0
    seed = random.randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    try:
        found, taken = run(given.seconds, seed, wrong=given.broken)
    except Stuck as error:
        print(f"stuck: {error}")
        return 1
    return judge(found, taken, given.broken)


def judge(found, taken, wrong):
    print("seconds until there are effects, and until all is settled: median, worst")
    late = []
    for kind, seconds in sorted(taken.items()):
        first, all = (sorted(each) for each in zip(*seconds, strict=True))
        figures = [first[len(first) // 2], first[-1], all[len(all) // 2], all[-1]]
        print(f"  {kind:<12}" + "".join(f"{each:7.2f}" for each in figures) + f"  of {len(all)}")
        if first[-1] > PROMISED:
            late.append(f"{kind}: effects after {first[-1]:.1f} s, promised are {PROMISED:g} s")
    for line in [*found[:20], *late]:
        print(f"  {line}")
    if wrong:
        print("it was found out" if found else f"NOBODY NOTICED that {wrong} is broken")
        return 0 if found else 1
    print("FAILED" if found or late else "every input had its effect exactly once")
    return 1 if found or late else 0


if __name__ == "__main__":
    sys.exit(main())
