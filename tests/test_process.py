"""Processes of runs, without a database."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fix_runs import gone

from kirby.core.errors import Busy, KirbyError
from kirby.server.supervisor import process
from kirby.server.supervisor.folder import Folder
from kirby.server.supervisor.process import CHILD, Exit, Process

# Processes


@pytest.fixture
def start(tmp_path):
    """Start `python -c source`; what is left of it is killed."""
    started = []

    def start(source, **variables):
        child = Process([sys.executable, "-u", "-c", source], variables, tmp_path)
        started.append(child)
        return child

    yield start
    for child in started:
        child.signal(signal.SIGKILL)
        while child.ended() is None:
            time.sleep(0.001)
        for end in child.output:
            os.close(end)


def read(fd):
    found = b""
    while data := os.read(fd, 65536):
        found += data
    return found


@pytest.mark.parametrize(
    ("source", "exit"),
    [
        ("pass", Exit(0)),
        ("raise SystemExit(255)", Exit(255)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", Exit(None, 15)),
    ],
)
def test_a_process_tells_how_it_ended(start, until, source, exit):
    assert until(start(source).ended) == exit


def test_reasons_are_words():
    assert Exit(3).reason == "exit code 3"
    assert Exit(None, 11).reason == "killed by SIGSEGV"
    assert Exit(None, 63).reason == "killed by signal 63"


def test_a_process_has_exactly_the_given_variables(start):
    child = start("import os; print(sorted(os.environ))", ONE="1", TWO="2")

    assert read(child.output[0]).decode() in ("['ONE', 'TWO']\n", "['LC_CTYPE', 'ONE', 'TWO']\n")


def test_its_descriptor_is_ready_when_it_has_ended(start):
    child = start("pass")

    assert read(child.output[0]) == b""
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.fileno() >= 0


def test_a_process_that_cannot_be_started_leaves_no_descriptors(tmp_path):
    before = os.listdir("/proc/self/fd")

    with pytest.raises(KirbyError, match="cannot be started: embedded null byte"):
        Process(["x"], {"A": "a\0b"}, tmp_path)
    with pytest.raises(KirbyError, match="cannot be started: No such file"):
        Process(["x"], {}, tmp_path / "none")

    assert os.listdir("/proc/self/fd") == before


def test_a_process_whose_parent_is_another_one_does_not_start():
    """As when the supervisor died before the kernel was asked to watch it."""
    arguments = [sys.executable, "-I", "-S", CHILD, "1", sys.executable, "-c", "print('alive')"]

    done = subprocess.run(arguments, capture_output=True, check=False)

    assert (done.returncode, done.stdout) == (126, b"")


def test_a_process_dies_with_the_one_that_started_it(until):
    source = """
import sys, os, pathlib
from kirby.server.supervisor.process import Process
child = Process([sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ),
                pathlib.Path("/"))
print(child.pid, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    pid = int(parent.stdout.readline())
    # the launcher has become the program once it is tied to its parent
    until(lambda: b"child.py" not in Path(f"/proc/{pid}/cmdline").read_bytes())

    parent.kill()

    until(lambda: gone(pid), timeout=2)
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()


def test_variables_of_kirby_win_and_cannot_be_forged():
    made = process.variables(
        {"A": "1", "KIRBY_RUN": "9", "KIRBY_X": "y", "PATH": "/mine"},
        {"KIRBY_RUN": "1"},
        virtualenv=Path("/v"),
        server={"PATH": "/usr/bin", "HOME": "/root", "KIRBY_DSN": "secret", "OTHER": "x"},
    )

    assert made == {
        "A": "1", "KIRBY_RUN": "1", "PATH": "/mine", "HOME": "/root", "LANG": "C.UTF-8",
        "VIRTUAL_ENV": "/v", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1",
    }  # fmt: skip


# The folder


def test_a_folder_has_one_supervisor(tmp_path):
    first, second = Folder(tmp_path), Folder(tmp_path)
    first.lock()

    with pytest.raises(Busy, match=rf"another supervisor \(process {os.getpid()}\) runs on"):
        second.lock()

    first.unlock()
    second.lock()
    second.unlock()


def test_a_script_is_written_once_and_repaired_when_it_was_changed(tmp_path):
    folder = Folder(tmp_path)
    path = folder.script("abc", "../../report.py", "print('é')\n")
    before = path.stat().st_ino

    assert path == tmp_path / "scripts" / "abc" / "report.py"
    assert folder.script("abc", "report.py", "print('é')\n").stat().st_ino == before

    path.write_text("")
    assert folder.script("abc", "report.py", "print('é')\n").read_text() == "print('é')\n"
    assert os.listdir(path.parent) == ["report.py"]


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(KirbyError, match=r"cannot write to .*/data: Not a directory") as caught:
        Folder(tmp_path / "file" / "data").lock()

    assert "\n" not in str(caught.value)
