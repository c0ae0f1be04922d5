"""The documentation names what is there: settings, error codes, functions, events, commands."""

import re
from pathlib import Path

import pytest

from kirby.core.errors import BY_SQLSTATE
from kirby.server import settings
from kirby.server.cli import kirby as command_line
from kirby.server.paths import MIGRATIONS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# Names of other things.
NOT_EVENTS = {"job_event", "job_description", "tick_at", "run_once", "run_id"}
FUNCTIONS = "\n".join(path.read_text() for path in (MIGRATIONS / "functions").glob("*.sql"))


def page(name):
    return (DOCS / f"{name}.md").read_text()


@pytest.mark.parametrize("name", settings.NAMES + settings.NOT_OURS)
def test_every_setting_is_explained(name):
    assert f"`{name}`" in page("settings")


def test_every_error_code_is_explained():
    for code, kind in BY_SQLSTATE.items():
        assert f"| `{code}` | `{kind.__name__}` |" in page("database")


def test_the_protocol_is_listed_whole():
    rights = (MIGRATIONS / "rights.sql").read_text()
    [granted] = re.findall(r"grant execute on function(.*?)to kirby_worker", rights, re.S)
    granted = set(re.findall(r"kirby\.(\w+)\(", granted))

    assert granted == set(re.findall(r"^\| `kirby\.(\w+)\(", page("database"), re.M))


def test_every_job_event_is_listed():
    written = set(re.findall(r"'(run_\w+|job_\w+|tick_\w+)'", FUNCTIONS)) - NOT_EVENTS

    assert written - set(re.findall(r"`(\w+)`", page("events"))) == set()


def test_every_command_is_in_the_changelog_or_a_guide():
    guides = "\n".join(path.read_text() for path in DOCS.glob("*.md"))
    for name in command_line.commands:
        assert f"kirby {name}" in guides or f"`{name}`" in guides or name in page("changelog")


@pytest.mark.parametrize("path", [ROOT / "README.md", *DOCS.glob("*.md")], ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
