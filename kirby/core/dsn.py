"""Which database: KIRBY_DSN, or that of the `kirby dev` whose folder is here or above."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kirby.core.errors import Invalid

VARIABLE = "KIRBY_DSN"
FOLDER = ".kirby"
FILE = "dsn"


def find(environ: Mapping[str, str], folder: Path | None = None) -> str:
    """Return the DSN. Raises Invalid, saying what to do, if there is none."""
    if dsn := environ.get(VARIABLE):
        return dsn
    start = (folder or Path.cwd()).resolve()
    for above in (start, *start.parents):
        path = above / FOLDER / FILE
        if path.is_file():
            try:
                return path.read_text().strip()
            except OSError as error:
                raise Invalid(f"{path} cannot be read: {error.strerror}") from None
    raise Invalid("no database: set KIRBY_DSN, or run 'kirby dev' in this folder or one above it")
