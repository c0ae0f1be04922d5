"""Three streams with states, one behind the other: inputs -> orders -> invoices -> receipts.

Served by `kirby worker`, or by itself. Handlers take a moment, so that they can be struck in the
middle, and some raise by chance, after they wrote something that must leave no trace.
"""

import datetime
import os
import random
import time

import kirby
from kirby.core import subscriptions
from kirby.sdk import loop

subscriptions.LEASE = datetime.timedelta(seconds=float(os.environ["STORM_LEASE"]))
loop.POLL = 0.3
WORK = float(os.environ["STORM_WORK"])  # seconds a message
FAILING = float(os.environ["STORM_FAILING"])
TRIES = {"max_attempts": 1000}  # they are killed by us, which is not their fault

first, second, third = kirby.state("first"), kirby.state("second"), kirby.state("third")


def work(topic, value):
    time.sleep(WORK)
    if random.random() < FAILING:
        kirby.topic(topic).publish(value)
        raise ValueError("by chance")


def count(state, key, value):
    row = state.get(key, {"count": 0, "sum": 0})
    state[key] = {"count": row["count"] + 1, "sum": row["sum"] + value}


@kirby.stream("inputs", to="orders", name="first", **TRIES)
def order(value, message: kirby.Message):
    count(first, message.key, value)
    work("orders", value)
    return value


@kirby.stream("orders", to="invoices", name="second", ordered=False, **TRIES)
def invoice(value, message: kirby.Message):
    count(second, message.key, value)
    work("invoices", value)
    return value


@kirby.stream("invoices", name="third", batch=20, **TRIES)
def receipts(messages: list[kirby.Message]):
    for message in messages:
        count(third, message.key, message.value)
    work("receipts", messages[0].value)
    return iter([kirby.Out(each.value, key=each.key, to="receipts") for each in messages])


if __name__ == "__main__":
    kirby.run()
