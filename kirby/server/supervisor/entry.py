"""What is executed for a run: a file, a module, a function, or a command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kirby.core.errors import KirbyError

SCRIPT = "{script}"  # in a command line: the path of the deployed file

# Needs nothing but the standard library: the run's virtualenv has no Kirby unless it asks for it.
CALL = """\
import importlib, operator, sys
module, _, name = sys.argv.pop().partition(":")
sys.argv[0] = name
found = importlib.import_module(module)
try:
    function = operator.attrgetter(name)(found)
except AttributeError:
    sys.exit(f"the module {module} has no {name}")
result = function()
if hasattr(result, "__await__"):
    import asyncio
    result = asyncio.run(result)
sys.exit(result)
"""


def arguments(
    virtualenv: Path,
    *,
    script: Path | None,
    source: str | None,
    entry: str,
    command: Sequence[str] | None,
) -> list[str]:
    """The program of a run and its arguments; a name without a slash is looked up in PATH.

    `command` is taken as it is, with {script} for the path of the file. `entry` is a module, or
    module:function, whose result is the exit code as for sys.exit. With neither, the file itself:
    by Python if it is a .py file, else by what its first line names, or by sh. Raises KirbyError.
    """
    if command:
        return [each.replace(SCRIPT, str(script)) for each in command] if script else [*command]
    python = [str(virtualenv / "bin" / "python"), "-u"]
    if ":" in entry:
        return [*python, "-c", CALL, entry]
    if entry:
        return [*python, "-m", entry]
    if script is None:
        raise KirbyError("a package has no file to run: its job needs an entry or a command")
    if script.suffix == ".py":
        return [*python, str(script)]
    return [str(script)] if (source or "").startswith("#!") else ["sh", str(script)]
