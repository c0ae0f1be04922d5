"""Read a single-file script with PEP 723 inline metadata, without running any of it.

And the table [tool.kirby], wherever it stands: in a script's block or in a pyproject.toml.
"""

from __future__ import annotations

import difflib
import io
import math
import re
import tokenize
import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from kirby.core.errors import Invalid
from kirby.core.topics import NAME as TOPIC

LARGEST = 5 * 1024 * 1024  # bytes of one script
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
START, END = "# /// script", "# ///"
# The pattern of PEP 723: the block ends at the last `# ///` of its run of comment lines.
BLOCK = re.compile(r"(?m)^# /// script$\s(?P<toml>(^#(| .*)$\s)+)^# ///$")
OPENING = re.compile(r"(?mi)^#[ \t]*///[ \t]*script[ \t]*$")  # exact or misspelt


@dataclass(frozen=True)
class Script:
    """A script that can be deployed: what it is called, its text, and what it asks for."""

    name: str  # of the job: [tool.kirby] name, or the file's
    source: str
    dependencies: tuple[str, ...] = ()
    requires_python: str | None = None
    kirby: dict[str, Any] = field(default_factory=dict)  # the checked [tool.kirby] table


@dataclass(frozen=True)
class Toml:
    """The TOML of a script or a project, and where it stands, so that errors can name a line."""

    file: str
    toml: str = ""
    line: int = 0  # the line of its `# /// script`; a project's own begins after line 0

    def refuse(self, message: str, near: str) -> NoReturn:
        """Raise Invalid with the line where `near` stands, first of all as a key."""
        lines = list(enumerate(self.toml.splitlines(), self.line + 1))
        key = re.compile(rf"""\s*(\[.*)?["']?{re.escape(near)}["']?\s*[=.\]]""")
        found = [n for n, text in lines if key.match(text)]
        found += [n for n, text in lines if near in text]
        place = f":{found[0]}" if found else f":{self.line}" if self.line else ""
        raise Invalid(f"{self.file}{place}: {message}")


def read(path: Path) -> Script:
    """The script in the file `path`; raises Invalid, in one line, for all that is wrong with it."""
    return parse(content(path), path.name)


def content(path: Path) -> bytes:
    """The bytes of a file, as many as a script may have and one more; raises Invalid."""
    try:
        if path.is_dir() or (path.exists() and not path.is_file()):
            raise Invalid(f"{path}: this is not a file")
        with path.open("rb") as opened:
            return opened.read(LARGEST + 1)
    except FileNotFoundError:
        raise Invalid(f"{path}: there is no such file") from None
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from None


def parse(source: bytes, name: str) -> Script:
    """The script that these bytes of a file called `name` (with `.py`) are; raises Invalid.

    The code is compiled, never run. Errors say `file:line: what`, as far as there is a line.
    """
    if not name.endswith(".py"):
        raise Invalid(f"{name}: a script must be a .py file")
    _check_size(source, name)
    text = _text(source, name)
    _compile(text, name)
    return _script(text, name, name.removesuffix(".py"))


def parse_program(source: bytes, name: str) -> Script:
    """The same of a program in another language (a shell script …); raises Invalid.

    Its block of metadata, if it has one, is written as in Python, in lines that begin with `#`.
    """
    _check_size(source, name)
    if b"\0" in source:
        raise Invalid(f"{name}: a program must be a text file that begins with `#!`")
    if not name.endswith(".sh") and not source.startswith(b"#!"):
        raise Invalid(f"{name}: it must be a .py file, a .sh file, or begin with `#!`")
    if source.startswith(b"#!") and source.partition(b"\n")[0].endswith(b"\r"):
        raise Invalid(f"{name}:1: ends in a Windows line end, so its `#!` line names no program")
    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise Invalid(f"{name}:{line}: not UTF-8") from None
    return _script(text, name, name.removesuffix(".sh"))


