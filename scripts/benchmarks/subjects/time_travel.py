"""What it costs that everything says where it comes from, to keep all versions, and to rewind."""

import itertools

from benchmarks.rows import Row

GROUP = "Time travel"
PAGE = 1000
KEYS = 100


def measure(bench):
    env = bench.kirby(bench.house.kirby("time"))
    table = bench.house.database("time_limit")
    bench.call("limits", "prepare", dsn=table)
    count = bench.count(60_000, PAGE)
    numbers = itertools.count(1)

    def filled():
        topic = bench.house.fresh("in")
        bench.call("kirby_streams", "fill", env, topic=topic, count=count)
        return topic

    def transform(lineage):
        to = bench.house.fresh("out")
        return bench.call("kirby_time", "transform", env, topic=filled(), to=to, count=count,
                          lineage=lineage)  # fmt: skip

    def again():
        topic, to = filled(), bench.house.fresh("out")
        first = bench.call("kirby_time", "transform", env, topic=topic, to=to, count=count)
        bench.call("kirby_time", "rewind", env, topic=topic)
        again = bench.call("kirby_time", "transform", env, topic=topic, to=to, count=count)
        return {"first": first, "again": again}

    def tally():
        state = bench.house.fresh("counts").replace("-", "_")
        return bench.call("kirby_time", "tally", env, topic=filled(), state=state, count=count)

    def in_place():
        topic = next(numbers)
        bench.call("limits", "fill", dsn=table, topic=topic, count=count)
        return bench.call("limits", "tally_pages", dsn=table, topic=topic, page=PAGE, keys=KEYS)

    figures = bench.rounds({
        "with": lambda: transform(True), "without": lambda: transform(False),
        "rewind": again, "tally": tally, "in place": in_place,
    })  # fmt: skip
    yield Row(
        GROUP, "consume → publish → settle, with lineage", figures["with"], figures["without"],
        peer="itself, without", note="parents, headers.via and the trace of each message",
    )  # fmt: skip
    yield Row(
        GROUP, "handled again after a rewind", figures["rewind again"], figures["rewind first"],
        peer="itself, the first time",
    )  # fmt: skip
    yield Row(
        GROUP, f"count in a state of {KEYS} keys, all versions kept", figures["tally"],
        figures["in place"], peer=f"psycopg, updated in place, pages of {PAGE:,}",
    )  # fmt: skip
