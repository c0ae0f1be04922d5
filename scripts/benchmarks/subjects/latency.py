"""From publish to the handler, beside a bare NOTIFY from one process to another."""

from benchmarks import children
from benchmarks.rows import Row

GROUP = "Latency"
IDLE = 0.025  # seconds between messages


def measure(bench):
    env = bench.kirby(bench.house.kirby("latency"))
    dsn = bench.house.database("latency_limit")
    count = bench.count(120)
    topics = bench.house.fresh("latency")

    def kirby(pause, count):
        topic, tally = bench.house.fresh(topics), bench.tally().path
        return one_way(bench, "kirby_streams", env, count, pause, str(tally), topic=topic)

    def notify(pause, count):
        return one_way(bench, "limits", None, count, pause, str(bench.tally().path), dsn=dsn)

    figures = bench.rounds(
        {"kirby": lambda: kirby(IDLE, count), "notify": lambda: notify(IDLE, count)}
    )
    for part in ("p50", "p99"):
        yield Row(
            GROUP, f"publish → handler, idle, {part}", figures[f"kirby {part}"],
            figures[f"notify {part}"], peer="bare NOTIFY", unit="ms", target=3, better="lower",
        )  # fmt: skip

    topic = bench.house.fresh(topics)
    rate = bench.call("kirby_streams", "publish_each", env, topic=topic, count=bench.count(1500))
    busy = {"pause": 2 / rate, "count": bench.count(1500)}
    figures = bench.rounds(
        {"kirby": lambda: kirby(**busy), "notify": lambda: notify(**busy)}, most=3
    )
    for part in ("p50", "p99"):
        yield Row(
            GROUP, f"publish → handler, half load, {part}", figures[f"kirby {part}"],
            figures[f"notify {part}"], peer="bare NOTIFY", unit="ms", better="lower",
            note=f"one message a commit at {rate / 2:,.0f}/s, half of what one process publishes",
        )  # fmt: skip


def one_way(bench, module, env, count, pause, tally, **arguments):
    """Milliseconds from one process to another: the median and the slowest of a hundred."""
    receiver = bench.start(module, "receive", env, count=count, tally=tally, **arguments)
    bench.call(module, "send", env, count=count, pause=pause, tally=tally, **arguments)
    seconds = sorted(children.answer(receiver))
    return {"p50": 1000 * at(seconds, 0.5), "p99": 1000 * at(seconds, 0.99)}


def at(values, share):
    return values[min(len(values) - 1, int(len(values) * share))]