def settings_in(source: str, name: str) -> dict[str, Any]:
    """The checked [tool.kirby] table in the block of a module; {} without one. Raises Invalid."""
    block = _block(source, name)
    return kirby_table(block, _table(block))


def _script(text: str, name: str, stem: str) -> Script:
    block = _block(text, name)
    table = _table(block)
    kirby = kirby_table(block, table)
    return Script(
        name=_name(block, kirby, stem),
        source=text,
        dependencies=_dependencies(block, table),
        requires_python=_requires_python(block, table),
        kirby=kirby,
    )


# The file


def _check_size(source: bytes, name: str) -> None:
    if len(source) > LARGEST:
        raise Invalid(f"{name}: larger than {LARGEST // 1024 // 1024} MB, too large for a script")


def _text(source: bytes, name: str) -> str:
    try:
        declared = tokenize.detect_encoding(io.BytesIO(source).readline)[0]
        if declared not in ("utf-8", "utf-8-sig", "ascii"):
            raise Invalid(f"{name}: declares the encoding {declared}; a script must be UTF-8")
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise Invalid(f"{name}:{line}: not UTF-8") from None
    except SyntaxError:
        raise Invalid(f"{name}: not UTF-8, or it declares another encoding") from None


def _compile(text: str, name: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, name, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f"{error.lineno or 1}"
        shown = f": {error.text.strip()[:80]}" if error.text and error.text.strip() else ""
        raise Invalid(f"{name}:{line}: does not parse: {error.msg}{shown}") from None
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise Invalid(f"{name}: does not parse: {error or type(error).__name__}") from None


# The block


def _block(text: str, name: str) -> Toml:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text if text.endswith("\n") else f"{text}\n"
    openings = list(OPENING.finditer(text))
    if not openings:
        return Toml(name)
    lines = [text.count("\n", 0, opening.start()) + 1 for opening in openings]
    for opening, line in zip(openings, lines, strict=True):
        if opening[0] != START:
            raise Invalid(f"{name}:{line}: write exactly `{START}` to open the block")
    if len(openings) > 1:
        raise Invalid(f"{name}:{lines[1]}: a second `{START}` block; there may be only one")
    block = BLOCK.match(text, openings[0].start())
    if not block:
        # PEP 723 lets it pass in silence, and with it all the dependencies that it lists.
        raise Invalid(
            f"{name}:{lines[0]}: the `{START}` block is not closed: its lines must begin "
            f"with `# `, and the last must be `{END}`"
        )
    return Toml(name, re.sub(r"(?m)^# ?", "", block["toml"]), lines[0])


def _table(block: Toml) -> dict[str, Any]:
    try:
        table = tomllib.loads(block.toml)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column \d+\)", str(error))
        line = block.line + (int(place[1]) if place else block.toml.count("\n"))
        message = re.sub(r" \(at .*\)", "", str(error))
        raise Invalid(f"{block.file}:{line}: not valid TOML: {message}") from None
    for key in table:
        if key not in ("dependencies", "requires-python", "tool"):
            block.refuse(_unknown(key, "", ["dependencies", "requires-python", "tool.kirby"]), key)
    return table


def _dependencies(block: Toml, table: Mapping[str, Any]) -> tuple[str, ...]:
    listed = table.get("dependencies", [])
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        block.refuse("dependencies must be a list of strings", "dependencies")
    for one in listed:
        try:
            Requirement(one)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            block.refuse(f"dependency {one!r} is not valid: {reason}", one)
    return tuple(listed)


def _requires_python(block: Toml, table: Mapping[str, Any]) -> str | None:
    asked = table.get("requires-python")
    if asked is None:
        return None
    if not isinstance(asked, str):
        block.refuse("requires-python must be a string such as '>=3.11'", "requires-python")
    try:
        SpecifierSet(asked)
    except InvalidSpecifier:
        block.refuse(f"requires-python {asked!r} is not a version specifier", "requires-python")
    return asked


