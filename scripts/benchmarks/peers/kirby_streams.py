"""Kirby's topics and streams, as a script uses them. Each function has a process of its own."""

import time

import kirby
from benchmarks import payloads
from benchmarks.pace import knock, paced
from benchmarks.watch import Tally, Watch


def publish_each(topic, count):
    """One message a commit."""
    target, items = kirby.topic(topic), payloads.values(count)
    for item in items[:3]:
        target.publish(item)
    started = time.monotonic()
    for item in items:
        target.publish(item)
    return count / (time.monotonic() - started)


def publish_batches(topic, count, batch):
    """``batch`` messages a commit."""
    target, pages = kirby.topic(topic), payloads.pages(payloads.values(count), batch)
    for page in pages[:3]:
        target.publish_many(page)
    started = time.monotonic()
    for page in pages:
        target.publish_many(page)
    return count / (time.monotonic() - started)


def fill(topic, count):
    """Messages for a consumer; not measured."""
    for page in payloads.pages(payloads.values(count), 1000):
        kirby.topic(topic).publish_many(page)


def consume(topic, count, batch):
    """Take lists of ``batch`` and acknowledge each."""
    watch = Watch(count)

    @kirby.stream(topic, name="bench", batch=batch)
    def handle(values):
        watch.add(len(values))

    kirby.run()
    return watch.rate


def serve(topic, tally):
    """Handle what comes, one by one, until SIGTERM."""
    seen = Tally(tally)

    @kirby.stream(topic, name="bench")
    def handle(value):
        seen.add()

    kirby.run()


def publish_paced(topic, count, batch, rate):
    """So many messages a second, ``batch`` a commit, evenly."""
    target = kirby.topic(topic)
    pages = payloads.pages(payloads.values(count), batch)
    paced(len(pages), batch / rate, lambda: target.publish_many(pages.pop()))


def transform(topic, to, count):
    """Consume, publish one for each, settle: one transaction a batch, as the SDK cuts it."""
    watch = Watch(count)

    @kirby.stream(topic, to=to, name="bench")
    def handle(value):
        watch.add()
        return value

    kirby.run()
    return watch.rate


def receive(topic, count, tally):
    """Handle messages that carry the time when they were published; the seconds that each took."""
    seconds, seen = [], Tally(tally)
    watch = Watch(count)

    @kirby.stream(topic, name="bench")
    def handle(value):
        now = time.monotonic()
        seen.add()
        if value["sent"] is not None:
            seconds.append(now - value["sent"])
            watch.add()

    kirby.run()
    return seconds


def send(topic, count, pause, tally):
    """Publish the time, about every ``pause`` seconds, once somebody listens."""
    target = kirby.topic(topic)
    knock(tally, lambda: target.publish({"sent": None}))
    paced(count, pause, lambda: target.publish({"sent": time.monotonic()}))
