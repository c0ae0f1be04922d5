"""Read a single-file script with PEP 723 inline metadata, without running any of it."""

from __future__ import annotations

import difflib
import io
import platform
import re
import tokenize
import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from kirby.core.errors import Invalid

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
class _Block:
    """The TOML of a script, and where it stands, so that errors can name a line."""

    file: str
    toml: str = ""
    line: int = 0  # the line of its `# /// script`

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
    try:
        if path.is_dir() or (path.exists() and not path.is_file()):
            raise Invalid(f"{path}: this is not a file")
        with path.open("rb") as opened:
            source = opened.read(LARGEST + 1)
    except FileNotFoundError:
        raise Invalid(f"{path}: there is no such file") from None
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from None
    return parse(source, path.name)


def parse(source: bytes, name: str) -> Script:
    """The script that these bytes of a file called `name` (with `.py`) are; raises Invalid.

    The code is compiled, never run. Errors say `file:line: what`, as far as there is a line.
    """
    if not name.endswith(".py"):
        raise Invalid(f"{name}: a script must be a .py file")
    if len(source) > LARGEST:
        raise Invalid(f"{name}: larger than {LARGEST // 1024 // 1024} MB, too large for a script")
    text = _text(source, name)
    _compile(text, name)
    block = _block(text, name)
    table = _table(block)
    kirby = _kirby(block, table)
    return Script(
        name=_name(block, kirby, name.removesuffix(".py")),
        source=text,
        dependencies=_dependencies(block, table),
        requires_python=_requires_python(block, table),
        kirby=kirby,
    )


# The file


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


def _block(text: str, name: str) -> _Block:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text if text.endswith("\n") else f"{text}\n"
    openings = list(OPENING.finditer(text))
    if not openings:
        return _Block(name)
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
    return _Block(name, re.sub(r"(?m)^# ?", "", block["toml"]), lines[0])


def _table(block: _Block) -> dict[str, Any]:
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


def _dependencies(block: _Block, table: Mapping[str, Any]) -> tuple[str, ...]:
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


def _requires_python(block: _Block, table: Mapping[str, Any]) -> str | None:
    asked, ours = table.get("requires-python"), platform.python_version()
    if asked is None:
        return None
    if not isinstance(asked, str):
        block.refuse("requires-python must be a string such as '>=3.11'", "requires-python")
    try:
        fits = SpecifierSet(asked).contains(ours, prereleases=True)
    except InvalidSpecifier:
        block.refuse(f"requires-python {asked!r} is not a version specifier", "requires-python")
    if not fits:
        block.refuse(f"needs Python {asked}, this server runs {ours}", "requires-python")
    return asked


# [tool.kirby]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_texts(value: object) -> bool:
    return _is_text(value) or (
        isinstance(value, list) and len(value) > 0 and all(_is_text(one) for one in value)
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000


def _is_variables(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(one) for one in value.values())


KEYS: dict[str, tuple[Callable[[object], bool], str]] = {
    "name": (_is_text, "a string"),
    "schedule": (_is_texts, "a string or a list of strings"),
    "tz": (_is_text, "a string such as 'Europe/Brussels'"),
    "daemon": (lambda value: isinstance(value, bool), "true or false"),
    "replicas": (_is_count, "a whole number from 1 to 1000"),
    "description": (_is_text, "a string"),
    "max_attempts": (_is_count, "a whole number from 1 to 1000"),
    "variables": (_is_variables, "a table of strings"),
}


def _kirby(block: _Block, table: Mapping[str, Any]) -> dict[str, Any]:
    tool = table.get("tool", {})
    kirby = tool.get("kirby", {}) if isinstance(tool, dict) else None
    if not isinstance(kirby, dict):
        block.refuse("[tool.kirby] must be a table", "tool")
    for key, value in kirby.items():
        if key not in KEYS:
            block.refuse(_unknown(key, "[tool.kirby] ", KEYS), key)
        fits, wanted = KEYS[key]
        if not fits(value):
            block.refuse(f"[tool.kirby] {key} must be {wanted}", key)
    for variable in kirby.get("variables", {}):
        if not VARIABLE.fullmatch(variable):
            block.refuse(f"variable {variable!r} must be letters, digits and _", variable)
    if kirby.get("daemon") and "schedule" in kirby:
        block.refuse("a job is a daemon or has a schedule, not both", "schedule")
    return kirby


NAME_RULE = "lower-case letters, digits, '_', '.' and '-', at most 63, a letter or digit first"


def job_name(name: str) -> str:
    """The name, if it may be a job's; raises Invalid."""
    if not NAME.fullmatch(name):
        raise Invalid(f"job name {name!r} must be {NAME_RULE}")
    return name


def _name(block: _Block, kirby: Mapping[str, Any], stem: str) -> str:
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