# [tool.kirby]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_texts(value: object) -> bool:
    return _is_text(value) or (
        isinstance(value, list) and len(value) > 0 and all(_is_text(one) for one in value)
    )


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list) and len(value) > 0


def _is_command(value: object) -> bool:
    return _is_list(value) and all(_is_text(one) for one in value) and value[0] != ""


def _is_topics(value: object) -> bool:
    return _is_list(value) and all(isinstance(n, str) and TOPIC.fullmatch(n) for n in value)


def _is_names(value: object) -> bool:
    return _is_list(value) and all(isinstance(n, str) and VARIABLE.fullmatch(n) for n in value)


def _is_labels(value: object) -> bool:
    return _is_list(value) and all(isinstance(n, str) and LABEL.fullmatch(n) for n in value)


def _is_calendars(value: object) -> bool:
    return _is_list(value) and all(isinstance(n, str) and NAME.fullmatch(n) for n in value)


def _is_catch_up(value: object) -> bool:
    return isinstance(value, str) and CATCH_UP.fullmatch(value) is not None


def _is_expected(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(topic, str) and TOPIC.fullmatch(topic) for topic in value)
        and all(map(_is_limit, value.values()))
    )


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_count(value: object) -> bool:
    return _is_whole(value, 1, 1000)


def _is_variables(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(one) for one in value.values())


