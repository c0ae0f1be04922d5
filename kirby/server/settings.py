"""Settings: one frozen value made from KIRBY_* variables, and passed down from there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kirby.core.errors import Invalid

# What Kirby hands to the scripts it starts, and what tests and the launcher read: not settings of
# a server, but a server may be started by a script or a test, so they are no mistake either.
NOT_OURS = (
    *("KIRBY_TOKEN", "KIRBY_RUN", "KIRBY_JOB", "KIRBY_SUPERVISOR", "KIRBY_VALUES_FD"),
    *("KIRBY_RELEASE", "KIRBY_SHADOW"),
    "KIRBY_PG_BINDIR",
)
NOT_OURS_PREFIXES = ("KIRBY_TEST_", "KIRBY_CHANNEL_")  # the latter: secrets of channels

NAMES = (
    "KIRBY_DSN",
    "KIRBY_HOST",
    "KIRBY_PORT",
    "KIRBY_ENVIRONMENT",
    "KIRBY_SLOTS",
    "KIRBY_LABELS",
    "KIRBY_INDEX_URL",
    "KIRBY_DATA",
    "KIRBY_WORKER_DSN",
    "KIRBY_SECURE_COOKIES",
    "KIRBY_MAX_UPLOAD",
    "KIRBY_MAX_VIRTUALENVS",
    "KIRBY_SPILL",
    "KIRBY_URL",
    "KIRBY_PING_URL",
)

YES = ("1", "true", "yes", "on")
NO = ("0", "false", "no", "off")
LABEL = re.compile(r"[a-z0-9][a-z0-9._:-]{0,62}")
SIZE = re.compile(r"([0-9]{1,15}) ?(KB|MB|GB|)")
SIZES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a Kirby process needs to know before it has a database."""

    #: Where the database is (libpq URL or key=value); None: the embedded one.
    dsn: str | None = None
    #: The address that the web listens on.
    host: str = "127.0.0.1"
    #: The port that the web listens on; 0 takes a free one.
    port: int = 8700
    #: The environment that commands and pages begin with.
    environment: str = "dev"
    #: How many runs a supervisor has under way at once.
    slots: int = 20
    #: What is special about a supervisor's host: it takes runs that ask for none but these.
    labels: tuple[str, ...] = ()
    #: The package index that requirements are resolved from; None: uv's own default.
    index_url: str | None = None
    #: The folder that Kirby keeps its files in: database, virtualenvs, sockets.
    data: Path = Path(".kirby")
    #: What a run is given as KIRBY_DSN, if workers reach the database another way.
    worker_dsn: str | None = None
    #: Whether cookies are sent over https only: for a server behind TLS.
    secure_cookies: bool = False
    #: The largest file, in bytes, that the package index and the pages take.
    max_upload: int = 10**9
    #: How much output of runs, in bytes, may wait on a supervisor's disk for the database.
    spill: int = 512_000_000
    #: How many bytes the virtualenvs of a supervisor may take on disk before unused ones go.
    max_virtualenvs: int = 20 * 2**30
    #: Where people reach the pages, for links in what they are told; None: no links.
    url: str | None = None
    #: What the leader asks for once a minute while it does its duties; None: nothing.
    ping_url: str | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings; ``KIRBY_X_FILE`` names a file that holds X.

        Raises Invalid for a name that is no setting and for a value that cannot be used.
        """
        given = _given(environ)
        defaults = cls()
        return cls(
            dsn=given.get("KIRBY_DSN"),
            host=given.get("KIRBY_HOST", defaults.host),
            port=_number(given, "KIRBY_PORT", defaults.port, 0, 65535),
            environment=given.get("KIRBY_ENVIRONMENT", defaults.environment),
            slots=_number(given, "KIRBY_SLOTS", defaults.slots, 1, 10_000),
            labels=labels_of(given.get("KIRBY_LABELS", "")),
            index_url=given.get("KIRBY_INDEX_URL"),
            data=Path(given.get("KIRBY_DATA", defaults.data)).expanduser(),
            worker_dsn=given.get("KIRBY_WORKER_DSN"),
            secure_cookies=_switch(given, "KIRBY_SECURE_COOKIES", defaults.secure_cookies),
            max_upload=_size(given, "KIRBY_MAX_UPLOAD", defaults.max_upload),
            spill=_size(given, "KIRBY_SPILL", defaults.spill),
            max_virtualenvs=_size(given, "KIRBY_MAX_VIRTUALENVS", defaults.max_virtualenvs),
            url=_url(given, "KIRBY_URL"),
            ping_url=_ping_url(given, "KIRBY_PING_URL"),
        )


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that have a value; an empty one is none."""
    given: dict[str, str] = {}
    for key in sorted(key for key in environ if key.startswith("KIRBY_")):
        if key in NOT_OURS or key.startswith(NOT_OURS_PREFIXES):
            continue
        name = key if key in NAMES else key.removesuffix("_FILE")
        if name not in NAMES:
            raise Invalid(_unknown(key))
        value = environ[key] if name == key else _content(key, environ[key])
        if not value:
            continue
        if name in given:
            raise Invalid(f"{name} and {name}_FILE are both given: keep one")
        given[name] = value
    return given


def _unknown(key: str) -> str:
    close = difflib.get_close_matches(key, NAMES, n=1)
    hint = f"did you mean {close[0]}?" if close else f"settings are {', '.join(NAMES)}"
    return f"{key} is not a setting; {hint}"


def _content(key: str, path: str) -> str:
    if not path:
        return ""
    try:
        text = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Invalid(f"{key}: {path} cannot be read: {why}") from None
    if not text:
        raise Invalid(f"{key}: {path} is empty")
    return text


def _number(given: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = given.get(name, str(default)).strip()
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise Invalid(f"{name} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)


def _size(given: Mapping[str, str], name: str, default: int) -> int:
    found = SIZE.fullmatch(given.get(name, f"{default}").strip().upper())
    if not found or int(found[1]) == 0:
        raise Invalid(f"{name} must be a size like 500MB or 2GB, not {given[name]!r}")
    return int(found[1]) * SIZES[found[2]]


def labels_of(text: str) -> tuple[str, ...]:
    """The labels of a list like ``gpu,eu``, sorted. Raises Invalid."""
    found = {each.strip() for each in text.split(",")} - {""}
    for each in found:
        if not LABEL.fullmatch(each):
            raise Invalid(f"{each!r} is not a label: small letters, digits, . _ - : and at most 63")
    return tuple(sorted(found))


def _url(given: Mapping[str, str], name: str) -> str | None:
    text = given.get(name)
    if text is not None and not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", text):
        raise Invalid(f"{name} must be an address like https://kirby.example.com, not {text!r}")
    return text


def _ping_url(given: Mapping[str, str], name: str) -> str | None:
    text = given.get(name)
    if text is not None and not re.fullmatch(r"https?://[^\s/?#]+\S*", text):
        raise Invalid(f"{name} must be an address like https://hc-ping.com/UUID")
    return text


def _switch(given: Mapping[str, str], name: str, default: bool) -> bool:
    text = given.get(name, YES[0] if default else NO[0]).strip().lower()
    if text not in YES + NO:
        raise Invalid(f"{name} must be true or false, not {text!r}")
    return text in YES
