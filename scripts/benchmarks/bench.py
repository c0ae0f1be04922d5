"""What a subject measures with: servers, counts, and rounds in which everybody has a turn."""

import sys
from collections import defaultdict
from dataclasses import dataclass

from benchmarks import children
from benchmarks.house import House, Missing
from benchmarks.rows import Figure
from benchmarks.watch import Tally


@dataclass(frozen=True)
class Size:
    """How much is measured. ``scale`` multiplies counts and seconds."""

    rounds: int
    scale: float
    stored: int  # messages of the largest topic
    pinned: int  # seconds beside a pinned snapshot
    runs: int  # over which the memory of a supervisor is watched


QUICK = Size(rounds=3, scale=0.4, stored=100_000, pinned=30, runs=400)
FULL = Size(rounds=5, scale=1.0, stored=10_000_000, pinned=60, runs=2000)


class Bench:
    def __init__(self, house: House, size: Size, say=lambda text: print(text, file=sys.stderr)):
        self.house, self.size, self.say = house, size, say
        self.log = house.path("children.log")

    def count(self, number, step=1):
        """A count for this size, a multiple of ``step``."""
        return max(1, round(number * self.size.scale / step)) * step

    # Processes

    def call(self, module, name, env=None, **arguments):
        """What ``peers.MODULE.NAME(**arguments)`` returns, run in a process of its own."""
        return children.call(self.log, f"peers.{module}", name, env, **arguments)

    def start(self, module, name, env=None, **arguments):
        return children.start(self.log, f"peers.{module}", name, env, **arguments)

    def kirby(self, dsn):
        """The environment of a script that works on this database."""
        return children.environ(KIRBY_DSN=dsn)

    def tally(self):
        return Tally.create(self.house.path(self.house.fresh("tally")))

    # Rounds

    def rounds(self, contenders, most=1000):
        """Let all have a turn in every round: A B C A B C …; the figure of each.

        A contender returns a number, or several under names; those become "NAME SUB". One that is
        missing here, or fails, says so in its figure and sits out. ``most``: rounds, of what takes
        long and is judged by its own figure or by nothing.
        """
        samples, missing = defaultdict(list), {}
        for number in range(min(most, self.size.rounds)):
            for name, measure in contenders.items():
                if name not in missing:
                    try:
                        for key, value in _named(name, measure()).items():
                            samples[key].append(value)
                    except (Missing, children.Failed) as error:
                        missing[name] = str(error)
                        self.say(f"    {name}: {error}")
            self.say(f"    round {number + 1}: " + ", ".join(_last(samples)))
        return self.figures(samples, missing)

    def figures(self, samples, missing=None):
        """Figures of samples that were taken otherwise than in rounds."""
        return Figures({k: Figure(tuple(v)) for k, v in samples.items()}, missing or {})


class Figures(dict):
    """The figures by name; for one that is not there, why."""

    def __init__(self, figures, missing):
        super().__init__(figures)
        self.missing = missing

    def __missing__(self, name):
        reasons = [why for who, why in self.missing.items() if name.startswith(who)]
        return Figure(missing=reasons[0].splitlines()[-1] if reasons else "not measured")


def _named(name, answer):
    if isinstance(answer, dict):
        return {f"{name} {key}": value for key, value in answer.items()}
    return {name: answer}


def _last(samples):
    return [f"{key} {values[-1]:,.3g}" for key, values in samples.items()]