def seconds(value: object) -> float | None:
    """A duration: a number of seconds, or a text as "90s", "5m", "2h", "1d"; None if it is none.

    At least 0, at most 366 days.
    """
    if isinstance(value, str) and (written := DURATION.fullmatch(value.strip())):
        value = float(written[1]) * UNITS[written[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    fits = math.isfinite(value) and 0 <= value <= LONGEST
    return float(value) if fits else None


def _is_pause(value: object) -> bool:
    return seconds(value) is not None


def _is_limit(value: object) -> bool:
    return (seconds(value) or 0) > 0


DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([smhd])")
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST = 366 * 86400.0
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/=+-]{0,62}")
CONCURRENCY = ("allow", "queue", "skip", "replace")
RERUN = ("original", "current")
CATCH_UP = re.compile(r"(none|last|all)(?:(?<=all)\(([1-9][0-9]{0,2}|1000)\))?")
DURATIONS = (
    *("retry_pause", "timeout", "grace", "no_progress_timeout"),
    *("jitter", "start_by", "finish_by", "heartbeat"),
)

Rule = tuple[Callable[[object], bool], str]

KEYS: dict[str, Rule] = {
    "name": (_is_text, "a string"),
    "description": (_is_text, "a string"),
    "command": (_is_command, "a list of strings: a program and its arguments"),
    "schedule": (_is_texts, "a string or a list of strings"),
    "tz": (_is_text, "a string such as 'Europe/Brussels'"),
    "exclude": (_is_calendars, "a list of names of calendars"),
    "catch_up": (_is_catch_up, "none, last, all or all(N), N from 1 to 1000"),
    "jitter": (_is_pause, "a duration such as 30 (seconds), '90s' or '5m'"),
    "start_by": (_is_limit, "a duration such as '90s', '5m' or '2h', above 0"),
    "finish_by": (_is_limit, "a duration such as '90s', '5m' or '2h', above 0"),
    "heartbeat": (_is_limit, "a duration such as '90s', '5m' or '2h', above 0"),
    "expects": (_is_expected, "a table of topics, each with a duration such as '15m'"),
    "alert_after": (_is_count, "a whole number from 1 to 1000"),
    "recover_after": (_is_count, "a whole number from 1 to 1000"),
    "pause_after": (_is_count, "a whole number from 1 to 1000"),
    "tags": (_is_labels, "a list of words such as 'finance'"),
    "daemon": (lambda value: isinstance(value, bool), "true or false"),
    "replicas": (_is_count, "a whole number from 1 to 1000"),
    "max_attempts": (_is_count, "a whole number from 1 to 1000"),
    "retry_pause": (_is_pause, "a duration such as 30 (seconds), '90s', '5m' or '2h'"),
    "timeout": (_is_limit, "a duration such as 30 (seconds), '90s', '5m' or '2h', above 0"),
    "grace": (_is_pause, "a duration such as 30 (seconds), '90s' or '5m'"),
    "no_progress_timeout": (_is_limit, "a duration such as '90s', '5m' or '2h', above 0"),
    "priority": (lambda value: _is_whole(value, -100, 100), "a whole number from -100 to 100"),
    "labels": (_is_labels, "a list of words such as 'gpu'"),
    "concurrency": (lambda value: value in CONCURRENCY, f"one of {', '.join(CONCURRENCY)}"),
    "rerun": (lambda value: value in RERUN, "original or current"),
    "variables": (_is_variables, "a table of strings"),
    "needs": (_is_names, "a list of names of variables"),
    "secrets": (_is_names, "a list of names of secrets"),
    "reads": (_is_topics, "a list of names of topics"),
    "writes": (_is_topics, "a list of names of topics"),
}
# Of [tool.kirby.jobs.NAME] in a pyproject.toml, which names the job itself.
JOB_KEYS: dict[str, Rule] = {
    **{key: rule for key, rule in KEYS.items() if key != "name"},
    "entry": (_is_text, "a string such as 'package.module:function'"),
}


def kirby_table(toml: Toml, table: Mapping[str, Any], beside: Iterable[str] = ()) -> dict[str, Any]:
    """The checked [tool.kirby] of a TOML document, without the keys `beside`; raises Invalid."""
    tool = table.get("tool", {})
    kirby = tool.get("kirby", {}) if isinstance(tool, dict) else None
    if not isinstance(kirby, dict):
        toml.refuse("[tool.kirby] must be a table", "tool")
    return check_settings(toml, kirby, "[tool.kirby]", KEYS, beside)


def check_settings(
    toml: Toml,
    settings: Mapping[str, Any],
    where: str,
    rules: Mapping[str, Rule],
    beside: Iterable[str] = (),
) -> dict[str, Any]:
    """These settings of a job, if they are right by `rules`; raises Invalid with their line."""
    kept = {key: value for key, value in settings.items() if key not in beside}
    for key, value in kept.items():
        if key not in rules:
            toml.refuse(_unknown(key, f"{where} ", [*rules, *beside]), key)
        fits, wanted = rules[key]
        if not fits(value):
            toml.refuse(f"{where} {key} must be {wanted}", key)
    for variable in kept.get("variables", {}):
        if not VARIABLE.fullmatch(variable):
            toml.refuse(f"variable {variable!r} must be letters, digits and _", variable)
    if kept.get("daemon") and "schedule" in kept:
        toml.refuse("a job is a daemon or has a schedule, not both", "schedule")
    return kept


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Checked settings in one form: durations as seconds, schedule as a list. JSON can hold it."""
    made = dict(settings)
    for key in DURATIONS:
        if key in made:
            made[key] = seconds(made[key])
    if "expects" in made:
        made["expects"] = {topic: seconds(each) for topic, each in made["expects"].items()}
    if isinstance(made.get("schedule"), str):
        made["schedule"] = [made["schedule"]]
    return made


NAME_RULE = "lower-case letters, digits, '_', '.' and '-', at most 63, a letter or digit first"


def job_name(name: str) -> str:
    """The name, if it may be a job's; raises Invalid."""
    if not NAME.fullmatch(name):
        raise Invalid(f"job name {name!r} must be {NAME_RULE}")
    return name


def _name(block: Toml, kirby: Mapping[str, Any], stem: str) -> str:
    name: str = kirby.get("name", stem)
    if not NAME.fullmatch(name):
        hint = "" if "name" in kirby else "; set name in [tool.kirby]"
        block.refuse(f"job name {name!r} must be {NAME_RULE}{hint}", "name")
    return name


def _unknown(key: str, where: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"unknown key {where}{key!r}; {hint}"
