"""The same small JSON document everywhere: 200 bytes, every one of them different."""

import json

SIZE = 200


def value(number):
    """A small order, 200 bytes as compact JSON."""
    made = {
        "order": 10_000_000 + number % 10_000_000,
        "customer": f"customer-{number % 9973:04}",
        "lines": [{"sku": "KB-1047", "count": 2, "price": 19.5}],
        "paid": True,
        "note": "",
    }
    made["note"] = "x" * (SIZE - len(dumps(made)))
    return made


def values(count, first=0):
    return [value(number) for number in range(first, first + count)]


def dumps(document):
    """Compact JSON: what every contender that leaves the choice to us sends."""
    return json.dumps(document, separators=(",", ":"))


def pages(items, size):
    return [items[at : at + size] for at in range(0, len(items), size)]
