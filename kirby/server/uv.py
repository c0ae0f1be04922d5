"""Run the program `uv`: bounded in time, without this server's secrets, errors as one line."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from kirby.core.errors import Invalid, KirbyError

# What a build backend run by uv must not see (secrets), or what would point uv at another Python.
HIDDEN = re.compile(r"KIRBY_|PG[A-Z]|PYTHON|VIRTUAL_ENV$|CONDA_|UV_SYSTEM_PYTHON$|UV_PUBLISH_")
UNREACHABLE = re.compile(
    r"error sending request|dns error|tcp connect|Connection (?:refused|reset)|HTTP status"
    r"|network was disabled|network connectivity|timed out|error decoding response body",
    re.IGNORECASE,
)
DISK = re.compile(
    r"No space left|Read-only file system|Permission denied|Disk quota|Not a directory"
    r"|Failed to initialize cache|failed to create directory|Failed to create virtual environment",
    re.IGNORECASE,
)
DRAWING = re.compile(r"(?m)^\s*(?:\u00d7|[\u251c\u2570]\u2500\u25b6)")  # how older ones mark causes
LONGEST = 400  # characters of a complaint that are still one readable line


def binary() -> str:
    """The path of uv; raises KirbyError, saying what to install, when there is none."""
    try:
        from uv import find_uv_bin
    except ImportError:
        raise KirbyError("uv is missing: pip install 'kirby[server]'") from None
    try:
        return find_uv_bin()
    except FileNotFoundError:
        raise KirbyError("the uv program is missing: pip install --force-reinstall uv") from None


def run(
    *arguments: str, cwd: Path, cache: Path | None, index_url: str | None, seconds: float
) -> str:
    """Run uv in folder `cwd` and return its output.

    `cache` is uv's cache folder unless UV_CACHE_DIR is set. Raises Invalid when uv says that the
    requirements are wrong, KirbyError when the index, the disk or uv itself fails, or when it
    takes longer than `seconds` (everything that it started is killed then).
    """
    child = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
        [binary(), "--quiet", "--color", "never", *arguments],
        cwd=cwd,
        env=environment(os.environ, cache=cache, index_url=index_url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    with child, _killed_at_exit(child):
        try:
            output, errors = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise KirbyError(f"uv {' '.join(arguments[:2])} took over {seconds:.0f} s") from None
    if child.returncode < 0:
        raise KirbyError(f"uv was ended by signal {-child.returncode}")
    if child.returncode > 0:
        raise _failure(errors)
    return output


def environment(
    given: Mapping[str, str], *, cache: Path | None, index_url: str | None
) -> dict[str, str]:
    """The caller's variables (proxies, certificates, UV_*) without secrets, plus ours."""
    kept = {name: value for name, value in given.items() if not HIDDEN.match(name)}
    kept["UV_PYTHON_DOWNLOADS"] = "never"
    if "UV_CONFIG_FILE" not in kept:
        kept.setdefault("UV_NO_CONFIG", "1")
    if cache:
        kept.setdefault("UV_CACHE_DIR", str(cache))
    if index_url:
        kept["UV_DEFAULT_INDEX"] = index_url  # not an argument: it may hold a password
    return kept


def complaint(errors: str) -> str:
    """The essential sentence of what uv wrote, without its drawing, advice and passwords."""
    text = DRAWING.sub("cause:", errors).replace("\u2502", " ")
    text = re.split(r"(?m)^\s*hint:", re.sub(r"://[^/@\s]*@", "://", text))[0]
    if because := re.search(r"\bbecause (.*)", " ".join(text.split()), re.IGNORECASE):
        return _reasons(because[1]).rstrip(".:, ")
    causes = [_cause(part) for part in re.split(r"(?m)^\s*(?:error|cause|Caused by):", text)]
    causes = [cause for cause in causes if cause] or ["uv gave no reason"]
    about = next((cause for cause in causes if cause.startswith("Failed to")), causes[0])
    return about if about == causes[-1] else f"{about.rstrip('.:')}: {causes[-1]}"


def _cause(part: str) -> str:
    """The first paragraph of one cause; of a program that failed, the last line it wrote."""
    head, _, wrote = part.partition("[stderr]")
    lines = wrote.strip().splitlines()
    return " ".join((lines[-1] if lines else head.strip().partition("\n\n")[0]).split())


def _reasons(explanation: str) -> str:
    """The first ground and the last one: what clashes, and with what the script asks."""
    grounds = re.split(
        r", we can conclude that|(?:^|\. )And because |(?:^|\. )because ", explanation
    )
    first, last = grounds[0].strip(), grounds[-2].strip() if len(grounds) > 2 else ""
    return f"{first}; {last}" if last and last != first else first


def _failure(errors: str) -> KirbyError:
    line = complaint(errors)
    if DISK.search(errors):
        steps = line.split(": ")  # from what it did, over many long paths, to why it failed
        line = line if len(steps) < 3 else f"{steps[0]}: {steps[-1]}"
        return KirbyError(_short(f"uv cannot write to this disk: {line}"))
    if UNREACHABLE.search(errors):
        return KirbyError(_short(f"the package index cannot be reached: {line}"))
    return Invalid(_short(f"the dependencies cannot be installed: {line}"))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rsplit(' ', 1)[0]} …"


@contextlib.contextmanager
def _killed_at_exit(child: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
