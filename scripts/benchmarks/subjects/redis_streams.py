"""Append and consume in batches, beside Redis Streams."""

from benchmarks.rows import Row

GROUP = "Streams"
BATCH = 100


def measure(bench):
    env = bench.kirby(bench.house.kirby("streams"))
    count = bench.count(40_000, BATCH)

    def redis(name, **arguments):
        return bench.call("redis_streams", name, port=bench.house.redis(), count=count, **arguments)

    def append():
        return redis("append", stream=bench.house.fresh("append"), batch=BATCH)

    def consume():
        stream = bench.house.fresh("consume")
        redis("fill", stream=stream)
        return redis("consume", stream=stream, batch=BATCH)

    def kirby_append():
        topic = bench.house.fresh("append")
        given = {"topic": topic, "count": count, "batch": BATCH}
        return bench.call("kirby_streams", "publish_batches", env, **given)

    figures = bench.rounds({"kirby": kirby_append, "redis": append})
    yield Row(
        GROUP, f"append in batches of {BATCH}", figures["kirby"], figures["redis"],
        peer="Redis Streams", target=0.5,
    )  # fmt: skip
    figures = bench.rounds({"kirby": lambda: drain(bench, env, count, BATCH), "redis": consume})
    yield Row(
        GROUP, f"consume and acknowledge in batches of {BATCH}", figures["kirby"],
        figures["redis"], peer="Redis Streams", target=0.4,
    )  # fmt: skip


def drain(bench, env, count, batch):
    """Messages a second through ``@kirby.stream(batch=…)``, one process."""
    topic = bench.house.fresh("drain")
    bench.call("kirby_streams", "fill", env, topic=topic, count=count)
    return bench.call("kirby_streams", "consume", env, topic=topic, count=count, batch=batch)
