"""Run the program `uv`: bounded in time, without this server's secrets, errors as one line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kirby.core.errors import Invalid, KirbyError

# All that uv, and a build backend that it runs, see of this server's environment. A list of what
# is known to be harmless: a server's secrets may have any name.
HARMLESS = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TEMP|TMP|NETRC|XDG_\w+"
    r"|(?i:\w+_proxy)|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|GIT_SSL_\w+"
    r"|UV_(?!PUBLISH_|SYSTEM_PYTHON$|INDEX_STRATEGY$)\w+"
    r"|CC|CXX|CPP|LD|AR|FC|\w*FLAGS|CPATH|C_INCLUDE_PATH|LIBRARY_PATH|LD_LIBRARY_PATH"
    r"|PKG_CONFIG_PATH|CMAKE_\w+|(?:CARGO|RUSTUP|JAVA|CUDA)_HOME|SOURCE_DATE_EPOCH"
    r"|SETUPTOOLS_SCM_PRETEND_VERSION\w*"
)
INDEXES = ("UV_INDEX", "UV_EXTRA_INDEX_URL")
DEFAULT_INDEX = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")
EPOCH = "315532800"  # 1980: as early as a zip file can say; the same source, the same wheel
WRONG = "the dependencies cannot be installed"
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
# What a backend wrote last, when `uv build` says that it failed.
BUILD_LOG = re.compile(
    r"(?s)(?:.*\n)?(?!Building [^\n]*\.\.\.\n)([^\n]*\S[^\n]*)\n+"
    r"\s*(?:error|cause):\s+Failed to build.*backend (?:returned|failed)"
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
    *arguments: str,
    cwd: Path,
    seconds: float,
    cache: Path | None = None,
    index_url: str | None = None,
    hosted_url: str | None = None,
    what: str = WRONG,
) -> str:
    """Run uv in folder `cwd` and return its output.

    `cache` is uv's cache folder unless UV_CACHE_DIR is set. A name that the index at `hosted_url`
    knows is asked for nowhere else. Raises Invalid, beginning with `what`, when uv says that the
    requirements are wrong; KirbyError when the index, the disk or uv itself fails, or when it takes
    longer than `seconds` (everything that it started is killed then).
    """
    with tempfile.TemporaryDirectory(prefix="kirby-uv-") as private:
        variables = environment(os.environ, cache=cache, index_url=index_url, hosted_url=hosted_url)
        config = _hide_passwords(variables, Path(private))
        child = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
            [binary(), *_quiet(arguments), "--color", "never", *config, *arguments],
            cwd=cwd,
            env=variables,
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
                did = " ".join(arguments[:2])
                raise KirbyError(f"uv {did} took over {seconds:.0f} s") from None
    if child.returncode < 0:
        raise KirbyError(f"uv was ended by signal {-child.returncode}")
    if child.returncode > 0:
        raise _failure(errors.replace(f"{cwd}/", ""), what)
    return output


def _quiet(arguments: Sequence[str]) -> list[str]:
    """Being quiet, uv says neither where a Python is nor what a build backend wrote."""
    return [] if arguments[0] in ("python", "build") else ["--quiet"]


def harmless(given: Mapping[str, str]) -> dict[str, str]:
    """Those of the server's variables that a program which is not ours may see: no secrets."""
    return {name: value for name, value in given.items() if HARMLESS.fullmatch(name)}


def environment(
    given: Mapping[str, str],
    *,
    cache: Path | None,
    index_url: str | None,
    hosted_url: str | None = None,
) -> dict[str, str]:
    """What uv is to see of these variables, and ours."""
    kept = harmless(given)
    kept["UV_PYTHON_DOWNLOADS"] = "never"
    kept.setdefault("SOURCE_DATE_EPOCH", EPOCH)
    if "UV_CONFIG_FILE" not in kept:
        kept.setdefault("UV_NO_CONFIG", "1")
    if cache:
        kept.setdefault("UV_CACHE_DIR", str(cache))
    if index_url:
        kept["UV_DEFAULT_INDEX"] = index_url  # not an argument: it may hold a password
        kept.pop("UV_INDEX_URL", None)
    if hosted_url:
        # Ours first: with this strategy a name that an index knows is looked up in no later one.
        indexes = [hosted_url, *(kept.pop(name) for name in INDEXES if name in kept)]
        kept["UV_INDEX"] = " ".join(indexes)
        kept["UV_INDEX_STRATEGY"] = "first-index"
        for name in ("NO_PROXY", "no_proxy"):
            kept[name] = ",".join(filter(None, [kept.get(name), "127.0.0.1"]))
    return kept


def index_urls(given: Mapping[str, str], index_url: str | None) -> list[str]:
    """Every index that uv is told of by these variables and by us; they may hold passwords."""
    urls = [index_url] if index_url else []
    for name in (*DEFAULT_INDEX, *INDEXES):
        urls += [each.partition("=")[2] if _is_named(each) else each
                 for each in given.get(name, "").split()]  # fmt: skip
    return urls


def _is_named(index: str) -> bool:
    """Whether it is NAME=URL."""
    return re.match(r"[\w.-]+=", index) is not None


def _hide_passwords(variables: dict[str, str], private: Path) -> list[str]:
    """Move indexes with a password from the environment, which build backends get, into a file."""
    indexes = " ".join(variables.get(name, "") for name in (*DEFAULT_INDEX, *INDEXES))
    if "@" not in indexes or "UV_CONFIG_FILE" in variables:
        return []
    lines = []
    for name in (*INDEXES, *DEFAULT_INDEX):
        for index in variables.pop(name, "").split():
            label, _, url = index.partition("=") if _is_named(index) else ("", "", index)
            lines += ["[[index]]", f"url = {json.dumps(url)}"]
            lines += [f"name = {json.dumps(label)}"] if label else []
            lines += ["default = true"] if name in DEFAULT_INDEX else []
    config = private / "uv.toml"
    config.touch(mode=0o600)
    config.write_text("\n".join([*lines, ""]), "utf-8")
    variables.pop("UV_NO_CONFIG", None)
    return ["--config-file", str(config)]


def complaint(errors: str) -> str:
    """The essential sentence of what uv wrote, without its drawing, advice and passwords."""
    text = DRAWING.sub("cause:", errors).replace("\u2502", " ")
    if written := BUILD_LOG.match(text):
        return " ".join(written[1].split())
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


def _failure(errors: str, what: str) -> KirbyError:
    line = complaint(errors)
    if DISK.search(errors):
        steps = line.split(": ")  # from what it did, over many long paths, to why it failed
        line = line if len(steps) < 3 else f"{steps[0]}: {steps[-1]}"
        return KirbyError(_short(f"uv cannot write to this disk: {line}"))
    if UNREACHABLE.search(errors):
        return KirbyError(_short(f"the package index cannot be reached: {line}"))
    if what != WRONG:  # it says so already, and not where in a temporary folder
        line = re.sub(r"^Failed to build `[^`]*`: ", "", line)
    return Invalid(_short(f"{what}: {line}"))


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
