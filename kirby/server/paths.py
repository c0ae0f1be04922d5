"""Where migrations/ and ui/ are: in a checkout, or inside the installed package."""

from pathlib import Path

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent.parent


def find(name: str) -> Path:
    """Return the folder of this name; the checkout's own comes first, so that edits are live."""
    in_checkout = CHECKOUT / name
    if (CHECKOUT / "pyproject.toml").is_file() and in_checkout.is_dir():
        return in_checkout
    return PACKAGE / name


MIGRATIONS = find("migrations")
UI = find("ui")
