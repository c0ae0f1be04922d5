"""Publish, beside the fastest ways into a table of the same rows."""

from benchmarks.rows import Row

GROUP = "Publish"


def measure(bench):
    env = bench.kirby(bench.house.kirby("publish"))
    table = bench.house.database("publish_limit")
    bench.call("limits", "prepare", dsn=table)
    yield one_by_one(bench, env, table)
    for batch, count in ((100, 30_000), (1000, 60_000)):
        yield in_batches(bench, env, table, batch, bench.count(count, batch))


def one_by_one(bench, env, table):
    count = bench.count(2000)

    def kirby():
        topic = bench.house.fresh("each")
        return bench.call("kirby_streams", "publish_each", env, topic=topic, count=count)

    def insert():
        return bench.call("limits", "insert_each", dsn=table, count=count)

    figures = bench.rounds({"kirby": kirby, "INSERT": insert})
    return Row(
        GROUP, "publish, one a commit", figures["kirby"], figures["INSERT"],
        peer="psycopg INSERT, autocommit", target=0.6,
    )  # fmt: skip


def in_batches(bench, env, table, batch, count):
    given = {"count": count, "batch": batch}

    def kirby():
        topic = bench.house.fresh("batches")
        return bench.call("kirby_streams", "publish_batches", env, topic=topic, **given)

    def copy():
        return bench.call("limits", "copy_batches", dsn=table, **given)

    figures = bench.rounds({"kirby": kirby, "COPY": copy})
    return Row(
        GROUP, f"publish, {batch:,} a commit", figures["kirby"], figures["COPY"],
        peer="psycopg COPY", target=0.5,
    )  # fmt: skip
