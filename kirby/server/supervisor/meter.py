"""What a run uses: its peak memory, its CPU time, and whether the memory was not enough."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
CGROUPS = Path("/sys/fs/cgroup")
KILLS = "oom_kill"
INHERITED = 1.05  # times our own peak: the kernel counts in batches, so it is not to the byte
FIRST, LONGEST = 0.05, 2.0  # seconds between two looks: often at first, since many runs are short


class Meter:
    """Of one process and what it started. ``sample`` it now and then, ``add`` what the kernel says.

    `peak_memory` (bytes) is the largest sum of resident memory that was seen, never less than the
    peak of the largest single process; 0: it ended before anybody looked. `cpu_seconds` are user
    and system time. Processes that left their parents are not counted.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._kills = memory_kills()
        # The kernel's own figure begins with that of the process that made it: ours.
        self._begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._pause = FIRST
        self.sample_at = time.monotonic() + FIRST
        self.peak_memory = 0
        self.cpu_seconds = 0.0

    def sample(self) -> None:
        """Read what the processes use now; the next look is due at ``sample_at``."""
        self._pause = min(2 * self._pause, LONGEST)
        self.sample_at = time.monotonic() + self._pause
        memory, cpu = 0, 0.0
        for pid in _family(self._pid):
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                memory += int(fields[21]) * PAGE
                cpu += sum(map(int, fields[11:15])) / TICKS  # its own, and of children that ended
                self._note(_peak(pid), 0.0)
        self._note(memory, cpu)

    def add(self, usage: resource.struct_rusage) -> None:
        """The kernel's own count, of the process and of the children that it waited for."""
        ours = max(self._begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        memory = usage.ru_maxrss * 1024 if usage.ru_maxrss > INHERITED * ours else 0
        self._note(memory, usage.ru_utime + usage.ru_stime)

    def was_out_of_memory(self) -> bool:
        """Whether the kernel killed something for want of memory since the process started."""
        return memory_kills() > self._kills

    def _note(self, memory: int, cpu: float) -> None:
        self.peak_memory = max(self.peak_memory, memory)
        self.cpu_seconds = max(self.cpu_seconds, cpu)


def _peak(pid: int) -> int:
    """The most that one process ever had resident, as far as its program goes back."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _family(pid: int) -> list[int]:
    found, children = [], [pid]
    while children:
        found += children
        children = [child for each in children for child in _children(each)]
    return found


def _children(pid: int) -> list[int]:
    found: list[str] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return [int(each) for each in found]


def memory_kills(cgroups: Path = CGROUPS, proc: Path = Path("/proc")) -> int:
    """How many processes the kernel has killed for want of memory: in our group, else anywhere."""
    for path in (*_group_files(cgroups, proc), proc / "vmstat"):
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, number = line.partition(" ")
                if name == KILLS:
                    return int(number)
    return 0


def _group_files(cgroups: Path, proc: Path) -> list[Path]:
    """Where a control group counts them: version 2, then version 1."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            found.insert(0, cgroups / group.strip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(cgroups / "memory" / group.strip("/") / "memory.oom_control")
    return found
