"""Where and with what it was measured."""

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("kirby", "psycopg", "celery", "procrastinate", "pgqueuer", "asyncpg", "redis")


def facts(house, size, mode, seconds, load):
    """What ``--json`` says beside the rows."""
    packages = {name: version for name in PACKAGES if (version := _installed(name))}
    return {
        "mode": mode,
        "rounds": size.rounds,
        "scale": size.scale,
        "seconds": seconds,
        "load_before": load,
        "settings": house.settings,
        "versions": {"Python": platform.python_version(), **house.versions, **packages},
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        },
    }


def _installed(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()
