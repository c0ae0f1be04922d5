"""Variables that the system cannot pass on: they are handed over in memory, by a descriptor."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping

LONGEST = 32 * 4096  # bytes of one NAME=VALUE with its final NUL: MAX_ARG_STRLEN of Linux
TOTAL = 2**20  # bytes of all of them together; the system has room for a quarter of its stack
OWN = "KIRBY_"
VALUES_FD = "KIRBY_VALUES_FD"


def split(variables: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The variables that fit into an environment, and those that do not, the largest first."""
    sizes = {name: _size(name, value) for name, value in variables.items()}
    small, large = dict(variables), {}
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if sizes[name] <= LONGEST and total <= TOTAL:
            break
        large[name] = small.pop(name)
        total -= sizes[name]
    return small, large


def descriptor(large: Mapping[str, str], run_id: int) -> int:
    """A file in memory with these values, as JSON; who has the descriptor can read it."""
    content = json.dumps({"run": str(run_id), "values": large}).encode()
    try:
        fd = os.memfd_create("kirby values", 0)
    except (AttributeError, OSError):
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def notice(name: str, value: str) -> str:
    """What the log says of a variable that is not in the environment."""
    size = len(value.encode("utf-8", "surrogatepass")) / 2**10
    return (
        f"the variable {name} ({size:,.0f} KB) is too large for the environment: kirby.config reads"
        f" it, or whoever reads JSON from the descriptor ${VALUES_FD}"
    )


def _size(name: str, value: str) -> int:
    return len(os.fsencode(name)) + len(value.encode("utf-8", "surrogatepass")) + 2
