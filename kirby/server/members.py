"""What no archive may hold: names that lead out of it, too many files, too much when unpacked."""

from __future__ import annotations

from kirby.core.errors import Invalid

MOST = 100_000
LONGEST = 1024  # characters of a name
MAX_TEXT = 16 << 20  # bytes of a member that is read whole
MAX_UNPACKED = 16 << 30
RATIO = 50  # what a bomb is beyond: real distributions are below 20 ...
RATIO_FROM = 64 << 20  # ... but small ones may be anything


class Names:
    """The names that were seen so far, each of them safe, none of them twice."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def add(self, name: str) -> str:
        """Check one name and return it without a slash at its end; raises Invalid."""
        plain = name.removesuffix("/")
        parts = plain.split("/")
        if not plain.isprintable() or len(name) > LONGEST:
            raise Invalid(f"{shown(name)} is no name of a file")
        if "\\" in plain or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
            raise Invalid(f"{shown(name)} would lead out of the archive")
        if plain in self._seen:
            raise Invalid(f"{shown(name)} is there twice")
        if len(self._seen) >= MOST:
            raise Invalid(f"it holds more than {MOST:,} files")
        self._seen.add(plain)
        return plain

    def __contains__(self, name: str) -> bool:
        return name in self._seen


def check_size(unpacked: int, packed: int) -> None:
    """Raise Invalid for a bomb: small as it comes, huge when it is unpacked."""
    if unpacked > MAX_UNPACKED:
        raise Invalid(f"unpacked it would be larger than {MAX_UNPACKED >> 30} GB")
    if unpacked > RATIO_FROM and unpacked > RATIO * packed:
        raise Invalid(
            f"unpacked it would be more than {RATIO} times as large: that looks like a zip bomb"
        )


def check_text(name: str, size: int) -> None:
    """Raise Invalid for a member that is too large to be read whole."""
    if size > MAX_TEXT:
        raise Invalid(f"{shown(name)} is larger than {MAX_TEXT >> 20} MB")


def shown(name: str) -> str:
    """A name from an archive, for a message of one line."""
    short = name if len(name) <= 100 else f"{name[:97]}..."
    return short if short.isprintable() else ascii(short)


def why(error: BaseException) -> str:
    """One short line of a library's own words."""
    return shown(" ".join(str(error).split()) or type(error).__name__)
