"""Consume → publish → settle in one process, beside only reading the same pages."""

import itertools

from benchmarks.rows import Row

GROUP = "Streams"
PAGE = 1000  # what the SDK takes at most at once; smaller pages are slower


def measure(bench):
    env = bench.kirby(bench.house.kirby("pipeline"))
    table = bench.house.database("pipeline_limit")
    bench.call("limits", "prepare", dsn=table)
    count = bench.count(60_000, PAGE)
    numbers = itertools.count(1)

    def transform():
        topic, to = bench.house.fresh("in"), bench.house.fresh("out")
        bench.call("kirby_streams", "fill", env, topic=topic, count=count)
        return bench.call("kirby_streams", "transform", env, topic=topic, to=to, count=count)

    def read():
        topic = next(numbers)
        bench.call("limits", "fill", dsn=table, topic=topic, count=count)
        return bench.call("limits", "read_pages", dsn=table, topic=topic, page=PAGE)

    figures = bench.rounds({"kirby": transform, "read": read})
    yield Row(
        GROUP, "consume → publish → settle, one process", figures["kirby"], figures["read"],
        peer=f"psycopg SELECT, pages of {PAGE:,}", target=0.4,
        note="the limit only reads and commits how far; Kirby writes a message for each it reads",
    )  # fmt: skip
