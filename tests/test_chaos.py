"""scripts/chaos for some seconds: what it does for minutes when it is asked to."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.append(str(SCRIPTS))

from storm import __main__ as storm  # noqa: E402
from storm.faults import BROKEN, broken  # noqa: E402


def test_a_pipeline_does_everything_exactly_once_whatever_is_killed():
    found, taken = storm.run(12, 1)

    assert found == []
    assert sum(len(each) for each in taken.values()) >= 2


def test_a_wrong_function_is_found_out():
    found, _ = storm.run(60, 2, wrong="part")

    assert found


@pytest.mark.parametrize("wrong", BROKEN)
def test_every_wrong_function_is_still_to_be_had(db, wrong):
    db.execute(broken(wrong))


def test_the_command_says_which_functions_it_can_break():
    said = subprocess.run([SCRIPTS / "chaos", "--broken", "list"], capture_output=True, text=True)
    assert said.stdout.split() == list(BROKEN)
