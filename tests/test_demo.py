"""The demo is the main job on real data: it runs through here on two days of it."""

import subprocess
import sys
from pathlib import Path

import pytest
from fix_kirby import environ

from kirby.server import cron, scripts

FLIGHTS = Path(__file__).parent.parent / "scripts/examples/flights"
KINDS = {
    "departures": (False, False),
    "delays": (True, False),
    "carriers": (True, False),
    "report": (False, True),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_example_scripts_are_valid(name):
    script = scripts.read(FLIGHTS / f"{name}.py")

    assert script.name == name
    assert script.kirby["description"]
    assert (script.kirby.get("daemon", False), "schedule" in script.kirby) == KINDS[name]
    if "schedule" in script.kirby:
        cron.parse(script.kirby["schedule"])


def test_the_report_needs_nothing_of_kirby():
    assert "kirby" not in scripts.read(FLIGHTS / "report.py").dependencies
    assert "import kirby" not in (FLIGHTS / "report.py").read_text()


def test_two_days_run_through_with_a_killed_replica_and_every_row_is_equal(tmp_path):
    data = tmp_path / "data"
    command = [sys.executable, FLIGHTS / "demo.py", "--check", "--days", "2", "--data", data]

    done = subprocess.run(command, env=environ(), capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.split() == ["departures", "1,785", "1,785", "equal"] for line in lines)
    assert any(line.split() == ["cancellations", "12", "12", "equal"] for line in lines)
    assert any(line.split() == ["delays", "1,773", "1,773", "equal"] for line in lines)
    assert any(line.split() == ["carriers", "14", "14", "equal"] for line in lines)
    assert sum(line.endswith("equal") for line in lines) == 4 + 14
    assert "DIFFERENT" not in done.stdout
    assert "every row is equal" in lines[-1]
    assert "kill" in done.stdout
    assert all(len(line) <= 80 for line in lines if line.endswith("equal"))


def test_a_check_never_begins_on_a_folder_that_is_there(tmp_path):
    done = subprocess.run(
        [sys.executable, FLIGHTS / "demo.py", "--check", "--data", tmp_path],
        env=environ(), capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 1
    assert "is there already: a check begins with a fresh folder" in done.stderr


@pytest.mark.parametrize("days", ["0", "366", "x"])
def test_days_that_are_none_of_2013_are_wrong_usage(days):
    done = subprocess.run(
        [sys.executable, FLIGHTS / "demo.py", "--days", days],
        env=environ(), capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 2
    assert "--days" in done.stderr
